"""The phantom's anatomy: a brain with its tissues, one irregular tumour of nested regions, and harmless distractors."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import BSpline

from nnmiss.seeding import derive_seed

BRAIN_RADII = (0.84, 0.94, 0.84)  # of half the box
MIN_LABEL_VOXELS = 5  # of each of the three labels, else the tumour is drawn again
CORE_WHOLE = 0.76  # the core lies where the soft whole tumour is above this
MIN_NECROSIS, MAX_NECROSIS = 0.10, 0.60  # share of the core's voxels


@dataclass(frozen=True)
class Anatomy:
    """What one case looks like before any modality is imaged. All arrays have shape (X, Y, Z).

    labels: uint8, 0 background, 1 edema, 2 necrotic core, 3 enhancing.
    brain: bool. tissues: float32 in 0..1, "csf", "grey", "white", summing to 1 inside the brain.
    whole: float32 in 0..1, the whole tumour, fading over its border. edema: the same, 0 where labels are 2 or 3.
    distractors: float32 in 0..1, "vessels", "hyperintensities", "cysts", 0 inside the tumour core.
    """

    labels: np.ndarray
    brain: np.ndarray
    tissues: dict[str, np.ndarray]
    whole: np.ndarray
    edema: np.ndarray
    distractors: dict[str, np.ndarray]

    @property
    def outside(self) -> np.ndarray:
        """(X, Y, Z) float32, 1 far from the tumour, fading to 0 over its border: exactly 0 in the core."""
        return np.clip(1 - self.whole / CORE_WHOLE, 0, 1)


def smooth_field(rng: np.random.Generator, size: tuple[int, int, int], cells: int) -> np.ndarray:
    """A smooth random field of mean 0 and standard deviation near 1: cubic B-splines with normal coefficients.

    `cells` is the number of spline intervals along each side, so the same generator state gives the same field at
    any resolution. Returns (X, Y, Z) float32.
    """
    field = rng.standard_normal((cells + 3,) * 3).astype(np.float32)
    knots = np.arange(-3.0, cells + 4.0)
    for side in size:  # each pass contracts the first axis and appends the new one: (k, k, k) -> (X, Y, Z)
        where = (np.arange(side) + 0.5) * (cells / side)
        basis = BSpline.design_matrix(where, knots, 3).toarray().astype(np.float32)  # (side, cells + 3)
        basis /= np.sqrt(np.square(basis).sum(1).mean())
        field = np.tensordot(field, basis, axes=(0, 1))
    return field


def make_anatomy(size: tuple[int, int, int], seed: int, number: int) -> Anatomy:
    """The anatomy of case `number`; deterministic in (size, seed, number)."""
    rng = np.random.default_rng(derive_seed("phantom", seed, number, "brain"))
    axes = [((np.arange(side) + 0.5) / side * 2 - 1).astype(np.float32) for side in size]
    grid = np.meshgrid(*axes, indexing="ij", sparse=True)  # three broadcastable axes in -1..1
    depth = 1 - _distance(grid, (0, 0, 0), np.array(BRAIN_RADII) * rng.uniform(0.96, 1.03, 3))
    depth -= 0.035 * smooth_field(rng, size, 5)  # 0 at the brain's surface, 1 in its middle
    csf, grey, white = _healthy_tissues(rng, grid, size, depth)
    labels, whole_level = _draw_tumour(grid, size, depth, (seed, number))

    # The tumour displaces ventricles and cortex, but the texture of what it grows into stays visible.
    whole = np.clip(0.5 + whole_level / 0.3, 0, 1)
    csf, grey = csf * (1 - whole), grey * (1 - 0.6 * whole)
    tissues = {"csf": csf, "grey": grey, "white": 1 - csf - grey}
    core = labels >= 2
    distractors = {name: np.where(core, 0, field).astype(np.float32)
                   for name, field in _distractors(size, white, (seed, number)).items()}
    return Anatomy(labels, depth > 0, tissues, whole.astype(np.float32), np.where(core, 0, whole).astype(np.float32),
                   distractors)


def _distance(grid, centre, radii) -> np.ndarray:
    """Distance from `centre` in units of `radii`, (X, Y, Z) float32."""
    return np.sqrt(sum(((axis - c) / r).astype(np.float32) ** 2 for axis, c, r in zip(grid, centre, radii)))


def _soft_step(level: np.ndarray, width: float) -> np.ndarray:
    """0 where `level` is far below zero, 1 far above, linear over 2 x `width` around it."""
    return np.clip(0.5 + level / (2 * width), 0, 1)


def _healthy_tissues(rng, grid, size, depth) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Memberships of CSF (a rim and two ventricles), folded grey cortex, and white matter; they sum to 1."""
    rim = _soft_step(0.03 + 0.05 * smooth_field(rng, size, 18) - depth, 0.02)  # deeper in the sulci
    warp = 0.2 * smooth_field(rng, size, 7)
    ventricles = np.zeros(size, np.float32)
    for side in (-1, 1):
        centre = (side * rng.uniform(0.10, 0.14), rng.uniform(-0.06, 0.06), rng.uniform(0.02, 0.12))
        level = 1 - _distance(grid, centre, (0.10, rng.uniform(0.28, 0.38), 0.16)) + warp
        ventricles = np.maximum(ventricles, _soft_step(level, 0.15))
    csf = np.maximum(rim, ventricles)
    white = (1 - csf) * _soft_step(depth - 0.15 - 0.10 * smooth_field(rng, size, 18), 0.03)
    return csf, 1 - csf - white, white


def _draw_tumour(grid, size, depth, key: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Labels (uint8) and the level set of the whole tumour (> 0 inside).

    On coarse grids a draw can lose its necrosis between two voxels; then the next draw is taken, a little larger.
    """
    for attempt in range(100):
        rng = np.random.default_rng(derive_seed("phantom", *key, "tumour", attempt))
        labels, level = _tumour(rng, grid, size, depth, growth=1 + 0.02 * attempt)
        edema, necrosis, enhancing = np.bincount(labels.ravel(), minlength=4)[1:]
        enough = min(edema, necrosis, enhancing) >= MIN_LABEL_VOXELS
        if enough and MIN_NECROSIS <= necrosis / (necrosis + enhancing) <= MAX_NECROSIS:
            return labels, level
    raise AssertionError(f"no tumour fits a phantom of size {size}")  # sizes are checked in PhantomSettings


def _tumour(rng, grid, size, depth, growth: float) -> tuple[np.ndarray, np.ndarray]:
    """One draw of nested regions, each the positive side of a distance perturbed by smooth fields."""
    radius = growth * rng.uniform(0.36, 0.54)
    centre = np.array([rng.choice([-1, 1]) * rng.uniform(0.2, 0.42), rng.uniform(-0.4, 0.4), rng.uniform(-0.32, 0.32)])
    whole = 1 - _distance(grid, centre, radius * rng.uniform(0.8, 1.25, 3))
    whole += 0.16 * smooth_field(rng, size, 6) + 0.08 * smooth_field(rng, size, 14)  # fingers along the white matter
    whole = np.minimum(whole, 4 * (depth - 0.04))  # edema stops at the brain's surface

    core_radius = radius * rng.uniform(0.64, 0.82)
    core = 1 - _distance(grid, centre + rng.uniform(-0.15, 0.15, 3) * radius, core_radius * rng.uniform(0.85, 1.2, 3))
    core += 0.13 * smooth_field(rng, size, 8) + 0.05 * smooth_field(rng, size, 16)
    core = np.minimum(core, 1.5 * (whole - 0.08))  # the core keeps a rim of edema around it

    ring = rng.uniform(0.32, 0.50) * (1 + 0.25 * smooth_field(rng, size, 8) + 0.1 * smooth_field(rng, size, 16))
    ring = np.clip(ring, 0.15, 0.8)  # of the core's radius
    labels = np.zeros(size, np.uint8)
    labels[whole > 0] = 1
    labels[core > 0] = 3
    labels[core > ring] = 2
    return labels, whole


def _distractors(size, white, key: tuple[int, int]) -> dict[str, np.ndarray]:
    """Strength (0..1) of vessels, white-matter hyperintensities and cysts; none of them is labelled."""
    rng = np.random.default_rng(derive_seed("phantom", *key, "distractors"))
    # Two smooth fields vanish together along curves: a network of tubes at any resolution.
    vessels = np.exp(-(smooth_field(rng, size, 5) ** 2 + smooth_field(rng, size, 5) ** 2) / 0.18**2)
    spots = _soft_step(smooth_field(rng, size, 14) - 2.2, 0.2) * white
    cysts = _soft_step(smooth_field(rng, size, 9) - 2.1, 0.2)
    return {"vessels": vessels, "hyperintensities": spots, "cysts": cysts}
