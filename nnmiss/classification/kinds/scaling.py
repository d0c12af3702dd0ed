"""Scaling of features: x becomes (x - shift) / scale, with shift and scale from the training samples."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def zscore(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(mean, standard deviation) (F,) of the columns of (n, F); constant columns have scale 1. n = 0: (0, 1)."""
    if not len(table):
        return none(table)
    sd = table.std(0)
    return table.mean(0), np.where(sd > 1e-8 * np.maximum(np.abs(table).max(0), 1e-30), sd, 1.0)


def minmax(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(centre, half the range) (F,) of (n, F), which map the columns to (-1, 1); constant ones to 0."""
    if not len(table):
        return none(table)
    low, high = table.min(0), table.max(0)
    return (low + high) / 2, np.where(high > low, (high - low) / 2, 1.0)


def none(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(0, 1) (F,): nothing changes."""
    return np.zeros(table.shape[1]), np.ones(table.shape[1])


SCALINGS = {"zscore": zscore, "minmax": minmax, "none": none}


def scaling_of(table: np.ndarray, shift: Sequence[float], scale: Sequence[float]) -> np.ndarray:
    """(table - shift) / scale in float64, (n, F)."""
    return (table - np.asarray(shift)) / np.asarray(scale)
