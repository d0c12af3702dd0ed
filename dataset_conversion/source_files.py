"""Reads and checks the files of a source data set: whole, three-dimensional, finite, on one grid, known labels."""
from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from nnmiss.errors import NnmissError
from nnmiss.nifti_files import GZIP_MAGIC
from nnmiss.preprocessing.voxel_grid import VoxelGrid, grid_difference

# What nibabel and gzip raise for files that are no NIfTI or stop early.
UNREADABLE = (OSError, EOFError, ValueError, OverflowError, MemoryError, zlib.error, ImageFileError, HeaderDataError,
              WrapStructError)
NIFTI2 = ((540).to_bytes(4, "little"), (540).to_bytes(4, "big"))  # how such a header begins: its length


def read_content(path: Path) -> bytes:
    """The bytes of a NIfTI file, uncompressed, read to the last one.

    Raises NnmissError for a truncated, empty or absent file.
    """
    try:
        content = path.read_bytes()
        if not content:
            raise NnmissError(f"{path} is empty (0 bytes): download it again, or take the file away")
        return gzip.decompress(content) if content.startswith(GZIP_MAGIC) else content
    except FileNotFoundError:
        raise NnmissError(f"{path} does not exist") from None
    except UNREADABLE as error:
        raise _unreadable(path, error) from None


def read_nifti(path: Path) -> nib.Nifti1Image:
    """A NIfTI file with its voxels in memory, read to the last byte, so that a truncated one is never half-used.

    Raises NnmissError, naming the file, for what cannot be read, is not three-dimensional, or holds NaN or Inf.
    """
    return as_image(read_content(path), path)


def as_image(content: bytes, path: Path) -> nib.Nifti1Image:
    """The image in the bytes of a NIfTI file, checked; `path` is for the message. Raises as `read_nifti`."""
    if content[:4] in NIFTI2:
        raise NnmissError(f"{path} is NIfTI-2, expected NIfTI-1: save it anew, with nibabel as Nifti1Image")
    try:
        image = nib.Nifti1Image.from_bytes(content)
        voxels = np.asanyarray(image.dataobj)
    except UNREADABLE as error:
        raise _unreadable(path, error) from None
    if voxels.ndim != 3 or voxels.size == 0:
        raise NnmissError(f"{path} has shape {voxels.shape}, expected a three-dimensional image")
    if voxels.dtype.kind not in "iuf":
        raise NnmissError(f"{path} has voxels of type {voxels.dtype}, colours or complex: expected one number a voxel")
    if voxels.dtype.kind == "f" and not np.isfinite(voxels).all():
        raise NnmissError(f"{path} holds NaN or infinite voxels: repair it, or take the file away")
    if not np.isfinite(image.affine).all():
        raise NnmissError(f"{path} has NaN or infinite numbers in the affine of its header: repair it")
    return image


def split_volume(path: Path, count: int) -> list[bytes]:
    """The volumes of a 4-D NIfTI file, each as the bytes of a 3-D NIfTI file with the same header but for that.

    A 3-D file is one volume. Raises NnmissError for unreadable files and for another number than `count`.
    """
    content = read_content(path)
    try:
        header = nib.Nifti1Header.from_fileobj(io.BytesIO(content))
        shape = header.get_data_shape()
        volumes = shape[3] if len(shape) == 4 else 1
        size = int(np.prod(shape[:3])) * header.get_data_dtype().itemsize
        start = int(header.get_data_offset())
    except UNREADABLE as error:
        raise _unreadable(path, error) from None
    if len(shape) not in (3, 4) or volumes != count:
        raise NnmissError(f"{path} has shape {shape}, expected {count} volumes for {count} modalities")
    if len(content) < start + count * size:
        raise _unreadable(path, f"{len(content)} bytes, expected {start + count * size}")
    header = header.copy()
    header.set_data_shape(shape[:3])
    header["vox_offset"] = header.single_vox_offset
    before = header.binaryblock + bytes(header.single_vox_offset - len(header.binaryblock))
    return [before + content[start + k * size: start + (k + 1) * size] for k in range(count)]


def read_label(path: Path, values: Mapping[int, int], hint: str = "") -> nib.Nifti1Image:
    """The label as uint8, each of its integers replaced by what `values` says.

    Raises NnmissError for integers that `values` does not have; `hint` is what to do then.
    """
    label = read_nifti(path)
    voxels = np.asanyarray(label.dataobj)
    result = np.zeros(voxels.shape, np.uint8)
    known = 0
    for source, target in values.items():
        where = voxels == source
        known += np.count_nonzero(where)
        result[where] = target
    if known < voxels.size:
        unknown = np.setdiff1d(voxels, list(values))
        raise NnmissError(f"{path} holds label values {unknown[:5].tolist()}, expected only {list(values)}{hint}")
    image = nib.Nifti1Image(result, label.affine, label.header)
    image.header.set_data_dtype(np.uint8)
    image.header.set_slope_inter(1, 0)
    return image


def is_blank(image: nib.Nifti1Image) -> bool:
    """Whether all voxels have one value."""
    voxels = np.asanyarray(image.dataobj)
    return voxels.min() == voxels.max()


def voxel_grid_of(image: nib.Nifti1Image) -> VoxelGrid:
    """Where the voxels of a three-dimensional image lie."""
    return VoxelGrid(image.shape[::-1], image.affine[:3, :3], image.affine[:3, 3])


def check_geometry(files: Iterable[tuple[Path, VoxelGrid]]) -> None:
    """Raises NnmissError, naming both files, unless all share a grid, with the tolerance of all of nnmiss."""
    (first_path, first), *others = files
    for path, grid in others:
        difference = grid_difference(grid, first, (path.name, first_path.name))
        if difference:
            raise NnmissError(f"{path.name} is not on the grid of {first_path.name}, {difference}: all files of a case "
                              "must be on one (co-register and resample them)")


def _unreadable(path: Path, error: object) -> NnmissError:
    return NnmissError(f"{path} cannot be read as NIfTI ({error}): is it truncated? Download it again")
