"""The 95th percentile Hausdorff distance by both official BraTS definitions, exact, on k-d trees of border voxels."""
from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import nan, prod

import numpy as np
from scipy.spatial import cKDTree

from nnmiss.errors import NnmissError
from nnmiss.evaluation.surfels import corner_offsets, surface_elements

DEFINITIONS = ("brats2020", "brats2023")


@dataclass(frozen=True)
class Surface:
    """The border of one region, prepared once and compared with any number of others of the same image."""

    keys: np.ndarray
    """(n,) int64, ascending: each point's place in the image; equal keys are equal points."""
    points_mm: np.ndarray
    """(n, ndim) float64."""
    weights: np.ndarray | None
    """(n,) surface areas or contour lengths; None where every point counts the same ("brats2020")."""

    @cached_property
    def tree(self) -> cKDTree:
        """Nearest-neighbour search on the points, made at its first use."""
        return cKDTree(self.points_mm, balanced_tree=False, compact_nodes=False)

    def distances_to(self, other: Surface) -> np.ndarray:
        """(n,) mm from each point to the nearest point of `other`; points both share are not searched for."""
        place = np.searchsorted(other.keys, self.keys)
        apart = other.keys.take(place, mode="clip") != self.keys
        distances = np.zeros(len(self.keys))
        distances[apart] = other.tree.query(self.points_mm[apart])[0]
        return distances


def hd95(gt: np.ndarray, pred: np.ndarray, spacing_mm: tuple[float, ...] | None = None,
         definition: str = "brats2020", percentile: float = 95.0) -> float:
    """The percentile of the distances between the borders of two masks.

    "brats2020" (CaPTk with medpy's hd95; also panoptica): border voxels are those with a face towards the outside or
    the image's edge; the distances of both directions are pooled, then the percentile is interpolated linearly.
    "brats2023" (DeepMind's surface distance): the border is the marching-cubes surface on the lattice between voxels,
    each point weighted by its area; the larger of the two directed percentiles. 2D (contours) or 3D.

    Args:
        gt, pred: bool (or 0/1) arrays of one shape. Axes of length 1 are dropped: a single slice is a 2D image.
        spacing_mm: voxel size per axis of the arrays; None counts in voxels.
        definition: "brats2020" or "brats2023".
        percentile: 0 to 100.

    Returns:
        mm (voxels without spacing); NaN when either mask is empty. What an empty mask scores is decided by
        `nnmiss.evaluation.conventions`, not here.

    Raises:
        NnmissError: shapes differ, or a definition or spacing that does not fit.
    """
    gt, pred = np.asarray(gt, bool), np.asarray(pred, bool)
    spacing_mm = (1.0,) * gt.ndim if spacing_mm is None else tuple(spacing_mm)
    if gt.shape != pred.shape or len(spacing_mm) != gt.ndim:
        raise NnmissError(f"hd95 needs masks of one shape and a spacing per axis, got shapes {gt.shape} and "
                          f"{pred.shape} and spacing {spacing_mm}")
    axes = spatial_axes(gt.shape)
    spacing_mm, shape = tuple(spacing_mm[i] for i in axes), tuple(gt.shape[i] for i in axes)
    surfaces = [mask_surface(np.ascontiguousarray(mask).reshape(shape), spacing_mm, definition) for mask in (gt, pred)]
    return surface_hd(*surfaces, percentile=percentile)


def spatial_axes(shape: tuple[int, ...]) -> list[int]:
    """The axes along which an image extends: those longer than 1 (the last one where there is none)."""
    return [i for i, n in enumerate(shape) if n > 1] or [len(shape) - 1]


def mask_surface(mask: np.ndarray, spacing_mm: tuple[float, ...], definition: str = "brats2020") -> Surface:
    """The surface of a C-contiguous bool mask; see `region_surface`."""
    labels = mask.view(np.uint8)
    return region_surface(labels, np.flatnonzero(labels), np.array([False, True]), spacing_mm, definition)


def region_surface(labels: np.ndarray, foreground: np.ndarray, inside: np.ndarray, spacing_mm: tuple[float, ...],
                   definition: str = "brats2020") -> Surface:
    """The surface of a region of a label map, looking only at foreground voxels.

    Args:
        labels: C-contiguous integers >= 0.
        foreground: (n,) flat indices of all voxels with labels > 0, ascending.
        inside: (max label + 1,) bool: whether a label value belongs to the region; inside[0] is False.
        spacing_mm: voxel size per axis of `labels`.
        definition: "brats2020" (border voxels) or "brats2023" (weighted lattice points). Raises NnmissError for others.
    """
    if definition not in DEFINITIONS:
        raise NnmissError(f"HD95 definition {definition!r} does not exist, expected one of: {', '.join(DEFINITIONS)}")
    border, index = _border_voxels(labels, foreground, inside)
    if definition == "brats2020":
        return Surface(border, _points(index, spacing_mm), None)
    if labels.ndim not in (2, 3):
        raise NnmissError(f"HD95 as brats2023 exists for 2D and 3D images, got shape {labels.shape}")
    return _lattice_surface(labels, index, inside, spacing_mm)


def surface_hd(a: Surface, b: Surface, percentile: float = 95.0) -> float:
    """The Hausdorff percentile of two surfaces made with one definition: mm; NaN when either has no points."""
    if not len(a.keys) or not len(b.keys):
        return nan
    there, back = a.distances_to(b), b.distances_to(a)
    if a.weights is None:
        return float(np.percentile(np.concatenate([there, back]), percentile))
    return max(_weighted_percentile(there, a.weights, percentile), _weighted_percentile(back, b.weights, percentile))


def _weighted_percentile(distances: np.ndarray, weights: np.ndarray, percentile: float) -> float:
    """The first distance at which the accumulated share of weight reaches the percentile; no interpolation."""
    order = np.lexsort((weights, distances))
    share = np.cumsum(weights[order]) / weights.sum()
    return float(distances[order[min(np.searchsorted(share, percentile / 100), len(order) - 1)]])


def _points(index: tuple[np.ndarray, ...], spacing_mm: tuple[float, ...]) -> np.ndarray:
    return np.stack([i * float(s) for i, s in zip(index, spacing_mm)], axis=1)


def _border_voxels(labels: np.ndarray, foreground: np.ndarray,
                   inside: np.ndarray) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Voxels of the region with at least one face towards the outside: flat indices and one index per axis."""
    flat, shape = labels.reshape(-1), labels.shape
    own = foreground[inside[flat[foreground]]]
    index = np.unravel_index(own, shape)
    border = np.zeros(len(own), bool)
    for axis, along in enumerate(index):
        stride = prod(shape[axis + 1:])
        border |= (along == 0) | (along == shape[axis] - 1)  # beyond the image is outside
        for step in (-stride, stride):
            border |= ~inside[flat.take(own + step, mode="clip")]
    return own[border], tuple(along[border] for along in index)


def _lattice_surface(labels: np.ndarray, border: tuple[np.ndarray, ...], inside: np.ndarray,
                     spacing_mm: tuple[float, ...]) -> Surface:
    """Lattice points with voxels of both kinds around them, weighted by the surface between these.

    Point p lies between voxels p - 1 and p along each axis, so the lattice is one longer than the image. A mixed
    neighbourhood always has a border voxel in it: only the corners of border voxels need to be looked at.
    """
    lattice = tuple(n + 1 for n in labels.shape)
    offsets = corner_offsets(labels.ndim)
    keys = np.unique(np.concatenate([
        np.ravel_multi_index(tuple(i + o for i, o in zip(border, offset)), lattice) for offset in offsets]))
    points = np.unravel_index(keys, lattice)
    code = np.zeros(len(keys), np.int64)
    for bit, offset in enumerate(offsets):
        voxel = [p - 1 + o for p, o in zip(points, offset)]
        exists = np.logical_and.reduce([(v >= 0) & (v < n) for v, n in zip(voxel, labels.shape)])
        here = inside[labels[tuple(np.clip(v, 0, n - 1) for v, n in zip(voxel, labels.shape))]]
        code |= (here & exists).astype(np.int64) << bit
    mixed = (code != 0) & (code != 2 ** len(offsets) - 1)
    weights = surface_elements(tuple(map(float, spacing_mm)))[code[mixed]]
    return Surface(keys[mixed], _points(tuple(p[mixed] for p in points), spacing_mm), weights)
