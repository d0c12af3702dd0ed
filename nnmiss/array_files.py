"""NumPy's files of anybody: no Python objects, and never more memory than the file or the machine has."""
from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from nnmiss.inference.memory import free_bytes

LITTLE = 2**26  # bytes that are unpacked whatever is free


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """All arrays of an npz, none of Python objects.

    Raises MemoryError, before anything is unpacked, when they would not fit into the memory that is free; ValueError and
    zipfile's and NumPy's errors for what is no npz.
    """
    with zipfile.ZipFile(path) as archive:  # it never unpacks more than these sizes say
        needed = sum(member.file_size for member in archive.infolist())
        for member in archive.infolist():
            with archive.open(member) as file:
                check_size(file, member.file_size)
    free = free_bytes(torch.device("cpu"))
    if needed > LITTLE and needed > free:
        raise MemoryError(f"unpacked it has {needed / 2**30:.1f} GB, {free / 2**30:.1f} GB of memory are free")
    with np.load(path, allow_pickle=False) as stored:
        return dict(stored)


def check_size(file: BinaryIO, size: int) -> None:
    """Goes over the header of a .npy of `size` bytes and back. Raises ValueError when it claims more than there is."""
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0}.get(version, np.lib.format.read_array_header_2_0)
    shape, _, dtype = read(file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which could run code when loaded")
    if math.prod(shape) * dtype.itemsize > size - file.tell():
        raise ValueError(f"its header claims an array of shape {shape} of {dtype}, more than its {size:,} bytes")
    file.seek(0)
