"""Label noise of the phantom: what an annotator draws who is a little off at boundaries and about small islands."""
from __future__ import annotations

import numpy as np
from scipy.ndimage import distance_transform_edt

from nnmiss.dataset_conversion.phantom_anatomy import smooth_field
from nnmiss.seeding import derive_seed

BOUNDARY_CELLS = 8  # spline intervals along the box: an error reaches over about an eighth of the head
HABIT = 0.5  # of the error's variance: an annotator draws a whole region too wide or too narrow
ISLAND_RADIUS = (0.02, 0.05)  # of the box
ISLANDS_PER_VOXEL = 2.0  # expected islands added, and dropped, for each voxel of boundary noise


def noisy_labels(labels: np.ndarray, brain: np.ndarray, noise: float, seed: int, number: int) -> np.ndarray:
    """Labels (X, Y, Z) uint8 with boundaries displaced by a standard deviation of `noise` voxels.

    Whole tumour, core and necrosis get an error each, half of it smooth along the boundary and half one habit for
    the region; they stay nested and in the brain. Some islands of the enhancing ring are drawn as its neighbour,
    some that are not there are added. Each label that occurs still does. Deterministic in its arguments.
    """
    rng = np.random.default_rng(derive_seed("phantom", seed, number, "label noise"))
    errors = [np.sqrt(HABIT) * rng.standard_normal() + np.sqrt(1 - HABIT) * smooth_field(rng, labels.shape, BOUNDARY_CELLS)
              for _ in range(3)]
    regions = [_signed_distance(region) for region in (labels >= 1, labels >= 2, labels == 2)]
    islands = _islands(rng, labels, noise)
    while True:
        whole, core, necrosis = (distance + noise * error > 0 for distance, error in zip(regions, errors))
        whole &= brain
        core &= whole
        drawn = np.where(core, np.where(necrosis, 2, 3), whole).astype(np.uint8)
        for island, inside, value in islands:
            drawn[island & (drawn == inside)] = value
        if np.isin(np.unique(labels), drawn).all():
            return drawn
        noise, islands = noise / 2, []  # a region was lost: the annotator saw that it is there


def _signed_distance(region: np.ndarray) -> np.ndarray:
    """Voxels to the region's boundary, positive inside."""
    return np.where(region, distance_transform_edt(region) - 0.5, 0.5 - distance_transform_edt(~region))


def _islands(rng, labels: np.ndarray, noise: float) -> list[tuple[np.ndarray, int, int]]:
    """(where, label that is changed there, new label): balls of enhancing in the edema, and gaps in the ring."""
    islands = []
    for inside, value in ((1, 3), (3, 2)):
        candidates = np.argwhere(labels == inside)
        for _ in range(rng.poisson(ISLANDS_PER_VOXEL * noise)):
            centre = candidates[rng.integers(len(candidates))]
            radius = max(1.0, rng.uniform(*ISLAND_RADIUS) * min(labels.shape))
            offsets = np.ogrid[tuple(slice(-c, side - c) for c, side in zip(centre, labels.shape))]
            islands.append((sum(o * o for o in offsets) <= radius**2, inside, value))
    return islands
