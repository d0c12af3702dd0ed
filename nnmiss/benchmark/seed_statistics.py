"""Statistics over seeds: a method is its training repeated, not one trained network."""
from __future__ import annotations

import warnings
from dataclasses import dataclass
from math import nan

import numpy as np
import pandas as pd
from scipy import stats

from nnmiss.evaluation.statistics import holm
from nnmiss.seeding import derive_seed

FEWEST_SEEDS = 3  # for a test over seeds
PAIRED_BY = ["seed", "fold", "case", "subset", "region"]
CHUNK = 500  # resamples drawn at once


@dataclass(frozen=True)
class Difference:
    """One variant minus the reference, on what both have."""

    mean: float
    """Mean over seeds, in the metric's unit."""
    ci_low: float
    ci_high: float
    """Bootstrap 95 % interval over seeds and cases; over cases alone where there is one seed."""
    p: float
    """Two-sided paired t-test over seed means; NaN with fewer than three seeds or where all differ alike."""
    p_holm: float
    """`p`, corrected over the variants compared; NaN until `with_holm`."""
    per_seed: dict[int, float]
    n_cases: int
    n_pairs: int
    """(seed, fold, case, subset) pairs."""


def seed_means(rows: pd.DataFrame) -> pd.Series:
    """Mean of each seed: over the cases (of all folds) of each subset and region, then over these.

    Args:
        rows: columns of `PAIRED_BY` and value; undefined values (NaN) are left out.

    Returns:
        (seeds,) indexed by seed.
    """
    cells = rows.dropna(subset="value").groupby(["seed", "subset", "region"])["value"].mean()
    return cells.groupby("seed").mean()


def paired(ours: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """Rows that both have, with value = ours - other; pairs where one is undefined are left out."""
    both = ours[[*PAIRED_BY, "value"]].merge(other[[*PAIRED_BY, "value"]], on=PAIRED_BY, suffixes=("", "_other"))
    both["value"] -= both.pop("value_other")
    return both.dropna(subset="value")


def difference(ours: pd.DataFrame, other: pd.DataFrame, resamples: int = 10_000) -> Difference | None:
    """Compares two variants, paired by seed, fold, case, subset and region. None when nothing is common."""
    rows = paired(ours, other)
    if rows.empty:
        return None
    means = seed_means(rows)
    p = nan
    if len(means) >= FEWEST_SEEDS and np.ptp(means) > 1e-9:  # else every seed differs by the same, to rounding
        p = float(stats.ttest_1samp(means, 0.0).pvalue)
    pairs = rows[["seed", "fold", "case", "subset"]].drop_duplicates()
    return Difference(float(means.mean()), *hierarchical_interval(rows, resamples=resamples), p, nan,
                      {int(seed): float(value) for seed, value in means.items()}, rows["case"].nunique(), len(pairs))


def with_holm(differences: list[Difference | None]) -> list[Difference | None]:
    """The same with `p_holm` filled in over the list (None and undefined p do not count)."""
    corrected = iter(holm([d.p for d in differences if d is not None]))
    return [None if d is None else Difference(**{**vars(d), "p_holm": next(corrected)}) for d in differences]


def hierarchical_interval(rows: pd.DataFrame, seed: int = 0, level: float = 0.95,
                          resamples: int = 10_000) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean over seeds of `seed_means`: seeds and cases are both drawn again.

    The cases are drawn once per resample, for all seeds: the seeds saw the same patients, so a patient who is easy is easy
    under each of them. (Drawing them anew within each seed would average that away and make intervals too narrow. Owen,
    "The pigeonhole bootstrap", 2007: this one errs to the wide side.) With one seed only cases are drawn.

    Args:
        rows: columns of `PAIRED_BY` and value, as from `paired`.
        seed: of the resampling; the same seed gives the same interval.

    Returns:
        (low, high); NaN without rows.
    """
    rows = rows.dropna(subset="value")
    seeds, cases = sorted(rows["seed"].unique()), sorted(rows["case"].unique())
    if not seeds:
        return nan, nan
    tables = [_table(rows[rows["seed"] == s], cases) for s in seeds]
    generator = np.random.default_rng(derive_seed("benchmark bootstrap", seed))
    drawn = []
    for start in range(0, resamples, CHUNK):
        size = min(CHUNK, resamples - start)
        case_counts = generator.multinomial(len(cases), np.full(len(cases), 1 / len(cases)), size)  # (size, cases)
        seed_counts = generator.multinomial(len(seeds), np.full(len(seeds), 1 / len(seeds)), size)  # (size, seeds)
        means = np.stack([_weighted_means(table, case_counts) for table in tables], 1)  # (size, seeds)
        seed_counts = np.where(np.isfinite(means), seed_counts, 0)
        with np.errstate(invalid="ignore"):
            drawn.append((np.nan_to_num(means) * seed_counts).sum(1) / seed_counts.sum(1))
    low, high = np.nanquantile(np.concatenate(drawn), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _table(rows: pd.DataFrame, cases: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """(row values (rows, cells), row's position among the cases): a row per fold and case, a cell per subset and region."""
    table = rows.pivot_table(index=["fold", "case"], columns=["subset", "region"], values="value", aggfunc="mean")
    place = {case: i for i, case in enumerate(cases)}
    return table.to_numpy(float), np.array([place[case] for _, case in table.index])


def _weighted_means(table: tuple[np.ndarray, np.ndarray], case_counts: np.ndarray) -> np.ndarray:
    """(resamples,) `seed_means` of one seed with each case counted as often as it was drawn; NaN where nothing was."""
    values, place = table
    weights = case_counts[:, place].astype(float)  # (resamples, rows)
    total, n = weights @ np.nan_to_num(values), weights @ np.isfinite(values).astype(float)  # (resamples, cells)
    with np.errstate(invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a resample may hold no case of any cell
        return np.nanmean(np.where(n > 0, total / n, np.nan), 1)
