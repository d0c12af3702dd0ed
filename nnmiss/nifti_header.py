"""What the header of a NIfTI file claims, held against its size and this machine, before anything is allocated for it.

ITK and nibabel believe a header: 400 bytes can ask for a terabyte. Nothing but the header is read here.
"""
from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from dataclasses import dataclass
from typing import BinaryIO

import nibabel

from nnmiss.errors import NnmissError
from nnmiss.nifti_files import is_gzip, stem

MOST_VOXELS = 2**31  # 1290 voxels along each axis; ITK's and nnU-Net's copies of a larger image fit into no usual machine
DEFLATE_RATIO = 1032  # bytes that one byte of gzip can stand for, at most
MOST_BEFORE_VOXELS = 2**26  # bytes of header and extensions
COPIES = 2  # float32 arrays of an image that reading and preprocessing hold at once, at least
ALWAYS_FREE = 2**28  # bytes for which free memory is not looked up
SIZES = {348: "nifti1", 540: "nifti2"}  # sizeof_hdr


@dataclass(frozen=True)
class Claim:
    """shape: of the whole image. needed: bytes of header and voxels. item: bytes of a voxel. start: where extensions may
    begin. offset: where voxels begin. order: of bytes."""

    shape: tuple[int, ...]
    needed: int
    item: int
    start: int
    offset: int
    order: str


def header_fault(path: str | os.PathLike) -> str | None:
    """Why a .nii or .nii.gz cannot hold what its header claims, or is too large to read, in words; None when neither.

    Files of other names give None, and so do truncated ones whose header is whole: how much of them is there, their reader
    or `whole_file.why_not_whole` says. Raises OSError when the file cannot be opened.
    """
    path = os.fspath(path)
    if not stem(os.path.basename(path)):
        return None
    packed = is_gzip(path)
    try:
        with (gzip.open if packed else open)(path, "rb") as file:
            claim = read_claim(file.read(540))
            if isinstance(claim, str):
                return claim
            return claim_fault(claim, os.path.getsize(path), packed) or _extension_fault(file, claim)
    except EOFError:
        return "truncated: the compressed stream ends early"
    except (gzip.BadGzipFile, zlib.error) as error:
        return f"corrupt: {error}"


def claim_fault(claim: Claim, size: int, packed: bool) -> str | None:
    """Why a file of `size` bytes cannot hold a claim, or this machine cannot read it; None when they can."""
    voxels, shape = math.prod(claim.shape), "x".join(map(str, claim.shape))
    if voxels > MOST_VOXELS:
        return f"its header claims {shape} voxels, more than the {MOST_VOXELS:,} that are read"
    if packed and claim.needed > size * DEFLATE_RATIO:
        return f"its header claims {claim.needed:,} bytes, more than {size:,} bytes of gzip can hold"
    working = voxels * max(claim.item, 4 * COPIES)
    if working > ALWAYS_FREE and working > memory():
        return f"its header claims {shape} voxels, for which {working / 2**30:.1f} GB of memory are not free"
    return None


def require_sound_header(path: str | os.PathLike, what: str = "image") -> None:
    """Raises NnmissError, naming the file, when `header_fault` finds one. Absent files are left to their reader."""
    try:
        fault = header_fault(path)
    except OSError:
        return
    if fault:
        raise NnmissError(f"{what} {path} cannot be read ({fault}): restore or remove it")


def read_claim(start: bytes) -> Claim | str:
    """What the first 540 bytes of a NIfTI file claim; why they are no header of one, in words, when they are not."""
    sizes = {order: struct.unpack(order + "i", start[:4])[0] if len(start) >= 4 else 0 for order in "<>"}
    order = next((order for order, size in sizes.items() if size in SIZES), None)
    if order is None or len(start) < sizes[order]:
        return "truncated: it ends within the header" if len(start) < 348 else "it is no NIfTI file"
    if sizes[order] == 348:
        dim, code = struct.unpack_from(order + "8h", start, 40), struct.unpack_from(order + "h", start, 70)[0]
        offset = struct.unpack_from(order + "f", start, 108)[0]
    else:
        dim, code = struct.unpack_from(order + "8q", start, 16), struct.unpack_from(order + "h", start, 12)[0]
        offset = float(struct.unpack_from(order + "q", start, 168)[0])
    if not 1 <= dim[0] <= 7 or any(n < 1 for n in dim[1:1 + dim[0]]):
        return f"its header claims the impossible shape {dim[1:8]} of {dim[0]} axes"
    if not 0 <= offset <= MOST_BEFORE_VOXELS:
        return f"its header says that voxels begin at byte {offset}"
    try:
        item = nibabel.nifti1.data_type_codes.dtype[code].itemsize
    except KeyError:
        return f"its header names the unknown data type {code}"
    shape, offset = dim[1:1 + dim[0]], int(offset)
    return Claim(shape, offset + math.prod(shape) * item, item, sizes[order], offset, order)


def _extension_fault(file: BinaryIO, claim: Claim) -> str | None:
    """Extensions between header and voxels say how long they are, and nibabel reads what they say."""
    file.seek(claim.start)
    flag, place = file.read(4), claim.start + 4
    while flag[:1] not in (b"", b"\0") and (place + 16 <= claim.offset or claim.offset == 0):  # 0: nibabel reads on
        file.seek(place)
        head = file.read(4)
        length = struct.unpack(claim.order + "i", head)[0] if len(head) == 4 else 0
        if length < 8:
            return None
        place += length
        if place > MOST_BEFORE_VOXELS:
            return f"its header has an extension of {length:,} bytes"
    return None


def memory() -> int:
    """Bytes of memory that are free for an image."""
    import torch

    from nnmiss.inference.memory import free_bytes

    return free_bytes(torch.device("cpu"))
