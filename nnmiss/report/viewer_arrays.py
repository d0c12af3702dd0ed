"""What the viewer does to arrays: intensities to 8 bits, crop, halve, write as small NIfTI files."""
from __future__ import annotations

import gzip
from dataclasses import dataclass

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


Box = tuple[slice, slice, slice]


@dataclass
class Piece:
    """The part of a volume that is not zero, and where it lies: most of a brain's label maps is empty."""

    shape: tuple[int, ...]
    box: Box
    values: np.ndarray

    @classmethod
    def of(cls, array: np.ndarray) -> Piece:
        """A copy of the smallest box around the non-zero voxels; of none a box without voxels."""
        used = [np.flatnonzero(array.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
        box = tuple(slice(int(u[0]), int(u[-1]) + 1) if u.size else slice(0, 0) for u in used)
        return cls(array.shape, box, array[box].copy())

    def within(self, box: Box) -> np.ndarray:
        """The part of the volume in a box around its own."""
        result = np.zeros([side.stop - side.start for side in box], self.values.dtype)
        if self.values.size:
            place = tuple(slice(own.start - side.start, own.stop - side.start) for own, side in zip(self.box, box))
            result[place] = self.values
        return result


def common_box(pieces: list[Piece]) -> Box:
    """The smallest box that holds every non-zero voxel of all, MARGIN wider; the whole volume if there is none."""
    shape, boxes = pieces[0].shape, [piece.box for piece in pieces if piece.values.size]
    boxes = boxes or [tuple(slice(0, n) for n in shape)]
    ends = [(min(side.start for side in sides), max(side.stop for side in sides)) for sides in zip(*boxes)]
    return tuple(slice(max(0, first - MARGIN), min(n, last + MARGIN)) for n, (first, last) in zip(shape, ends))


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
