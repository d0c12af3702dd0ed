"""Label volumes as NIfTI files whose header is, but for the data type, byte by byte that of another image."""
from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np

from nnmiss.errors import NnmissError

UINT8 = 2  # NIfTI's code
COMPRESSION = 6  # level 9 takes thrice as long on label maps for 3 % less


def reference_header(path: Path) -> nib.Nifti1Header:
    """The header of a NIfTI file as it stands there, unchecked (nibabel would mend it).

    Raises NnmissError when the file is no NIfTI image of three axes (a fourth of length one is dropped).
    """
    try:
        kind = type(nib.load(path).header)
        with (gzip.open if _is_gzip(path) else open)(path, "rb") as file:
            header = kind.from_fileobj(file, check=False)
        shape = tuple(int(n) for n in header["dim"][1:1 + header["dim"][0]])
    except Exception as error:  # decoders raise whatever they like on damaged files
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise NnmissError(f"cannot read the header of reference image {path} ({reason}): restore the file") from None
    if not isinstance(header, nib.Nifti1Header):
        raise NnmissError(f"reference image {path} is no NIfTI file: BraTS wants its geometry, give -r the original images")
    if len(shape) < 3 or any(n != 1 for n in shape[3:]):
        raise NnmissError(f"reference image {path} has shape {shape}, expected three axes")
    return header


def shape_of(header: nib.Nifti1Header) -> tuple[int, ...]:
    """(x, y, z) voxels."""
    return tuple(int(n) for n in header["dim"][1:4])


def nifti_bytes(volume: np.ndarray, reference: nib.Nifti1Header) -> bytes:
    """A gzip-compressed NIfTI file; the same input gives the same bytes.

    Args:
        volume: (x, y, z) uint8.
        reference: header of an image of that shape. Everything that says where voxels lie (qform, sform, their codes,
            pixdim, units) and the rest is kept as it is; datatype, bitpix, scl_slope 1, scl_inter 0, dim[0] 3,
            vox_offset and magic of a single file are set.
    """
    if volume.dtype != np.uint8 or volume.shape != shape_of(reference):
        raise ValueError(f"expected uint8 of shape {shape_of(reference)}, got {volume.dtype} of {volume.shape}")
    header = reference.copy()
    header["datatype"], header["bitpix"] = UINT8, 8
    header["scl_slope"], header["scl_inter"] = 1, 0
    header["dim"][0], header["dim"][4:] = 3, 1
    header["vox_offset"], header["magic"] = header.single_vox_offset, header.single_magic
    no_extensions = b"\0\0\0\0"
    content = header.binaryblock + no_extensions + volume.tobytes(order="F")
    return gzip.compress(content, COMPRESSION, mtime=0)


def _is_gzip(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(2) == b"\x1f\x8b"
