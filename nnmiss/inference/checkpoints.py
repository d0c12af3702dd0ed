"""Checkpoints without pickled objects: read with `weights_only=True`, written atomically from plain values."""
from __future__ import annotations

import os
import re
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from nnmiss.atomic_files import replacing
from nnmiss.errors import NnmissError

OUTPUT_LAYER = re.compile(r"(^|\.)(seg_layers|output|heads_of|fusion_head)\.")  # of segmentation, of classification


def plain(value: Any) -> Any:
    """`value` with NumPy scalars and arrays as Python numbers and lists, which `weights_only=True` accepts."""
    if isinstance(value, dict):
        return {plain(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(plain(v) for v in value)
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    return str(value) if isinstance(value, torch.device) else value


def write_checkpoint(path: str | os.PathLike, checkpoint: dict[str, Any]) -> None:
    """Saves `checkpoint` so that `path` is always the old or the new file, never half of one.

    Raises OSError, as any writing does, when the disk is full.
    """
    with replacing(path) as temporary:
        try:
            with open(temporary, "wb") as file:
                torch.save(checkpoint, file)
        except RuntimeError as error:  # torch's own, of positions in the file, hides what the system said
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def read_checkpoint(path: str | os.PathLike, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Loads a checkpoint without ever running code that stands in it.

    Stock nnU-Net's checkpoints log NumPy numbers; those, and nothing else besides tensors and plain values, are let in.

    Raises:
        NnmissError: the file is absent, damaged, holds other objects, or is not a nnU-Net checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        raise NnmissError(f"checkpoint {path} not found")
    allowed = getattr(torch.serialization, "safe_globals", lambda _: nullcontext())
    try:
        with allowed(_numpy_numbers()):
            checkpoint = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        raise NnmissError(f"checkpoint {path} was refused ({type(error).__name__}): it is damaged or holds objects other "
                          "than tensors and plain values, which could run code when loaded. A damaged one of a training "
                          "can be deleted: its stage then starts anew") from None
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("network_weights"), dict):
        raise NnmissError(f"{path} is not a nnU-Net checkpoint: it has no 'network_weights'")
    return checkpoint


def trained_models(dataset_folder: Path) -> str:
    """What to do where a model is not there: which others were trained for the data set, as a part of a sentence."""
    there = sorted({fold.parent.name for fold in dataset_folder.glob("*__*__*/fold_*")})
    if not there:
        return "nothing was trained for this data set. Train first, or check -d and the variable nnUNet_results"
    return ("train it first, or check -m, -p, --tag and -c. Trained for this data set, as METHOD__PLANS__CONFIGURATION "
            f"with the tag behind the plans: {', '.join(there)}")


def take_fitting(network: nn.Module, weights: dict[str, torch.Tensor]) -> int:
    """Takes every tensor that fits a network by name and shape, but those of output layers. Returns how many.

    Another data set's or an autoencoder's output layers may have the right shape, but mean something else.
    """
    own = network.state_dict()
    fitting = {name: value for name, value in weights.items()
               if not OUTPUT_LAYER.search(name) and name in own and own[name].shape == value.shape}
    network.load_state_dict({**own, **fitting})
    return len(fitting)


def _numpy_numbers() -> list[Any]:
    """What NumPy numbers are pickled with: the rebuilding function and the number types."""
    multiarray = np._core.multiarray if hasattr(np, "_core") else np.core.multiarray
    kinds = ("float16", "float32", "float64", "int32", "int64", "bool")
    return [multiarray.scalar, np.dtype, *{type(np.dtype(kind)) for kind in kinds}]
