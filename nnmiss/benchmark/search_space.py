"""What a random search draws: ranges and lists of values of settings, and the settings of every trial."""
from __future__ import annotations

import math
import re

import torch

from nnmiss.errors import NnmissError
from nnmiss.seeding import torch_generator

GRAMMAR = "KEY=LOW..HIGH, KEY=VALUE,VALUE,... or KEY=each:..., which draws one value per modality"


def parse_space(items: dict[str, str]) -> dict[str, tuple[bool, tuple[float, float] | tuple[str, ...]]]:
    """Setting -> (one value per modality?, (low, high) or the values to choose from).

    Args:
        items: setting -> text of GRAMMAR's right side.

    Raises:
        NnmissError: a range whose ends are no numbers or not in order, or an empty value.
    """
    space = {}
    for key, text in items.items():
        each, text = text.startswith("each:"), text.removeprefix("each:")
        low, dots, high = text.partition("..")
        try:
            values = (float(low), float(high)) if dots else tuple(text.split(","))
        except ValueError:
            raise NnmissError(f"--over {key}={text}: the ends of a range must be numbers ({GRAMMAR})") from None
        if dots and not (math.isfinite(values[1] - values[0]) and values[0] < values[1]):
            raise NnmissError(f"--over {key}={text}: expected a range that goes up ({GRAMMAR})")
        if not dots and not all(re.fullmatch(r"[^\s=]+", value) for value in values):
            raise NnmissError(f"--over {key}={text}: expected {GRAMMAR}")
        space[key] = (each, values)
    return space


def draw_trial(space: dict, modalities: list[str], seed: int, number: int) -> dict[str, str]:
    """The settings of one trial: the same for the same space, seed and number, whatever was drawn before.

    Ranges above zero are drawn with a uniform logarithm (a learning rate between 1e-5 and 1e-3 has 1e-4 as its median),
    others uniformly. Each setting has a generator of its own, so that another one in the space does not change it.

    Returns:
        setting -> text for `--set`.
    """
    drawn = {}
    for key, (each, values) in space.items():
        if each:
            drawn[key] = "+".join(f"{name}:{_draw(values, seed, number, key, name)}" for name in modalities)
        else:
            drawn[key] = _draw(values, seed, number, key)
    return drawn


def _draw(values: tuple, *parts: int | str) -> str:
    generator = torch_generator("search", *parts)
    if isinstance(values[0], str):
        return values[int(torch.randint(len(values), (), generator=generator))]
    low, high = values
    share = float(torch.rand((), generator=generator, dtype=torch.float64))
    return f"{low * (high / low) ** share if low > 0 else low + (high - low) * share:.4g}"
