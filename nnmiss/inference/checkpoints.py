"""Checkpoints without pickled objects: read with `weights_only=True`, written atomically from plain values."""
from __future__ import annotations

import os
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from nnmiss.atomic_files import replacing
from nnmiss.errors import NnmissError
from nnmiss.plain_names import shown

OUTPUT_LAYER = re.compile(r"(^|\.)(seg_layers|output|heads_of|fusion_head)\.")  # of segmentation, of classification
LARGEST_RECORD = 2**27  # bytes of the part that is not tensors; 300,000 cases in its records take a tenth of that
NUMBERS = ("float16", "float32", "float64", "int32", "int64", "bool", "f2", "f4", "f8", "i4", "i8", "b1")
PLAIN = (str, int, float, bool, bytes, type(None), np.generic, torch.device, torch.dtype)


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
    """Loads a checkpoint without ever running code that stands in it, and without more memory than the file is long.

    Stock nnU-Net's checkpoints log NumPy numbers; those, and nothing else besides tensors and plain values, are let in.

    Raises:
        NnmissError: the file is absent, damaged, holds other objects, claims to be larger than it is, or is not a nnU-Net
            checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        raise NnmissError(f"checkpoint {path} not found")
    fault = _archive_fault(path)
    if fault:
        raise NnmissError(f"checkpoint {path} was refused: {fault}. A damaged one of a training can be deleted: its stage "
                          "then starts anew")
    try:
        with torch.serialization.safe_globals(_numpy_numbers()):
            checkpoint = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        raise NnmissError(f"checkpoint {path} was refused ({type(error).__name__}): it is damaged or holds objects other "
                          "than tensors and plain values, which could run code when loaded. A damaged one of a training "
                          "can be deleted: its stage then starts anew") from None
    fault = content_fault(checkpoint)
    if fault:
        raise NnmissError(f"checkpoint {path} was refused: it holds {fault}")
    weights = checkpoint.get("network_weights") if isinstance(checkpoint, dict) else None
    if not isinstance(weights, dict):
        raise NnmissError(f"{path} is not a nnU-Net checkpoint: it has no 'network_weights'")
    strange = [name for name, value in weights.items() if not (isinstance(name, str) and isinstance(value, torch.Tensor))]
    if strange:
        raise NnmissError(f"{path} is not a nnU-Net checkpoint: 'network_weights' must hold tensors by name, not "
                          f"{shown(strange[0])}: {shown(weights[strange[0]])}")
    return checkpoint


def entry(checkpoint: dict, path: str | os.PathLike, *keys: str, kind: type | tuple[type, ...] = str) -> Any:
    """What lies under `keys`, one inside the other, in a checkpoint. Raises NnmissError when it is absent or no `kind`."""
    value: Any = checkpoint
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    if not isinstance(value, kind):
        raise NnmissError(f"{path} is not a checkpoint of nnmiss: {' / '.join(keys)} is {shown(value)}")
    return value


def mirroring_axes(checkpoint: dict, path: str | os.PathLike) -> tuple[int, ...] | None:
    """The axes, 0 to 2, that a model may be mirrored along. Raises NnmissError when it names others."""
    axes = checkpoint.get("inference_allowed_mirroring_axes")
    if axes is None:
        return None
    if not isinstance(axes, list | tuple) or not all(type(a) is int and 0 <= a < 3 for a in axes) \
            or len(set(axes)) < len(axes):
        raise NnmissError(f"{path} is not a checkpoint of nnmiss: inference_allowed_mirroring_axes is {shown(axes)}")
    return tuple(axes)


def require_training_state(checkpoint: dict) -> None:
    """Raises NnmissError for a checkpoint that holds what prediction needs and not what training goes on from."""
    if "optimizer_state" not in checkpoint:
        raise NnmissError("this checkpoint is for prediction only, as nnmiss_export_model writes it: training cannot go on "
                          "from it. Start another run with --tag NAME and -pretrained_weights and this checkpoint")


def content_fault(content: Any) -> str | None:
    """What in a loaded checkpoint is neither tensor nor plain value, or a tensor larger than its memory; None if nothing.

    Walks without recursion and looks at each object once, so that neither depth nor cycles nor repetition cost anything.
    """
    seen, waiting = set(), [content]
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if type(value) in (dict, OrderedDict):
            waiting += [*value.keys(), *value.values()]
        elif type(value) in (list, tuple, set, torch.Size):
            waiting += value
        elif isinstance(value, torch.Tensor):
            if value.layout != torch.strided or value.device.type == "meta" or value.is_quantized or value.is_nested:
                return f"a tensor of an unusual kind ({value.layout}, {value.device})"
            if value.numel() * value.element_size() > value.untyped_storage().nbytes():
                return f"a tensor of shape {tuple(value.shape)} in {value.untyped_storage().nbytes()} bytes"
        elif not isinstance(value, PLAIN):
            return f"an object of type {type(value).__name__}"
    return None


def _archive_fault(path: Path) -> str | None:
    """Why a file cannot be a whole checkpoint, from its list of contents alone; None if it can."""
    size = path.stat().st_size
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except Exception:  # zipfile raises whatever it stumbles over
        return "it is damaged, or no checkpoint as torch writes them since version 1.6"
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        return "parts of it are compressed, which torch never does: unpacked they could have any size"
    if sum(member.file_size for member in members) > size:
        return f"its parts claim to be larger than its {size} bytes"
    record = max((m.file_size for m in members if m.filename.endswith("data.pkl")), default=0)
    if record > LARGEST_RECORD:
        return f"its record beside the tensors has {record / 2**20:.0f} MB, the limit is {LARGEST_RECORD / 2**20:.0f}"
    return None


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
    """What NumPy numbers are pickled with, by NumPy 1 and 2: the rebuilding function and the number types."""
    multiarray = np._core.multiarray if hasattr(np, "_core") else np.core.multiarray

    def number_type(name: str, *_: Any) -> np.dtype:  # others, such as one of two billion bytes, are refused
        if name not in NUMBERS:
            raise ValueError(f"numpy.dtype({name!r:.40})")
        return np.dtype(name)

    def number(kind: np.dtype, content: bytes) -> np.generic:
        return multiarray.scalar(kind, content)

    return [_called(number_type, "numpy", "dtype"), _called(number, "numpy._core.multiarray", "scalar"),
            _called(lambda *a: number(*a), "numpy.core.multiarray", "scalar"), *{type(np.dtype(kind)) for kind in NUMBERS}]


def _called(function: Callable, module: str, name: str) -> Callable:
    """`function` under the name by which torch looks up what is allowed."""
    function.__module__, function.__qualname__ = module, name
    return function
