"""Dice, sensitivity and specificity against counting voxel by voxel, and the rules for empty regions."""
from __future__ import annotations

from math import isnan

import numpy as np
import pytest

from nnmiss.evaluation.overlap import Counts, dice, label_pairs, region_counts, sensitivity, specificity

REGIONS = {"whole": (1, 2, 3), "core": (2, 3), "enhancing": (3,)}


def pairs_of(gt, pred, num_labels=4, num_ignored=0):
    gt, pred = gt.reshape(-1), pred.reshape(-1)
    return label_pairs(gt, pred, np.flatnonzero(gt), np.flatnonzero(pred), num_labels, num_ignored)


@pytest.mark.parametrize("shape", [(7, 8, 9), (20, 30)])
def test_counts_of_all_regions_equal_counting_voxels(shape):
    rng = np.random.default_rng(0)
    gt, pred = (rng.integers(0, 4, shape).astype(np.uint8) for _ in range(2))
    pairs = pairs_of(gt, pred)
    assert pairs.sum() == gt.size
    for members in REGIONS.values():
        a, b = np.isin(gt, members), np.isin(pred, members)
        expected = Counts(*(int(m.sum()) for m in (a & b, ~a & b, a & ~b, ~a & ~b)))
        assert region_counts(pairs, members) == expected


def test_ignored_voxels_are_in_no_count():
    gt, pred = np.array([1, 1, 0, 0], np.uint8), np.array([1, 0, 0, 0], np.uint8)
    assert region_counts(pairs_of(gt, pred, 2, num_ignored=1), (1,)) == Counts(tp=1, fp=0, fn=1, tn=1)


def test_values_by_hand():
    counts = Counts(tp=2, fp=1, fn=3, tn=94)
    assert dice(counts) == 4 / 8
    assert sensitivity(counts) == 2 / 5
    assert specificity(counts) == 94 / 95


BOTH, NO_GT, NO_PRED = Counts(0, 0, 0, 9), Counts(0, 3, 0, 6), Counts(0, 0, 3, 6)


@pytest.mark.parametrize("counts, expected", [(BOTH, (1, 1, 1)), (NO_GT, (0, 0, 6 / 9)), (NO_PRED, (0, 0, 1))])
def test_brats_rule(counts, expected):
    assert (dice(counts), sensitivity(counts), specificity(counts)) == expected


def test_nan_rule_leaves_out_only_what_is_undefined():
    assert isnan(dice(BOTH, "nan")) and isnan(sensitivity(BOTH, "nan")) and isnan(sensitivity(NO_GT, "nan"))
    assert dice(NO_GT, "nan") == 0 and dice(NO_PRED, "nan") == 0 and sensitivity(NO_PRED, "nan") == 0


def test_region_that_fills_the_image_has_no_specificity():
    full = Counts(tp=9, fp=0, fn=0, tn=0)
    assert specificity(full) == 1 and isnan(specificity(full, "nan"))
