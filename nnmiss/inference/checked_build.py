"""Builds the network that a model's files ask for, after a look at what it would be that takes no memory."""
from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from nnmiss.errors import NnmissError


def build_checked(build: Callable[[], nn.Module], weights: Mapping[str, Mapping[str, Tensor]],
                  described_in: str) -> nn.Module:
    """The network of `build`, if all `weights` fit it by name and shape.

    It is built without memory first (torch's device "meta"): so files that ask for a network of a terabyte are refused, and
    a network is never larger than the checkpoints that came with it.

    Args:
        build: makes the network.
        weights: file -> its tensors by name.
        described_in: the file that says what the network is, for messages.

    Raises:
        NnmissError: the network cannot be built, or a file does not fit it.
    """
    try:
        with torch.device("meta"):
            skeleton = build()
        for file, tensors in weights.items():
            check_weights(skeleton, tensors, file)
        return build()
    except NnmissError:
        raise
    except Exception as error:  # whatever a constructor does with values it was not made for
        raise NnmissError(f"{described_in} describes no network that can be built ({type(error).__name__}: "
                          f"{str(error)[:200]}): restore it") from None


def check_weights(network: nn.Module, weights: Mapping[str, Tensor], file: str) -> None:
    """Raises NnmissError, naming a tensor, when `weights` of a file do not fit a network by name and shape."""
    expected = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in weights.items()}
    if expected != found:
        wrong = sorted(n for n in {*expected, *found} if expected.get(n) != found.get(n))
        raise NnmissError(f"{file} does not fit the network of its plans: {len(wrong)} tensors differ, such as "
                          f"{wrong[0]} (plans: {expected.get(wrong[0])}, file: {found.get(wrong[0])}). Was the "
                          "plans.json of the model folder changed?")
