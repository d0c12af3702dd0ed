"""Checks one image of a BraTS submission: opens, whole, three axes, shape, geometry, type, labels or uncertainty values."""
from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from nnmiss.brats_years import Challenge
from nnmiss.export.nifti_files import image_header, itk_geometry, itk_voxel_grid, shape_of
from nnmiss.export.rules import ERROR, WARNING, Finding, error, warning
from nnmiss.export.submission_voxels import (
    Header,
    check_labels,
    check_uncertainty,
    read_header,
    read_values,
    reason_of,
)
from nnmiss.preprocessing.voxel_grid import grid_difference

SRI24_QFORM = np.array([[-1.0, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1]])  # BraTS 2023, validate.py
AGAIN = "write the segmentation again"
COPY_HEADER = "copy the header of the case's own image, as nnmiss_export_brats does"


def check_image(path: Path, challenge: Challenge, reference: Path | None, case: str, shown: str,
                uncertainty: bool = False) -> list[Finding]:
    """All findings on one file.

    Args:
        path: where it lies now. reference: an image of the case, for shape and geometry; None where there is none.
        case, shown: its case and its name in the submission, for the findings.
        uncertainty: it is an uncertainty map, with values from 0 to 100 instead of labels.
    """
    where = {"case": case, "file": shown}
    try:
        header = read_header(path)
    except Exception as problem:  # nibabel raises whatever its parts do on damaged files
        return [error("unreadable", f"does not open as NIfTI ({reason_of(problem, path)})", "a NIfTI file, compressed with "
                      "gzip where it is called .nii.gz", AGAIN, **where)]
    if len(header.shape) != 3 or min(header.shape) < 1:
        return [error("dimensions", f"shape {_times(header.shape)}", "three axes", "save a single three-dimensional "
                      "label map, not channels or one-hot maps", **where)]
    findings, image = [], None
    if reference is not None and challenge.geometry != "qform":
        try:
            image = image_header(reference)
        except Exception as problem:
            findings.append(no_reference(f"{reference} cannot be read ({reason_of(problem, reference)})", where))
    wrong_shape = _check_shape(header, challenge, image, where)
    if wrong_shape:  # voxels of another number than expected are not read: it may be any
        return findings + wrong_shape
    findings += _check_geometry(header, challenge, image, where, WARNING if uncertainty else ERROR)
    values, problem = read_values(path, header)
    if problem:
        return findings + [error("unreadable", problem, "a whole file", AGAIN, **where)]
    if values is None:
        return findings + [error("type", f"voxels of type {header.dtype}", "labels as uint8", AGAIN, **where)]
    return findings + (check_uncertainty(values, where) if uncertainty
                       else check_labels(values, header, challenge, where))


def no_reference(why: str, where: dict) -> Finding:
    """The finding on a case whose image cannot be used."""
    return error("geometry", f"could not be compared: {why}", "an image of the case", "restore that image, or validate "
                 "without -r", **where)


def _check_shape(header: Header, challenge: Challenge, image: nib.Nifti1Header | None, where: dict) -> list[Finding]:
    """Against the shape that the year's validator has in its code, else the case's own image's."""
    wanted, whose = challenge.shape, f"as every image of {challenge.title}"
    if image is not None and not (challenge.portal.fixed_shape and wanted):
        wanted, whose = shape_of(image), "as the case's image"
    if wanted is None or header.shape == wanted:
        return []
    return [error("shape", f"{_times(header.shape)} voxels", f"{_times(wanted)}, {whose}",
                  "undo cropping, padding and resampling before saving", **where)]


def _check_geometry(header: Header, challenge: Challenge, image: nib.Nifti1Header | None, where: dict,
                    severity: str) -> list[Finding]:
    """What the portal of the year compares; where it compares nothing, a shift of over a tenth of a voxel is told."""
    if challenge.geometry == "qform":
        if np.array_equal(header.qform, SRI24_QFORM):
            return []
        return [Finding("geometry", severity, **where, came=f"qform {_matrix(header.qform)}",
                        expected=f"qform {_matrix(SRI24_QFORM)}, exactly", todo=COPY_HEADER)]
    if image is None:
        return []
    exact = challenge.geometry == "reference"
    try:
        theirs = itk_geometry(image)
    except RuntimeError as problem:
        return [no_reference(f"ITK refuses the header of the image ({reason_of(problem)})", where)]
    try:
        ours = itk_geometry(header.unchecked)
    except RuntimeError as problem:
        return [Finding("geometry", severity if exact else WARNING, **where, came=f"ITK refuses the header "
                        f"({reason_of(problem)})", expected="the header of the case's image", todo=COPY_HEADER)]
    if exact:
        tolerance = challenge.portal.tolerance
        apart = [f"{name} {_numbers(ours[name])}, the image has {_numbers(its)}" for name, its in theirs.items()
                 if np.abs(np.subtract(ours[name], its)).max() > tolerance]
        return [Finding("geometry", severity, **where, came="; ".join(apart), expected="origin, spacing, direction and "
                        f"size of the case's image, {f'within {tolerance:g}' if tolerance else 'exactly'}, as ITK reads "
                        "them", todo=COPY_HEADER)] if apart else []
    difference = grid_difference(itk_voxel_grid(header.unchecked), itk_voxel_grid(image), ("file", "image"))
    return [warning("geometry", difference, "the geometry of the case's image", f"{COPY_HEADER}; the portal of "
                    f"{challenge.year} compares voxels only, viewers do not", **where)] if difference else []


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _numbers(values: tuple) -> str:
    return "(" + ", ".join(f"{v + 0.0:.9g}" for v in values) + ")"


def _matrix(matrix: np.ndarray) -> str:
    return "[" + ", ".join("[" + ", ".join(f"{v + 0.0:.7g}" for v in row) + "]" for row in matrix) + "]"
