"""Compares where voxels lie in space, whichever of nnU-Net's readers read them."""
from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import SimpleITK as sitk

FOUR_AXES = "it has {axes} axes, expected three: one file per channel"
SMALLEST_VOLUME = 1e-3  # of a voxel against its edges' product
TOLERANCE_VOXELS = 0.1  # of the smallest spacing: far above rounding in headers, far below a visible shift


@dataclass(frozen=True)
class VoxelGrid:
    """Array shape and the map from voxel index to millimetres."""

    shape: tuple[int, ...]  # spatial, in the array's axis order
    axes_mm: np.ndarray  # (D, D) column k: step in mm of file axis k (the array's axes reversed)
    origin_mm: np.ndarray  # (D,)

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        return tuple(float(s) for s in np.linalg.norm(self.axes_mm, axis=0))

    def corners_mm(self) -> np.ndarray:
        """(2^D, D) positions of the outermost voxels' centres."""
        sizes = (list(self.shape[::-1]) + [1])[: len(self.origin_mm)]
        corners = np.array(list(product(*[(0, n - 1) for n in sizes])))
        return corners @ self.axes_mm.T + self.origin_mm


def voxel_grid(properties: dict, shape: tuple[int, ...]) -> VoxelGrid:
    """The grid of an image from the properties nnU-Net's reader returned and the array's spatial shape."""
    if "sitk_stuff" in properties:
        sitk = properties["sitk_stuff"]
        dimension = len(sitk["spacing"])
        direction = np.array(sitk["direction"], dtype=float).reshape(dimension, dimension)
        return VoxelGrid(tuple(shape), direction * np.array(sitk["spacing"]), np.array(sitk["origin"], dtype=float))
    if "nibabel_stuff" in properties:
        stuff = properties["nibabel_stuff"]
        affine = np.array(stuff.get("reoriented_affine", stuff.get("original_affine")), dtype=float)
        return VoxelGrid(tuple(shape), affine[:3, :3], affine[:3, 3])
    spacing = np.array(properties["spacing"], dtype=float)
    return VoxelGrid(tuple(shape), np.diag(spacing[::-1]), np.zeros(len(spacing)))


def itk_grid(file: str) -> VoxelGrid:
    """The grid of a file as SimpleITK, nnU-Net's reader for medical images, understands its header; reads no voxels.

    Raises RuntimeError when SimpleITK cannot read the header, or the image has more than three axes.
    """
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(file))
    reader.ReadImageInformation()
    shape = reader.GetSize()[::-1]
    if len(shape) > 3:
        raise RuntimeError(FOUR_AXES.format(axes=len(shape)))
    properties = {"spacing": reader.GetSpacing(), "origin": reader.GetOrigin(), "direction": reader.GetDirection()}
    return voxel_grid({"sitk_stuff": properties}, shape if len(shape) > 2 else (1, *shape))


def why_no_grid(grid: VoxelGrid) -> str | None:
    """None when voxels lie at definite places, on three axes at most, else the reason in words."""
    if len(grid.origin_mm) > 3:
        return FOUR_AXES.format(axes=len(grid.origin_mm))
    spacing = np.array(grid.spacing_mm)
    if not (np.isfinite(grid.axes_mm).all() and np.isfinite(grid.origin_mm).all()):
        return "its header's affine holds NaN or Inf"
    if not (spacing > 0).all() or abs(np.linalg.det(grid.axes_mm / spacing)) < SMALLEST_VOLUME:
        return f"its header's affine gives voxels no volume (spacing {_numbers(spacing)} mm)"
    return None


def grid_difference(first: VoxelGrid, second: VoxelGrid, names: tuple[str, str] | None = None) -> str | None:
    """None when two images share a grid (to a tenth of a voxel at every corner), else what differs, in words.

    Numbers are those of `first` against those of `second`, in the order x, y, z. `names`, of the first and of the second,
    are written out; without them the sentence around should name the two in this order.
    """
    whose = f" ({names[0]} against {names[1]})" if names else ""
    if first.shape != second.shape:
        return f"shapes differ: {_numbers(first.shape[::-1])} against {_numbers(second.shape[::-1])} voxels{whose}"
    if len(first.origin_mm) != len(second.origin_mm):
        return f"dimensions differ: {len(first.origin_mm)}D against {len(second.origin_mm)}D{whose}"
    apart = float(np.linalg.norm(first.corners_mm() - second.corners_mm(), axis=1).max())
    if apart <= TOLERANCE_VOXELS * min(first.spacing_mm):
        return None
    parts = [f"voxels lie up to {apart:.4g} mm apart"]
    if not np.allclose(first.spacing_mm, second.spacing_mm, rtol=1e-4):
        parts.append(f"spacing {_numbers(first.spacing_mm)} against {_numbers(second.spacing_mm)} mm")
    if not np.allclose(first.origin_mm, second.origin_mm, atol=1e-3):
        parts.append(f"origin {_numbers(first.origin_mm)} against {_numbers(second.origin_mm)} mm")
    directions = [grid.axes_mm / np.array(grid.spacing_mm) for grid in (first, second)]
    if not np.allclose(*directions, atol=1e-4):
        parts.append("directions differ")
    return "affines differ: " + "; ".join(parts) + whose


def _numbers(values: tuple | np.ndarray) -> str:
    return "(" + ", ".join(f"{round(float(v), 6) + 0.0:.6g}" for v in values) + ")"  # + 0.0: no -0
