"""What commands share: devices and folds."""
from __future__ import annotations

import os

import torch

from nnmiss.errors import NnmissError


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
