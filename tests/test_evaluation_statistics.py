"""The tests over cases and over rows against their definitions; the papers' p-values are in test_metakd_tables.py."""
from __future__ import annotations

import warnings
from itertools import product
from math import isnan

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from nnmiss.errors import NnmissError
from nnmiss.evaluation.comparison import compare_methods, comparison_markdown, comparison_rows
from nnmiss.evaluation.conventions import Conventions
from nnmiss.evaluation.statistics import (
    FEW,
    bootstrap_interval,
    case_level_test,
    cohens_d_z,
    effect_size_interval,
    holm,
    subset_row_test,
)

NA = float("nan")


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


def test_wilcoxon_is_the_share_of_sign_flips_that_are_as_extreme():
    difference = np.random.default_rng(4).normal(0.4, 1, 9)
    ranks = np.abs(difference).argsort().argsort() + 1
    sums = np.array([np.dot(signs, ranks) for signs in product([-1, 1], repeat=9)])
    expected = np.mean(np.abs(sums) >= abs(np.dot(np.sign(difference), ranks)))
    assert case_level_test(difference + 3, np.full(9, 3)).p == pytest.approx(expected)


def test_paired_t_and_d_z_by_their_formulas():
    ours, other = np.random.default_rng(5).normal([[0.3], [0]], 1, (2, 12))
    difference = ours - other
    d_z = difference.mean() / np.sqrt(np.sum((difference - difference.mean()) ** 2) / 11)
    test = case_level_test(ours, other)
    assert test.d_z == pytest.approx(d_z)
    assert test.p_t == pytest.approx(2 * stats.t.sf(abs(d_z) * np.sqrt(12), 11))


@pytest.mark.parametrize("n", [8, 30])
def test_effect_size_interval_is_scipys_bca(n):
    difference = np.random.default_rng(n).normal(0.5, 1, n) + np.random.default_rng(1).exponential(1, n)
    with np.errstate(all="ignore"):
        reference = stats.bootstrap((difference,), cohens_d_z, n_resamples=20_000, batch=1000, method="BCa",
                                    random_state=np.random.default_rng(7)).confidence_interval
    assert effect_size_interval(difference) == pytest.approx((reference.low, reference.high), abs=0.06)
    test = case_level_test(difference, np.zeros(n))
    assert test.d_z_low < test.d_z < test.d_z_high
    assert (test.d_z_low, test.d_z_high) == pytest.approx(effect_size_interval(difference))


@pytest.mark.parametrize("ours, other, mean, wilcoxon", [
    ([], [], NA, NA),
    ([NA, 1], [1, NA], NA, NA),
    ([0.7], [0.5], 0.2, NA),  # one case
    ([0.5, 0.7, 0.9], [0.5, 0.7, 0.9], 0, NA),  # equal methods
    ([0.6, 0.7, 0.8, 0.9], [0.5, 0.6, 0.7, 0.8], 0.1, 2 / 2**4),  # no spread but for rounding errors
    ([0, 0], [0, 0], 0, NA),
])
def test_degenerate_input_is_undefined_without_warnings(ours, other, mean, wilcoxon):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        test = case_level_test(np.array(ours, float), np.array(other, float))
        row = subset_row_test(np.array(ours, float), np.array(other, float))
    assert test.mean_difference == pytest.approx(mean, nan_ok=True) and test.p == pytest.approx(wilcoxon, nan_ok=True)
    assert all(map(isnan, (test.ci_low, test.ci_high, test.p_t, test.d_z, test.d_z_low, test.d_z_high, row.p)))


def test_effect_size_of_few_cases_has_no_interval():
    values = np.arange(FEW) ** 2
    few, enough = case_level_test(values[1:], np.zeros(FEW - 1)), case_level_test(values, np.zeros(FEW))
    assert np.isfinite([few.d_z, few.ci_low, few.p_t]).all() and isnan(few.d_z_low) and isnan(few.d_z_high)
    assert np.isfinite([enough.d_z_low, enough.d_z_high]).all()


@pytest.mark.parametrize("differences", [
    [0.0] * 11 + [-0.3],  # one case decides
    [0.0] * 7 + [-0.3, -0.2, -0.4, -0.1, -0.2],  # most are equal
    [0.1] * 20 + [0.1 + 1e-15] * 9 + [0.4],  # equal but for rounding
])
def test_effect_size_of_mostly_equal_differences_has_no_interval(differences):
    test = case_level_test(np.array(differences) + 0.5, np.full(len(differences), 0.5))
    assert np.isfinite([test.d_z, test.ci_low, test.ci_high]).all() and isnan(test.d_z_low) and isnan(test.d_z_high)


def test_effect_size_interval_holds_the_effect_size_or_is_not_given():
    rng = np.random.default_rng(0)
    given = 0
    for n in (5, 6, 8, 12) * 5:
        values = np.round(rng.exponential(1, n) * rng.choice([-1, 0, 0, 1], n), 2)  # ties, zeros, outliers
        test = case_level_test(values, np.zeros(n))
        assert isnan(test.d_z_low) == isnan(test.d_z_high)
        assert isnan(test.d_z_low) or test.d_z_low < test.d_z < test.d_z_high
        given += not isnan(test.d_z_low)
    assert given > 5


def results(values: np.ndarray, metric: str = "dice") -> pd.DataFrame:
    """(cases, subsets) values as long results of one region."""
    return pd.DataFrame([(f"case{i}", subset, "core", metric, value) for i, row in enumerate(values)
                         for subset, value in zip(("flair", "t1"), row)],
                        columns=["case", "subset", "region", "metric", "value"])


def test_comparison_corrects_both_tests_over_methods_and_prints_them():
    rng = np.random.default_rng(0)
    ours = rng.uniform(0.5, 0.9, (12, 2))
    methods = {"ours": results(ours), **{name: results(ours - rng.normal(shift, 0.05, (12, 2)))
                                         for name, shift in (("x", 0.05), ("y|z", 0.01))}}
    entries = compare_methods(methods, ["core"], ["dice"])
    for key in ("p", "p_t"):
        assert [e["case_test"][f"{key}_holm"] for e in entries] == holm([e["case_test"][key] for e in entries])
    text = comparison_markdown(entries)
    header, _, *lines = [line for line in text.splitlines() if line.startswith("|")]
    assert "d_z" in header and "t-test p" in header and "better" not in text
    assert {line.replace(r"\|", "").count("|") for line in (header, *lines)} == {13} and len(lines) == 2
    assert f"{entries[0]['case_test']['d_z']:+.2f}" in lines[0] and r"y\|z" in lines[1]


@pytest.mark.parametrize("metric, title", [("lesion_dice", "lesion-wise Dice (%)"),
                                           ("lesion_hd95", "lesion-wise HD95 (mm)"),
                                           ("surface_dice", "surface dice"), ("hd95", "HD95 (voxels)"),
                                           ("sensitivity", "sensitivity (%)")])
def test_comparison_takes_any_metric(metric, title):
    values = np.random.default_rng(0).uniform(size=(6, 2))
    entries = compare_methods({"ours": results(values, metric), "x": results(values ** 2, metric)}, ["core"], [metric])
    text = comparison_markdown(entries, Conventions(hd95_unit="voxels"))
    assert f"| {title} | core | x | 6 |" in text and ("negative is better" in text) == metric.endswith("hd95")
    assert [row[0] for row in comparison_rows(entries)] == [title.replace(" (voxels)", "")]  # not known


def test_cases_are_compared_over_the_subsets_in_which_both_are_defined():
    ours, other = np.array([[0.9, NA], [0.8, 0.2], [NA, NA]]), np.array([[0.8, 0.1], [0.7, 0.2], [0.5, 0.5]])
    entry, = compare_methods({"ours": results(ours), "x": results(other)}, ["core"], ["dice"])
    assert entry["case_test"]["n"] == 2
    assert entry["case_test"]["mean_difference"] == pytest.approx((0.1 + 0.05) / 2)  # case0 over flair alone


def test_a_region_or_metric_without_values_is_undefined_not_an_error():
    values = np.ones((3, 2))
    methods = {"ours": results(values), "x": results(values).assign(region="liver")}
    core, = compare_methods(methods, ["core"], ["dice"])
    assert core["case_test"]["n"] == core["row_test"]["n"] == 0 and "| 0 | - | - |" in comparison_markdown([core])
    assert compare_methods(methods, ["core"], ["hd95"]) == compare_methods(methods, ["liver"], ["dice"]) == []
