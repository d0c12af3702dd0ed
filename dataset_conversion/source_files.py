"""Reads and checks the files of a source data set: whole, three-dimensional, finite, on one grid, known labels."""
from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from nnmiss.errors import NnmissError

# What nibabel and gzip raise for files that are no NIfTI or stop early.
UNREADABLE = (OSError, EOFError, ValueError, OverflowError, MemoryError, zlib.error, ImageFileError, HeaderDataError,
              WrapStructError)
GEOMETRY_TOLERANCE = 1e-3  # mm, and direction cosines: headers of one registration differ by rounding only


def read_nifti(path: Path) -> nib.Nifti1Image:
    """A NIfTI file with its voxels in memory, read to the last byte, so that a truncated one is never half-used.

    Raises NnmissError, naming the file, for what cannot be read, is not three-dimensional or holds NaN or Inf.
    """
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if path.name.endswith(".gz") else content
        image = nib.Nifti1Image.from_bytes(content)
        voxels = np.asanyarray(image.dataobj)
    except FileNotFoundError:
        raise NnmissError(f"{path} does not exist") from None
    except UNREADABLE as error:
        raise NnmissError(f"{path} cannot be read as NIfTI ({error}): is it truncated? Download it again") from None
    if voxels.ndim != 3:
        raise NnmissError(f"{path} has shape {voxels.shape}, expected a three-dimensional image")
    if not np.isfinite(voxels).all():
        raise NnmissError(f"{path} holds NaN or infinite voxels: repair it, or take the file away")
    return image


def read_label(path: Path, values: tuple[int, ...]) -> nib.Nifti1Image:
    """The label as uint8. Raises NnmissError for values that the data set does not know."""
    label = read_nifti(path)
    voxels = np.asanyarray(label.dataobj)
    unknown = np.setdiff1d(voxels, values)
    if len(unknown):
        raise NnmissError(f"{path} holds label values {unknown[:5].tolist()}, expected only {list(values)}")
    result = nib.Nifti1Image(voxels.astype(np.uint8), label.affine, label.header)
    result.header.set_data_dtype(np.uint8)
    result.header.set_slope_inter(1, 0)
    return result


def check_geometry(files: list[tuple[Path, nib.Nifti1Image]]) -> None:
    """Raises NnmissError, naming both files, unless all have one shape and one affine."""
    (first_path, first), *others = files
    for path, image in others:
        if image.shape != first.shape:
            raise NnmissError(f"{path.name} has shape {image.shape} but {first_path.name} {first.shape}: "
                              "all files of a case must be on one grid (co-register and resample them)")
        difference = np.abs(image.affine - first.affine).max()
        if difference > GEOMETRY_TOLERANCE:
            raise NnmissError(f"{path.name} and {first_path.name} have affines that differ by {difference:.3g}: "
                              "all files of a case must be on one grid (co-register and resample them)")
