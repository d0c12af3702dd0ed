"""Scanners of the phantom: each images every modality with a contrast curve, sharpness, noise and shading of its own."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nnmiss.seeding import derive_seed


@dataclass(frozen=True)
class Scanner:
    """How one scanner images one modality; the defaults are the ideal scanner.

    gamma: exponent of the brightness, in units of healthy white matter. blur: further point spread, sigma in voxels.
    noise, shading: factors of the noise's and the bias field's strength. brightness: factor of the scanner units.
    """

    gamma: float = 1.0
    blur: float = 0.0
    noise: float = 1.0
    shading: float = 1.0
    brightness: float = 1.0


def scanner_number(seed: int, number: int, scanners: int) -> int:
    """Which of the `scanners` images case `number`, from 0."""
    return int(np.random.default_rng(derive_seed("phantom", seed, number, "scanner")).integers(scanners))


def scanner_profile(seed: int, scanner: int, modality: str) -> Scanner:
    """The profile of scanner number `scanner` in one modality. It does not depend on how many scanners there are."""
    rng = np.random.default_rng(derive_seed("phantom", seed, "scanner profile", scanner, modality))
    return Scanner(gamma=float(np.exp(rng.uniform(-0.35, 0.35))), blur=float(rng.uniform(0, 0.7)),
                   noise=float(np.exp(rng.uniform(-0.5, 0.5))), shading=float(np.exp(rng.uniform(0.7, 1.7))),
                   brightness=float(np.exp(rng.normal(0, 0.5))))
