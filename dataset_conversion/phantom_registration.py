"""Registration error of the phantom: each modality lies a little beside the labels, rigidly and smoothly deformed."""
from __future__ import annotations

import numpy as np
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation

from nnmiss.dataset_conversion.phantom_anatomy import BRAIN_RADII, smooth_field
from nnmiss.seeding import derive_seed

SHARES = {"translation": 0.5, "rotation": 0.25, "deformation": 0.25}  # of the mean square displacement
DEFORMATION_CELLS = 4  # spline intervals along the box: bends of about a quarter of the head


def displacement(error: float, size: tuple[int, int, int], seed: int, number: int, modality: str) -> np.ndarray:
    """Where a voxel of the modality comes from, minus where it is: (3, X, Y, Z) float32 in voxels.

    Its root mean square over the brain is about `error`, times a factor of 0.5 to 1.5 drawn for the case and modality.
    """
    rng = np.random.default_rng(derive_seed("phantom", seed, number, "registration", modality))
    error = error * rng.uniform(0.5, 1.5)
    length = {name: error * np.sqrt(share) for name, share in SHARES.items()}
    shift = _direction(rng) * length["translation"]
    axis = _direction(rng)
    grid = np.stack(np.meshgrid(*(np.arange(side) - (side - 1) / 2 for side in size), indexing="ij")).astype(np.float32)
    radii = np.array(BRAIN_RADII) * np.array(size) / 2
    inertia = np.square(radii) / 5  # mean square coordinates of a solid ellipsoid
    lever = np.sqrt(inertia.sum() - axis @ (inertia * axis))  # root mean square distance of the brain from the axis
    turn = Rotation.from_rotvec(axis * 2 * np.arcsin(length["rotation"] / (2 * lever))).as_matrix() - np.eye(3)
    field = np.tensordot(turn.astype(np.float32), grid, axes=1) + shift.astype(np.float32)[:, None, None, None]
    smooth = np.stack([smooth_field(rng, size, DEFORMATION_CELLS) for _ in range(3)])
    return field + np.float32(length["deformation"] / np.sqrt(3)) * smooth


def misregistered(image: np.ndarray, field: np.ndarray) -> np.ndarray:
    """`image` (X, Y, Z) as it lies after `field` (3, X, Y, Z): linear interpolation, edges continued outwards."""
    where = field + np.stack(np.meshgrid(*map(np.arange, image.shape), indexing="ij")).astype(np.float32)
    return map_coordinates(image, where, order=1, mode="nearest", output=np.float32)


def _direction(rng: np.random.Generator) -> np.ndarray:
    vector = rng.standard_normal(3)
    return vector / np.linalg.norm(vector)
