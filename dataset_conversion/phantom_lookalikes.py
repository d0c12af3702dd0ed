"""Lesions of the phantom that look like tumour in one modality, are absent from the others, and have no label."""
from __future__ import annotations

import numpy as np

from nnmiss.dataset_conversion.phantom_anatomy import BRAIN_RADII, Anatomy, smooth_field
from nnmiss.seeding import derive_seed

RADIUS = (0.10, 0.24)  # of half the box; a tumour's is 0.36 to 0.54, its core's 0.25 to 0.40
REACH = 0.8  # centres lie within this share of the brain's radii


def lookalikes(anatomy: Anatomy, count: int, seed: int, number: int, modality: str) -> np.ndarray:
    """Strength (X, Y, Z) float32 in 0..1 of `count` irregular blobs of one modality; 0 in the tumour's core.

    Blobs fade out over the tumour's border, to a third where edema begins; one drawn on the tumour is hardly seen, so that
    fewer than `count` can be left. Blob k does not depend on `count`.
    """
    size = anatomy.labels.shape
    axes = [((np.arange(side) + 0.5) / side * 2 - 1).astype(np.float32) for side in size]
    strength = np.zeros(size, np.float32)
    for blob in range(count):
        rng = np.random.default_rng(derive_seed("phantom", seed, number, "lookalike", modality, blob))
        direction = rng.standard_normal(3)
        direction *= REACH * rng.uniform() ** (1 / 3) / np.linalg.norm(direction)  # uniform in the ball
        radii = rng.uniform(*RADIUS) * rng.uniform(0.7, 1.3, 3)
        grid = np.meshgrid(*((axis - c * r) / s for axis, c, r, s in zip(axes, direction, BRAIN_RADII, radii)),
                           indexing="ij", sparse=True)
        level = 1 - np.sqrt(sum(axis**2 for axis in grid)) + 0.25 * smooth_field(rng, size, 12)
        strength = np.maximum(strength, np.clip(0.5 + level / 0.4, 0, 1))
    return (strength * anatomy.outside).astype(np.float32)
