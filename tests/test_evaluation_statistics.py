"""The papers' published p-values, and the tests over cases against their definitions."""
from __future__ import annotations

from math import isnan

import numpy as np
import pytest

from nnmiss.errors import NnmissError
from nnmiss.evaluation.statistics import bootstrap_interval, case_level_test, holm, subset_row_test
from nnmiss.evaluation.tables import p_text

NA = float("nan")
# Enhancing tumour columns of MetaKD's tables (Dice in %), rows in the papers' order
TABLE_1 = {
    "HMIS": [11.78, 10.16, 62.02, 25.63, 10.71, 66.10, 30.22, 66.22, 32.39, 67.83, 68.54, 31.07, 68.72, 69.92, 70.24],
    "ShaSpec": [43.52, 41.00, 73.29, 46.31, 44.76, 75.60, 47.20, 75.76, 46.84, 75.95, 76.42, 46.55, 75.99, 76.37, 78.08],
    "MetaKD": [47.37, 44.94, 76.22, 46.93, 49.64, 77.49, 50.27, 75.41, 49.77, 78.24, 77.66, 51.05, 75.58, 75.87, 79.74],
}
TABLE_4 = {
    "WoCM": [13.8, 0.9, 36.2, 3.8, 1.8, 48.7, 6.9, 39.7, 1.0, 48.4, 55.5, 1.7, 52.2, 53.1, 69.1],
    "MVAE": [25.2, 14.2, 66.4, 30.8, 25.1, 70.2, 35.0, 68.0, 31.8, 70.5, 71.5, 34.5, 71.4, 71.6, NA],
    "MetaKD": [41.46, 40.76, 73.19, 44.30, 45.23, 72.85, 45.45, 71.62, 46.56, 72.82, 73.00, 46.90, 72.31, 71.70, 73.02],
}
TABLE_5 = {
    "HVED": [20.87, 12.33, 66.59, 28.70, 22.53, 69.53, 30.48, 67.82, 28.73, 68.74, 71.32, 30.60, 69.84, 69.74, 70.50],
    "RFNet": [38.15, 37.30, 74.85, 46.29, 40.98, 76.67, 49.32, 78.01, 45.65, 75.93, 76.81, 49.92, 77.12, 76.99, 78.00],
    "MetaKD": [42.41, 42.72, 77.64, 46.65, 43.57, 77.77, 49.15, 77.51, 46.03, 77.80, 77.48, 50.14, 77.87, 77.31, 78.01],
}


@pytest.mark.parametrize("table, other, n, printed", [
    (TABLE_4, "WoCM", 15, "7.5e-8"), (TABLE_4, "MVAE", 14, "4.2e-4"),  # the N/A row is left out
    (TABLE_5, "HVED", 15, "1.1e-6"), (TABLE_5, "RFNet", 15, "4.7e-3"),
])
def test_published_p_values_of_metakd_tables_4_and_5(table, other, n, printed):
    test = subset_row_test(table["MetaKD"], table[other])
    assert (p_text(test.p), test.n) == (printed, n)


@pytest.mark.parametrize("other, without, printed", [("HMIS", "1.0e-5", "3.5e-6"), ("ShaSpec", "1.7e-4", "7.3e-5")])
def test_metakd_table_1_counted_its_average_row_as_a_sample(other, without, printed):
    ours = TABLE_1["MetaKD"]
    plain, with_average = (subset_row_test(ours, TABLE_1[other], include_average=a) for a in (False, True))
    assert (p_text(plain.p), plain.n) == (without, 15)
    assert (p_text(with_average.p), with_average.n) == (printed, 16)


def test_row_test_for_distances_asks_whether_ours_is_smaller():
    ours, other = np.array([1.0, 2, 3, 4.5]), np.array([2.0, 3, 5, 5])
    smaller, larger = subset_row_test(ours, other, higher_is_better=False), subset_row_test(ours, other)
    assert smaller.p < 0.05 < larger.p and smaller.p + larger.p == pytest.approx(1)


def test_row_test_without_differences_or_rows_is_undefined():
    assert isnan(subset_row_test([1, 2, 3], [1, 2, 3]).p)
    assert isnan(subset_row_test([1], [0]).p)
    with pytest.raises(NnmissError, match="as many values"):
        subset_row_test([1, 2], [1])


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1, 1]
    corrected = holm([NA, 0.02])
    assert isnan(corrected[0]) and corrected[1] == 0.02


def test_case_level_test_finds_a_shift_and_its_size():
    rng = np.random.default_rng(0)
    other = rng.uniform(0.4, 0.8, 30)
    shift = 0.05 + rng.normal(0, 0.03, 30)
    test = case_level_test(np.append(other + shift, NA), np.append(other, 1))
    assert test.n == 30 and test.p < 1e-4
    assert test.mean_difference == pytest.approx(shift.mean())
    assert test.ci_low < shift.mean() < test.ci_high


def test_case_level_wilcoxon_is_exact_for_few_cases():
    assert case_level_test([2, 3, 4, 5.5, 7], [1, 1, 1, 1, 1]).p == pytest.approx(2 / 2**5)  # all 5 of one sign
    assert isnan(case_level_test([1, 2], [1, 2]).p)
    assert isnan(case_level_test([NA], [1]).mean_difference)


def test_bootstrap_interval_is_near_the_normal_one_and_repeats():
    samples = np.random.default_rng(1).normal(3, 2, 200)
    low, high = bootstrap_interval(samples, seed=5)
    half = 1.96 * samples.std() / np.sqrt(200)
    assert (low, high) == pytest.approx((samples.mean() - half, samples.mean() + half), abs=0.03)
    assert (low, high) == bootstrap_interval(samples, seed=5) != bootstrap_interval(samples, seed=6)
