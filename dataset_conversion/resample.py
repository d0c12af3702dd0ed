"""Images and labels of a case on a coarser or finer grid that covers the same box."""
from __future__ import annotations

import nibabel as nib
import numpy as np
from scipy.ndimage import affine_transform, gaussian_filter

Spacing = tuple[float, float, float]


def resample_image(image: nib.Nifti1Image, spacing_mm: Spacing) -> nib.Nifti1Image:
    """`image` at `spacing_mm`, float32: linear interpolation, after a Gaussian against aliasing where it gets coarser.

    Zero background stays exactly zero, which nnU-Net's crop relies on: a voxel is zero unless at least half of what
    it covers is non-zero in `image`, and inside, only non-zero voxels are averaged, so that borders do not darken.
    """
    voxels = np.asarray(image.dataobj, np.float32)
    support = (voxels != 0).astype(np.float32)
    covered = _resample(support, image, spacing_mm)
    averaged = _resample(voxels, image, spacing_mm)
    inside = covered >= 0.5
    result = np.zeros_like(averaged)
    result[inside] = averaged[inside] / covered[inside]
    return _with_header(result, image, spacing_mm)


def resample_label(label: nib.Nifti1Image, spacing_mm: Spacing) -> nib.Nifti1Image:
    """`label` at `spacing_mm`, uint8, with the volume of its foreground kept to the nearest voxel.

    The voxels that foreground covers most become foreground, as many as keep its volume, each with the value that
    covers most of it. A threshold of one half would lose small lesions (40 % of the volume of a patient of open_ms
    at 2 mm), and the nearest voxel keeps the volume but frays the borders.
    """
    voxels = np.asarray(label.dataobj)
    values = [value for value in np.unique(voxels) if value != 0]
    step, shape, _ = _grid(label, spacing_mm)
    result = np.zeros(shape, np.uint8)
    if values:
        shares = np.stack([_resample((voxels == v).astype(np.float32), label, spacing_mm) for v in values])
        count = max(1, round(np.count_nonzero(voxels) / np.prod(step)))
        covered = shares.sum(0).ravel()  # of each new voxel, by any foreground value
        chosen = np.argsort(-covered, kind="stable")[:count]
        chosen = chosen[covered[chosen] > 0]
        result.flat[chosen] = np.array(values)[shares.argmax(0).ravel()[chosen]]
    return _with_header(result, label, spacing_mm)


def _grid(image: nib.Nifti1Image, spacing_mm: Spacing) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Voxels of the new grid per voxel of the old (3,), the new shape (3,), and the old index of new voxel 0 (3,)."""
    step = np.array(spacing_mm) / nib.affines.voxel_sizes(image.affine)
    shape = np.maximum(np.round(np.array(image.shape) / step), 1).astype(int)
    first = (np.array(image.shape) - (shape - 1) * step - 1) / 2  # both grids have one centre
    return step, shape, first


def _resample(voxels: np.ndarray, image: nib.Nifti1Image, spacing_mm: Spacing) -> np.ndarray:
    step, shape, first = _grid(image, spacing_mm)
    # The standard deviation of a box of `step` voxels, less that of linear interpolation's own tent.
    smoothed = gaussian_filter(voxels, np.sqrt(np.maximum(step**2 - 1, 0) / 12), mode="constant", truncate=3)
    return affine_transform(smoothed, step, first, tuple(shape), order=1, mode="nearest")


def _with_header(voxels: np.ndarray, image: nib.Nifti1Image, spacing_mm: Spacing) -> nib.Nifti1Image:
    step, _, first = _grid(image, spacing_mm)
    affine = image.affine @ nib.affines.from_matvec(np.diag(step), first)
    result = nib.Nifti1Image(voxels, affine)
    result.header.set_xyzt_units("mm")
    return result
