"""Is one method better than another: the papers' test over subset rows, and tests over cases with effect size."""
from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from math import nan

import numpy as np
from scipy import stats

from nnmiss.errors import NnmissError
from nnmiss.seeding import derive_seed

FEW = 5  # below, resamples repeat cases so often that an interval of the effect size would say nothing
BATCH = 1000  # resamples at a time


@dataclass(frozen=True)
class RowTest:
    """One-tailed paired t-test over the rows of a subset table."""

    p: float
    """Probability of so large an advantage of ours by chance; NaN below 2 rows or where all differ by the same."""
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
    return RowTest(_t_test(_differences(ours, other), "greater" if higher_is_better else "less"), len(ours))


@dataclass(frozen=True)
class CaseTest:
    """Comparison of two methods over cases, each case's mean over its subsets being one sample.

    With fewer than 2 cases, or where all cases differ by the same, nothing but the mean difference (and Wilcoxon's p,
    which needs only signs) is defined: the rest is NaN.
    """

    n: int
    mean_difference: float
    """Ours minus other, in the metric's unit."""
    ci_low: float
    ci_high: float
    """Percentile bootstrap interval (95 %) of the mean difference."""
    p: float
    """Two-sided Wilcoxon signed-rank test, not corrected; NaN also where no case differs."""
    p_t: float
    """Two-sided paired t-test, not corrected."""
    d_z: float
    """Effect size: Cohen's d_z, the mean difference divided by the differences' standard deviation (n - 1)."""
    d_z_low: float
    d_z_high: float
    """BCa bootstrap interval (95 %) of d_z; NaN below `FEW` cases and where it degenerates, see `effect_size_interval`."""


def case_level_test(ours: np.ndarray, other: np.ndarray, seed: int = 0) -> CaseTest:
    """Wilcoxon signed-rank and paired t-test (two-sided), mean difference and effect size with bootstrap intervals.

    Args:
        ours, other: (cases,) mean over subsets of each case, in the same order; NaN pairs are left out.
        seed: of the resamples.
    """
    difference = _differences(*_paired(ours, other))
    if not len(difference):
        return CaseTest(0, *[nan] * 8)
    p, interval, effect, effect_interval = nan, (nan, nan), nan, (nan, nan)
    if len(difference) > 1 and np.any(difference):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scipy warns of few samples and of ties; n is reported
            p = float(stats.wilcoxon(difference, alternative="two-sided").pvalue)
    if np.ptp(difference) > 0:
        interval, effect = bootstrap_interval(difference, seed), float(cohens_d_z(difference))
        if len(difference) >= FEW:
            effect_interval = effect_size_interval(difference, seed)
    return CaseTest(len(difference), float(difference.mean()), *interval, p, _t_test(difference, "two-sided"), effect,
                    *effect_interval)


def cohens_d_z(differences: np.ndarray) -> np.ndarray:
    """(..., n) paired differences -> (...,) mean divided by standard deviation (n - 1); NaN or infinite without spread."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return differences.mean(-1) / differences.std(-1, ddof=1)


def bootstrap_interval(samples: np.ndarray, seed: int = 0, level: float = 0.95,
                       resamples: int = 10_000) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of (n,) samples; the same seed gives the same interval."""
    means = _bootstrap(np.asarray(samples, float), lambda drawn: drawn.mean(-1), seed, resamples)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def effect_size_interval(differences: np.ndarray, seed: int = 0, level: float = 0.95,
                         resamples: int = 10_000) -> tuple[float, float]:
    """Bias-corrected and accelerated (BCa) bootstrap interval of `cohens_d_z` of (n,) differences, n > 2, not all equal.

    A resample that repeats one case has no spread and thus no d_z: it is left out. The correction is needed because
    resamples have less spread than the sample. Source: Efron 1987, Better bootstrap confidence intervals.

    NaN where it degenerates: where more than half of the differences are equal, d_z of a resample is decided by how often
    the few others are drawn; where the interval does not reach to both sides of d_z, the correction has run out of range.
    """
    if np.unique(differences, return_counts=True)[1].max() > len(differences) / 2:
        return nan, nan
    drawn = _bootstrap(differences, cohens_d_z, seed, resamples)
    drawn, estimate = drawn[np.isfinite(drawn)], cohens_d_z(differences)
    near = np.isclose(drawn, estimate, rtol=1e-9)  # the sample in another order: half counts, whatever the rounding
    below = (np.sum((drawn < estimate) & ~near) + near.sum() / 2) / len(drawn)
    bias = stats.norm.ppf(np.clip(below, 1 / len(drawn), 1 - 1 / len(drawn)))
    without_one = cohens_d_z(np.array([np.delete(differences, i) for i in range(len(differences))]))
    influence = without_one[np.isfinite(without_one)]
    influence = influence.mean() - influence
    spread = np.sum(influence ** 2)
    acceleration = np.sum(influence ** 3) / (6 * spread ** 1.5) if spread else 0.0
    z = bias + stats.norm.ppf([(1 - level) / 2, (1 + level) / 2])
    low, high = np.quantile(drawn, stats.norm.cdf(bias + z / (1 - acceleration * z)))
    within = low < estimate < high and not np.isclose([low, high], estimate, rtol=1e-9).any()
    return (float(low), float(high)) if within else (nan, nan)


def _bootstrap(samples: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], seed: int,
               resamples: int) -> np.ndarray:
    """(resamples,) values of a statistic, computed in batches to bound memory."""
    generator = np.random.default_rng(derive_seed("evaluation bootstrap", seed))
    sizes = [min(BATCH, resamples - start) for start in range(0, resamples, BATCH)]
    return np.concatenate([statistic(samples[generator.integers(0, len(samples), (size, len(samples)))])
                           for size in sizes])


def _t_test(differences: np.ndarray, alternative: str) -> float:
    """p of the paired t-test; NaN below 2 samples and where all differences are equal."""
    if len(differences) < 2 or np.ptp(differences) == 0:
        return nan
    return float(stats.ttest_1samp(differences, 0, alternative=alternative).pvalue)


def _differences(ours: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Ours minus other, without the rounding errors of the means (12 digits stay): equal must be equal for the tests."""
    scale = max(np.abs(ours).max(initial=0), np.abs(other).max(initial=0)) or 1.0
    return np.round((ours - other) / scale, 12) * scale


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
