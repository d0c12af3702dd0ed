"""Finds what ITK passes over in NIfTI files: truncation (the lost part becomes zeros), NaN and Inf (they do too)."""
from __future__ import annotations

import gzip
import os
import stat
import struct
import zlib

import nibabel
import numpy as np

from nnmiss.nifti_files import is_gzip
from nnmiss.nifti_header import header_fault

SAME_SPACING = 0.01  # relative
MUCH_BEHIND = 2**24  # bytes behind the voxels, such as padding to whole blocks
LONGEST_STREAM = 2**34
NOT_NUMBERS = {"c": "complex numbers", "V": "colours or other structures"}


def why_not_whole(path: str, thorough: bool = False) -> str | None:
    """None when a NIfTI file holds all the bytes its header promises, as real numbers, else the reason in words.

    The quick test compares the header with the file's size, or with the size that gzip keeps in its last four bytes;
    only on a mismatch is the file decompressed. `thorough` always decompresses, which also checks gzip's checksum.
    Of other formats only that they are files is tested: their readers notice the rest themselves.
    """
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            return "it is a directory" if stat.S_ISDIR(status.st_mode) else "it is not a file but a pipe, socket or device"
        if status.st_size == 0:
            return "it is empty"
        packed = is_gzip(path)  # also proves that it may be read
    except OSError as error:  # a dangling link, no permission
        return error.strerror + (f", a link to {os.readlink(path)}" if os.path.islink(path) else "")
    if not path.endswith((".nii", ".nii.gz")):
        return None
    compressed = path.endswith(".gz")
    if packed != compressed:  # ITK would read it, and whatever is cut off as zeros
        return "its name says that it is packed by gzip, which it is not" if compressed else "it is packed: name it .nii.gz"
    fault = header_fault(path)
    if fault:
        return fault
    try:
        image = nibabel.load(path)
        kind, shape, contradiction = image.get_data_dtype(), image.shape, _contradiction(image)
        needed = int(image.dataobj.offset) + int(np.prod(shape, dtype=object)) * kind.itemsize
    except Exception:  # a header cut short, or one that nibabel refuses and the case's own reader takes
        needed = None
    else:
        if kind.kind in NOT_NUMBERS:
            return f"its voxels are {NOT_NUMBERS[kind.kind]}, expected one real number each"
        if min(shape, default=0) < 1:
            return f"its header gives the shape {shape}"
        if contradiction:
            return contradiction
    if not compressed:
        size = os.path.getsize(path)
        return None if needed is None or size >= needed else f"truncated: {size} of {needed} bytes"
    if needed is not None and not thorough and _gzip_size(path) == needed % 2**32:
        return None
    try:
        size = _decompressed_size(path, LONGEST_STREAM if needed is None else needed + MUCH_BEHIND)
    except EOFError:
        return "truncated: the compressed stream ends early"
    except (OSError, zlib.error) as error:
        return f"corrupt: {error}"
    return None if needed is None or size >= needed else f"truncated: {size} of {needed} bytes"


def _contradiction(image: nibabel.Nifti1Pair) -> str | None:
    """What is wrong when the spacing in the header, which some readers take, is not the affine's, which others take.

    An sform into a template's space (codes 3 and above) may stretch; beside it ITK, and nnU-Net, go by the qform.
    """
    if image.header["sform_code"] > 2 and image.header["qform_code"] > 0:
        return None
    spacing = np.abs(np.array(image.header.get_zooms()[:3], dtype=float))
    affine = np.linalg.norm(image.affine[:3, : len(spacing)], axis=0)
    if np.allclose(spacing, affine, rtol=SAME_SPACING):
        return None
    said = [" x ".join(f"{value:g}" for value in values) for values in (spacing, affine)]
    return f"its header contradicts itself: spacing {said[0]} mm in pixdim, {said[1]} mm in the affine"


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


def _decompressed_size(path: str, at_most: int) -> int:
    """Bytes in the stream; it is left where there are more than `at_most`, which nobody reads."""
    size = 0
    with gzip.open(path, "rb") as file:
        while size <= at_most and (block := file.read(1 << 20)):
            size += len(block)
    return size
