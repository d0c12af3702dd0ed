"""Finds what ITK passes over in NIfTI files: truncation (the lost part becomes zeros), NaN and Inf (they do too)."""
from __future__ import annotations

import gzip
import os
import struct
import zlib

import nibabel
import numpy as np

from nnmiss.nifti_files import is_gzip


def why_not_whole(path: str, thorough: bool = False) -> str | None:
    """None when a NIfTI file holds all the bytes its header promises, else the reason in words.

    The quick test compares the header with the file's size, or with the size that gzip keeps in its last four bytes;
    only on a mismatch is the file decompressed. `thorough` always decompresses, which also checks gzip's checksum.
    Other formats give None: their readers notice themselves.
    """
    if not path.endswith((".nii", ".nii.gz")):
        return None
    compressed = path.endswith(".gz")
    try:
        if not is_gzip(path) and compressed:
            return None  # the reader judges
    except OSError as error:  # a dangling link, a folder, no permission
        return error.strerror
    try:
        image = nibabel.load(path)
        needed = int(image.dataobj.offset) + int(np.prod(image.shape)) * image.get_data_dtype().itemsize
    except Exception:  # a header cut short, or one that nibabel refuses and the case's own reader takes
        needed = None
    if not compressed:
        size = os.path.getsize(path)
        return None if needed is None or size >= needed else f"truncated: {size} of {needed} bytes"
    if needed is not None and not thorough and _gzip_size(path) == needed % 2**32:
        return None
    try:
        size = _decompressed_size(path)
    except EOFError:
        return "truncated: the compressed stream ends early"
    except (OSError, zlib.error) as error:
        return f"corrupt: {error}"
    return None if needed is None or size >= needed else f"truncated: {size} of {needed} bytes"


def count_non_finite(path: str) -> int:
    """The number of NaN and Inf voxels stored in a NIfTI file of floating point numbers; 0 for all other files.

    ITK replaces them by 0 while reading, so its arrays cannot tell.
    """
    if not path.endswith((".nii", ".nii.gz")):
        return 0
    try:
        image = nibabel.load(path)
        if image.get_data_dtype().kind != "f":
            return 0
        stored = image.dataobj.get_unscaled()
    except Exception:  # not for nibabel: what the case's own reader makes of it is checked anyway
        return 0
    return int(stored.size - np.isfinite(stored).sum())


def _gzip_size(path: str) -> int:
    """The uncompressed size modulo 2^32 as the last member's trailer states it (RFC 1952, ISIZE)."""
    with open(path, "rb") as file:
        file.seek(-4, os.SEEK_END)
        return struct.unpack("<I", file.read(4))[0]


def _decompressed_size(path: str) -> int:
    size = 0
    with gzip.open(path, "rb") as file:
        while block := file.read(1 << 20):
            size += len(block)
    return size
