"""Is one method better than another: the papers' test over subset rows, and tests over cases with effect size."""
from __future__ import annotations

import warnings
from dataclasses import dataclass
from math import nan

import numpy as np
from scipy import stats

from nnmiss.errors import NnmissError
from nnmiss.seeding import derive_seed


@dataclass(frozen=True)
class RowTest:
    """One-tailed paired t-test over the rows of a subset table."""

    p: float
    """Probability of so large an advantage of ours by chance; NaN where it is not defined."""
    n: int
    """Samples: rows that both methods have, plus 1 with the average row."""


def subset_row_test(ours: np.ndarray, other: np.ndarray, higher_is_better: bool = True,
                    include_average: bool = False) -> RowTest:
    """MetaKD's test: one-tailed paired t-test over the subset rows, rows that one method lacks (NaN) left out.

    The rows are means over the same patients and thus not independent: report `case_level_test` too.

    Args:
        ours, other: (subsets,) means per row.
        higher_is_better: True for Dice, False for HD95.
        include_average: counts the average row as one more sample, which is what reproduces the p-values printed in
            MetaKD's Table 1 (its Tables 4 and 5 are reproduced without).
    """
    ours, other = _paired(ours, other)
    if include_average and len(ours):
        ours, other = np.append(ours, ours.mean()), np.append(other, other.mean())
    if len(ours) < 2 or np.ptp(ours - other) == 0:
        return RowTest(nan, len(ours))
    return RowTest(float(stats.ttest_rel(ours, other, alternative="greater" if higher_is_better else "less").pvalue),
                   len(ours))


@dataclass(frozen=True)
class CaseTest:
    """Comparison of two methods over cases, each case's mean over its subsets being one sample."""

    n: int
    mean_difference: float
    """Ours minus other, in the metric's unit."""
    ci_low: float
    ci_high: float
    """Bootstrap interval of the mean difference."""
    p: float
    """Two-sided Wilcoxon signed-rank test, not corrected; NaN where no case differs or n < 2."""


def case_level_test(ours: np.ndarray, other: np.ndarray, seed: int = 0) -> CaseTest:
    """Wilcoxon signed-rank test (two-sided) and bootstrap 95 % interval of the mean difference.

    Args:
        ours, other: (cases,) mean over subsets of each case, in the same order; NaN pairs are left out.
    """
    ours, other = _paired(ours, other)
    difference = ours - other
    if not len(difference):
        return CaseTest(0, nan, nan, nan, nan)
    p = nan
    if len(difference) > 1 and np.any(difference):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scipy warns of few samples and of ties; n is reported
            p = float(stats.wilcoxon(difference, alternative="two-sided").pvalue)
    return CaseTest(len(difference), float(difference.mean()), *bootstrap_interval(difference, seed), p)


def bootstrap_interval(samples: np.ndarray, seed: int = 0, level: float = 0.95,
                       resamples: int = 10_000) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of (n,) samples; the same seed gives the same interval."""
    samples = np.asarray(samples, float)
    generator = np.random.default_rng(derive_seed("evaluation bootstrap", seed))
    means = np.array([samples[generator.integers(0, len(samples), len(samples))].mean() for _ in range(resamples)])
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def holm(p_values: list[float]) -> list[float]:
    """Holm's step-down correction for several comparisons; NaN stay NaN and do not count."""
    p_values = np.asarray(p_values, float)
    corrected = np.full(len(p_values), nan)
    order = [i for i in np.argsort(p_values) if np.isfinite(p_values[i])]
    running = 0.0
    for rank, i in enumerate(order):
        running = max(running, min(1.0, (len(order) - rank) * p_values[i]))
        corrected[i] = running
    return corrected.tolist()


def _paired(ours: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    ours, other = np.asarray(ours, float), np.asarray(other, float)
    if ours.shape != other.shape:
        raise NnmissError(f"a paired test needs as many values of both methods, got {ours.shape} and {other.shape}")
    both = np.isfinite(ours) & np.isfinite(other)
    return ours[both], other[both]
