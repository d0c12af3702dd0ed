"""What the viewer does to arrays: intensities to 8 bits, crop, halve, write as small NIfTI files."""
from __future__ import annotations

import gzip

import nibabel
import numpy as np

from nnmiss.errors import NnmissError

MARGIN = 2  # voxels around the brain that are kept
PERCENTILES = (0.5, 99.5)  # of the non-zero voxels; intensities beyond become black (1) or white (255)


def window(array: np.ndarray) -> np.ndarray:
    """Intensities as uint8: 0 stays 0, the PERCENTILES of the other voxels become 1 and 255.

    Zero counts as background where a corner of the volume is zero; else (CT) all voxels are intensities. Voxels that are
    NaN or Inf become background.
    """
    values = np.asarray(array, dtype=np.float32)
    finite = np.isfinite(values)
    shown = finite & (values != 0) if (values[::values.shape[0] - 1, ::values.shape[1] - 1, ::values.shape[2] - 1]
                                       == 0).any() else finite
    result = np.zeros(values.shape, dtype=np.uint8)
    if not shown.any():
        return result
    inside = values[shown]
    low, high = np.percentile(inside, PERCENTILES).astype(np.float32)
    if high <= low:  # almost all one value
        low, high = inside.min(), inside.max()
    scale = np.float32(254) / (high - low) if high > low else np.float32(0)
    result[shown] = np.rint(np.clip((inside - low) * scale, 0, 254)) + 1
    return result


def label_map(array: np.ndarray) -> np.ndarray:
    """Labels as uint8. Raises NnmissError unless all are whole numbers from 0 to 255."""
    lowest, highest = array.min(), array.max()
    if not (lowest >= 0 and highest <= 255):  # NaN and Inf too
        raise NnmissError(f"not a label map: its values go from {lowest} to {highest}, expected 0 to 255")
    labels = array.astype(np.uint8)
    if array.dtype.kind == "f" and (labels != array).any():
        raise NnmissError("not a label map: it holds values that are not whole numbers")
    return labels


def bounding_box(arrays: list[np.ndarray]) -> tuple[slice, slice, slice]:
    """The smallest box that holds every non-zero voxel of every array, MARGIN wider; all if there is none."""
    shape = arrays[0].shape
    bounds = []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        used = np.flatnonzero(np.logical_or.reduce([a.any(axis=others) for a in arrays]))
        first, last = (used[0], used[-1]) if used.size else (0, shape[axis] - 1)
        bounds.append(slice(max(0, int(first) - MARGIN), min(shape[axis], int(last) + MARGIN + 1)))
    return tuple(bounds)


def halved(array: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An image of half the resolution, each voxel the mean of 2 x 2 x 2, and its affine; odd axes repeat their last."""
    padded = np.pad(array, [(0, n % 2) for n in array.shape], mode="edge").astype(np.float32)
    x, y, z = (n // 2 for n in padded.shape)
    mean = padded.reshape(x, 2, y, 2, z, 2).mean(axis=(1, 3, 5))
    half = affine @ np.diag([2.0, 2.0, 2.0, 1.0])
    half[:3, 3] = affine[:3, :3] @ [0.5, 0.5, 0.5] + affine[:3, 3]  # middle of the first eight voxels
    return np.rint(mean).astype(np.uint8), half


def nifti_bytes(array: np.ndarray, affine: np.ndarray, is_label_map: bool = False) -> bytes:
    """A .nii.gz file of a uint8 array, the same bytes every time; label maps say in the header that they are some."""
    image = nibabel.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    if is_label_map:
        image.header.set_intent("label")
    return gzip.compress(image.to_bytes(), compresslevel=9, mtime=0)
