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
AT_ONCE = 2**20  # bytes that are unpacked at once; whole numbers of any kind
NOT_NUMBERS = {"c": "complex numbers", "V": "colours or other structures"}


def why_not_whole(path: str, thorough: bool = False) -> str | None:
    """None when a NIfTI file holds all the bytes its header promises, as real numbers, else the reason in words.

    The quick test compares the header with the file's size, or with the size that gzip keeps in its last four bytes;
    only on a mismatch is the file decompressed. `thorough` always decompresses, which also checks gzip's checksum.
    Of other formats only that they are files is tested: their readers notice the rest themselves.
    """
    return _examine(path, thorough, numbers=False)[0]


def first_look(path: str) -> tuple[str | None, int]:
    """What ITK passes over in a file that nothing is known of, from one unpacking.

    Returns:
        The reason of `why_not_whole`, thorough, and the number of NaN and Inf voxels that a NIfTI file of floating point
        numbers stores, 0 for all other files: ITK replaces them by 0 while reading, so its arrays cannot tell.
    """
    return _examine(path, thorough=True, numbers=True)


def _examine(path: str, thorough: bool, numbers: bool) -> tuple[str | None, int]:
    """`why_not_whole`'s reason and, with `numbers`, how many voxels are NaN or Inf (0 where there is a reason)."""
    reason, done = _fault_of_file(path)
    if reason is not None or done:
        return reason, 0
    kind, needed, offset = None, None, 0
    try:
        image = nibabel.load(path)
        kind, shape, contradiction = image.get_data_dtype(), image.shape, _contradiction(image)
        offset = int(image.dataobj.offset)
        needed = offset + int(np.prod(shape, dtype=object)) * kind.itemsize
    except Exception:  # a header cut short, or one that nibabel refuses and the case's own reader takes
        needed = None
    else:
        if kind.kind in NOT_NUMBERS:
            return f"its voxels are {NOT_NUMBERS[kind.kind]}, expected one real number each", 0
        if min(shape, default=0) < 1:
            return f"its header gives the shape {shape}", 0
        if contradiction:
            return contradiction, 0
    size = os.path.getsize(path)
    counted = numbers and needed is not None and kind.kind == "f"
    if not path.endswith(".gz"):
        if needed is not None and size < needed:
            return f"truncated: {size} of {needed} bytes", 0
        return None, _non_finite(image.dataobj.get_unscaled()) if counted else 0
    if needed is not None and not thorough and _gzip_size(path) == needed % 2**32:
        return None, 0
    try:
        size, non_finite = _unpacked(path, needed, offset, kind if counted else None)
    except EOFError:
        return "truncated: the compressed stream ends early", 0
    except (OSError, zlib.error) as error:
        return f"corrupt: {error}", 0
    return (None, non_finite) if needed is None or size >= needed else (f"truncated: {size} of {needed} bytes", 0)


def _fault_of_file(path: str) -> tuple[str | None, bool]:
    """What is wrong with a file before voxels are looked at, and whether nothing more is to be looked at."""
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            kind = "a directory" if stat.S_ISDIR(status.st_mode) else "not a file but a pipe, socket or device"
            return f"it is {kind}", True
        if status.st_size == 0:
            return "it is empty", True
        packed = is_gzip(path)  # also proves that it may be read
    except OSError as error:  # a dangling link, no permission
        return error.strerror + (f", a link to {os.readlink(path)}" if os.path.islink(path) else ""), True
    if not path.endswith((".nii", ".nii.gz")):
        return None, True
    compressed = path.endswith(".gz")
    if packed != compressed:  # ITK would read it, and whatever is cut off as zeros
        return ("its name says that it is packed by gzip, which it is not" if compressed
                else "it is packed: name it .nii.gz"), True
    return header_fault(path), False


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


def _gzip_size(path: str) -> int:
    """The uncompressed size modulo 2^32 as the last member's trailer states it (RFC 1952, ISIZE)."""
    with open(path, "rb") as file:
        file.seek(-4, os.SEEK_END)
        return struct.unpack("<I", file.read(4))[0]


def _unpacked(path: str, needed: int | None, offset: int, kind: np.dtype | None) -> tuple[int, int]:
    """Bytes in the stream, and how many of the numbers of a `kind` from `offset` to `needed` are NaN or Inf.

    The stream is left where much lies behind what is `needed`, which nobody reads.
    """
    size, non_finite = 0, 0
    with gzip.open(path, "rb") as file:
        if kind is not None:
            size = len(file.read(offset))
            while size < needed and (block := file.read(min(AT_ONCE, needed - size))):
                size += len(block)
                non_finite += _non_finite(np.frombuffer(block, kind, len(block) // kind.itemsize))
        at_most = LONGEST_STREAM if needed is None else needed + MUCH_BEHIND
        while size <= at_most and (block := file.read(AT_ONCE)):
            size += len(block)
    return size, non_finite


def _non_finite(values: np.ndarray) -> int:
    return int(values.size - np.count_nonzero(np.isfinite(values)))
