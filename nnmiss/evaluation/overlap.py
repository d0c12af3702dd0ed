"""Dice, sensitivity and specificity of all regions, from one count of label pairs."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan

import numpy as np


@dataclass(frozen=True)
class Counts:
    """Voxels of one region: true positives, false positives, false negatives, true negatives (whole image)."""

    tp: int
    fp: int
    fn: int
    tn: int

    @property
    def gt_empty(self) -> bool:
        """The ground truth has no voxel of the region."""
        return self.tp + self.fn == 0

    @property
    def pred_empty(self) -> bool:
        """The prediction has no voxel of the region."""
        return self.tp + self.fp == 0


def label_pairs(gt: np.ndarray, pred: np.ndarray, gt_foreground: np.ndarray, pred_foreground: np.ndarray,
                num_labels: int, num_ignored: int = 0) -> np.ndarray:
    """How many voxels have label i in the ground truth and j in the prediction.

    Only foreground is visited: everything else is background in both, whatever the image's size.

    Args:
        gt, pred: flat label maps of equal length, values 0..num_labels-1.
        gt_foreground, pred_foreground: their `np.flatnonzero`.
        num_labels: number of label values, background included.
        num_ignored: voxels that do not count; the caller has set them to 0 in both maps.

    Returns:
        (num_labels, num_labels) int64, ground truth by prediction; it sums to the voxels that count.
    """
    pairs = np.bincount(gt[gt_foreground].astype(np.int64) * num_labels + pred[gt_foreground], minlength=num_labels**2)
    only_pred = pred[pred_foreground[gt[pred_foreground] == 0]]
    pairs[:num_labels] += np.bincount(only_pred, minlength=num_labels)
    pairs[0] = gt.size - num_ignored - pairs[1:].sum()
    return pairs.reshape(num_labels, num_labels)


def region_counts(pairs: np.ndarray, region: Sequence[int]) -> Counts:
    """Counts of a region (the union of its label values) from `label_pairs`."""
    inside = np.zeros(len(pairs), bool)
    inside[list(region)] = True
    tp = int(pairs[np.ix_(inside, inside)].sum())
    fp = int(pairs[np.ix_(~inside, inside)].sum())
    fn = int(pairs[np.ix_(inside, ~inside)].sum())
    return Counts(tp, fp, fn, int(pairs.sum()) - tp - fp - fn)


def dice(counts: Counts, empty: str = "brats") -> float:
    """2 tp / (2 tp + fp + fn), 0..1. Both empty: 1 by the "brats" rule, NaN by "nan"."""
    size = 2 * counts.tp + counts.fp + counts.fn
    return 2 * counts.tp / size if size else _undefined(1.0, empty)


def sensitivity(counts: Counts, empty: str = "brats") -> float:
    """tp / (tp + fn), 0..1. Without ground truth, "brats": 1 when the prediction is empty too, else 0; "nan": NaN."""
    if counts.gt_empty:
        return _undefined(1.0 if counts.pred_empty else 0.0, empty)
    return counts.tp / (counts.tp + counts.fn)


def specificity(counts: Counts, empty: str = "brats") -> float:
    """tn / (tn + fp), 0..1, over the whole image. Where the region fills it, "brats": 1; "nan": NaN."""
    size = counts.tn + counts.fp
    return counts.tn / size if size else _undefined(1.0, empty)


def _undefined(brats: float, empty: str) -> float:
    return brats if empty == "brats" else nan
