"""What commands share: nnU-Net's folders, data set names, devices, and folds."""
from __future__ import annotations

import os

import torch

from nnmiss.errors import NnmissError, nearest_names


def choose_device(name: str | None) -> str:
    """'cuda', 'cpu' or 'mps'; without a name CUDA where there is one. Raises NnmissError for a device that is not there.

    On the CPU, batches are loaded in this process unless nnUNet_n_proc_DA says otherwise: workers would only compete
    for the same cores, and a resumed run then continues exactly.
    """
    have = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name is None:
        name = "cuda" if have["cuda"] else "cpu"
        print(f"device: {name}")
    if not have.get(name, False):
        raise NnmissError(f"device {name!r} is not available here. Choose one of: {', '.join(d for d in have if have[d])}")
    if name == "cpu":
        os.environ.setdefault("nnUNet_n_proc_DA", "0")
    return name


def parse_fold(text: str) -> int | str:
    """A fold number or 'all'. Raises NnmissError for anything else."""
    if text == "all":
        return text
    if not text.isdigit():
        raise NnmissError(f"fold must be a number such as 0, or 'all', got {text!r}")
    return int(text)


def known_name(kind: str, name: str, known: list[str]) -> str:
    """`name` if it is known. Raises NnmissError with the nearest names."""
    if name not in known:
        raise NnmissError(f"{kind} {name!r} is unknown. {nearest_names(name, known)}")
    return name
