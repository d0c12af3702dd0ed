"""Checks one image of a BraTS submission: opens, whole, three axes, shape, geometry, type, labels or uncertainty values."""
from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk

from nnmiss.brats_years import Challenge
from nnmiss.export.rules import ERROR, WARNING, Finding, error, warning
from nnmiss.export.submission_voxels import (
    Header,
    check_labels,
    check_uncertainty,
    read_header,
    read_values,
    reason_of,
)
from nnmiss.preprocessing.voxel_grid import grid_difference, itk_grid

SRI24_QFORM = np.array([[-1.0, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1]])  # BraTS 2023, validate.py
FIXED_SHAPE = (2023, 2024)  # years whose validate.py names a shape
PANOPTICA_TOLERANCE = 1e-5  # BraTS 2026
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
    findings = _check_shape(header, challenge, reference, where)
    if not any(finding.rule == "shape" for finding in findings):
        findings += _check_geometry(path, header, challenge, reference, where, WARNING if uncertainty else ERROR)
    values, problem = read_values(path, header)
    if problem:
        return findings + [error("unreadable", problem, "a whole file", AGAIN, **where)]
    if values is None:
        return findings + [error("type", f"voxels of type {header.dtype}", "labels as uint8", AGAIN, **where)]
    return findings + (check_uncertainty(values, where) if uncertainty
                       else check_labels(values, header, challenge, where))


def _check_shape(header: Header, challenge: Challenge, reference: Path | None, where: dict) -> list[Finding]:
    """Against the shape that the validators of 2023 and 2024 have in their code, else the case's own image's."""
    wanted, whose = challenge.shape, f"as every image of {challenge.title}"
    if reference is not None and (challenge.year not in FIXED_SHAPE or wanted is None):
        try:
            wanted, whose = tuple(map(int, nib.load(reference).shape)), f"as {reference.name}"
        except Exception as problem:
            return [_no_reference(reference, problem, where)]
    if wanted is None or header.shape == wanted:
        return []
    return [error("shape", f"{_times(header.shape)} voxels", f"{_times(wanted)}, {whose}",
                  "undo cropping, padding and resampling before saving", **where)]


def _check_geometry(path: Path, header: Header, challenge: Challenge, reference: Path | None, where: dict,
                    severity: str) -> list[Finding]:
    """What the portal of the year compares; where it compares nothing, a shift of over a tenth of a voxel is told."""
    if challenge.geometry == "qform":
        if np.array_equal(header.qform, SRI24_QFORM):
            return []
        return [Finding("geometry", severity, where["case"], where["file"], f"qform {_matrix(header.qform)}",
                        f"qform {_matrix(SRI24_QFORM)}, exactly", COPY_HEADER)]
    if reference is None:
        return []
    try:
        theirs = _itk_header(reference)
    except RuntimeError as problem:
        return [_no_reference(reference, problem, where)]
    try:
        ours = _itk_header(path)
    except RuntimeError as problem:
        return [Finding("geometry", severity if challenge.geometry == "reference" else WARNING, where["case"],
                        where["file"], f"ITK refuses the header ({reason_of(problem, path)})",
                        f"the header of {reference.name}", COPY_HEADER)]
    if challenge.geometry == "reference":
        tolerance = PANOPTICA_TOLERANCE if challenge.year >= 2026 else 0.0
        apart = [f"{name} {_numbers(mine)}, the image has {_numbers(its)}" for name, mine, its in
                 zip(("origin", "spacing", "direction", "size"), ours, theirs)
                 if np.shape(mine) != np.shape(its) or np.abs(np.subtract(mine, its)).max() > tolerance]
        exactly = f"within {tolerance:g}" if tolerance else "exactly"
        return [Finding("geometry", severity, where["case"], where["file"], "; ".join(apart),
                        f"origin, spacing, direction and size of {reference.name}, {exactly}, as ITK reads them",
                        COPY_HEADER)] if apart else []
    difference = grid_difference(itk_grid(str(path)), itk_grid(str(reference)))
    return [warning("geometry", difference, f"the geometry of {reference.name}", f"{COPY_HEADER}; the portal of "
                    f"{challenge.year} compares voxels only, viewers do not", **where)] if difference else []


def _itk_header(path: Path) -> tuple[tuple[float, ...], ...]:
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    return reader.GetOrigin(), reader.GetSpacing(), reader.GetDirection(), reader.GetSize()


def _no_reference(reference: Path, problem: Exception, where: dict) -> Finding:
    return error("geometry", f"could not be compared: {reference} cannot be read ({reason_of(problem, reference)})",
                 "an image of the case", "restore that image, or validate without -r", **where)


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _numbers(values: tuple) -> str:
    return "(" + ", ".join(f"{v:.9g}" for v in values) + ")"


def _matrix(matrix: np.ndarray) -> str:
    return "[" + ", ".join("[" + ", ".join(f"{v + 0.0:.7g}" for v in row) + "]" for row in matrix) + "]"
