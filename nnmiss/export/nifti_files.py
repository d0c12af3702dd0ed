"""NIfTI headers as they stand in files, and label volumes whose header is, but for the type, byte by byte another's."""
from __future__ import annotations

import gzip
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

import nibabel as nib
import numpy as np
import SimpleITK as sitk

from nnmiss.errors import NnmissError
from nnmiss.nifti_files import is_gzip
from nnmiss.preprocessing.voxel_grid import VoxelGrid, voxel_grid

NO_EXTENSIONS = b"\0\0\0\0"
UINT8 = 2  # NIfTI's code
COMPRESSION = 6  # level 9 takes thrice as long on label maps for 3 % less


def unchecked_header(file: BinaryIO) -> nib.Nifti1Header:
    """The header at the start of an open file, as it stands there (nibabel would mend it); reads nothing behind it, where
    extensions may claim any size. Raises ValueError when it is not NIfTI, and whatever decompression does."""
    start = file.read(nib.Nifti2Header.sizeof_hdr)
    for kind in (nib.Nifti1Header, nib.Nifti2Header):
        if kind.may_contain_header(start):
            return kind(start[:kind.sizeof_hdr], check=False)
    raise ValueError("it is no NIfTI file")


def image_header(path: Path) -> nib.Nifti1Header:
    """The unchecked header of an image of three axes (a fourth of length one is accepted), compressed or not, whatever its
    name says. Raises as `unchecked_header`, and ValueError for other shapes."""
    with (gzip.open if is_gzip(path) else open)(path, "rb") as file:
        header = unchecked_header(file)
    shape = header["dim"][1:1 + header["dim"][0]]
    if len(shape) < 3 or any(shape[3:] != 1):
        raise ValueError(f"it has shape {tuple(map(int, shape))}, expected three axes")
    return header


def reference_header(path: Path) -> nib.Nifti1Header:
    """`image_header` of an image of -r. Raises NnmissError."""
    try:
        return image_header(path)
    except Exception as error:  # decoders raise whatever they like on damaged files
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise NnmissError(f"cannot read the header of reference image {path} ({reason}): give -r the original NIfTI image, "
                          "whose geometry BraTS wants") from None


def itk_geometry(header: nib.Nifti1Header) -> dict[str, tuple[float, ...]]:
    """"origin", "spacing", "direction", "size" as ITK understands the header of `image_header`.

    ITK gets a file with nothing but that header, so neither the image's name, nor how it is packed, nor a fourth axis or
    an extension matters. Raises RuntimeError when ITK refuses it.
    """
    reader = sitk.ImageFileReader()
    with TemporaryDirectory(prefix="nnmiss_header_") as folder:
        (Path(folder) / "header.nii").write_bytes(_alone(header).binaryblock + NO_EXTENSIONS)
        reader.SetFileName(f"{folder}/header.nii")
        reader.ReadImageInformation()
    return {"origin": reader.GetOrigin(), "spacing": reader.GetSpacing(), "direction": reader.GetDirection(),
            "size": reader.GetSize()}


def itk_voxel_grid(header: nib.Nifti1Header) -> VoxelGrid:
    """The same for `grid_difference`."""
    geometry = itk_geometry(header)
    return voxel_grid({"sitk_stuff": geometry}, geometry["size"][::-1])


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
    header = _alone(reference)
    header["datatype"], header["bitpix"] = UINT8, 8
    header["scl_slope"], header["scl_inter"] = 1, 0
    content = header.binaryblock + NO_EXTENSIONS + volume.tobytes(order="F")
    return gzip.compress(content, COMPRESSION, mtime=0)


def _alone(header: nib.Nifti1Header) -> nib.Nifti1Header:
    """A copy that stands in a single file without extensions, with three axes."""
    header = header.copy()
    header["dim"][0], header["dim"][4:] = 3, 1
    header["vox_offset"], header["magic"] = header.single_vox_offset, header.single_magic
    return header
