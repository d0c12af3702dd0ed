"""Arrays from .npy files, and the check that they hold finite numbers."""
from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from nnmiss.array_files import check_size
from nnmiss.errors import NnmissError


def read_npy(path: str | Path) -> np.ndarray:
    """The array of a .npy file. Raises NnmissError when it is absent, damaged, another format or holds Python objects."""
    try:
        with open(path, "rb") as file:
            check_size(file, os.path.getsize(path))
            return np.lib.format.read_array(file, allow_pickle=False)
    except FileNotFoundError:
        raise NnmissError(f"{path} does not exist") from None
    except Exception as error:  # cut off, another format, objects: all of them a file that cannot be used
        raise NnmissError(f"{path} is not a whole .npy file of numbers ({error})") from None


def numbers(array: np.ndarray, where: str, missing: bool = False) -> np.ndarray:
    """`array` as float32. NaN is allowed where features may be `missing`.

    Raises NnmissError, beginning with `where`, when it is empty, not of numbers, or not finite as float32.
    """
    if array.dtype.kind not in "biuf" or not array.size:
        raise NnmissError(f"{where} holds {array.dtype} of shape {array.shape}, expected numbers")
    with np.errstate(over="ignore"):
        out = array.astype(np.float32)
    bad = np.isinf(out) if missing else ~np.isfinite(out)
    if bad.any():
        allowed = "finite numbers, NaN where a feature is missing" if missing else "finite numbers"
        raise NnmissError(f"{where} holds {int(bad.sum())} values that are NaN, infinite or too large, expected {allowed}")
    return out
