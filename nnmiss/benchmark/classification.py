"""From the results of a classification's jobs to numbers: means over seeds, and differences to the reference."""
from __future__ import annotations

from dataclasses import dataclass, field
from math import nan

import numpy as np
import pandas as pd
from scipy import stats

from nnmiss.availability import AVAILABLE
from nnmiss.benchmark.comparison import VariantRows
from nnmiss.benchmark.jobs import Job
from nnmiss.benchmark.seed_statistics import FEWEST_SEEDS
from nnmiss.evaluation.classification.conventions import ALL
from nnmiss.evaluation.classification.folders import subset_order
from nnmiss.evaluation.classification.tables import main_pair
from nnmiss.evaluation.statistics import holm

MEAN, WHOLE = "mean over subsets", "all modalities"


@dataclass(frozen=True)
class SeedDifference:
    """One variant minus the reference, on the seeds (or folds), folds and subsets that both have; percentage points.

    low, high: 95 % interval of Student's t. p: two-sided paired t-test. All NaN with fewer than FEWEST_SEEDS values and
    where all differ alike. p_holm: corrected over the variants compared.
    """

    mean: float
    low: float
    high: float
    p: float
    p_holm: float
    per_unit: dict[str, float]


@dataclass
class Entry(VariantRows):
    """A variant of a classification benchmark.

    differences: (measure, metric) -> difference to `against`; None where nothing is common.
    """

    against: Entry | None = None
    differences: dict[tuple[str, str], SeedDifference | None] = field(default_factory=dict)


@dataclass
class Comparison:
    """Everything the tables and the figure show.

    unit: what is repeated, "seed", or "fold" where there is one seed. task, modalities: of the data set.
    """

    entries: list[Entry]
    reference: str
    task: str
    modalities: list[str]
    unit: str

    @property
    def measures(self) -> list[str]:
        """Columns of the main table that any variant has a value of."""
        there = set(self.subsets)
        names = [MEAN, WHOLE, *self.modalities, AVAILABLE]
        return [m for m in names if m == MEAN or ("+".join(self.modalities) if m == WHOLE else m) in there]

    @property
    def metrics(self) -> tuple[str, str]:
        return main_pair(self.task)

    @property
    def subsets(self) -> list[str]:
        """Subsets that any variant has results of, in the order of tables."""
        there = {subset for entry in self.entries for subset in entry.rows["subset"].unique()}
        return [name for name in subset_order(self.modalities) if name in there]

    def units(self, entry: Entry, measure: str, metric: str) -> pd.Series:
        """Value of each seed (or fold): mean over folds of each subset, then over the measure's subsets."""
        return self._mean_of(self._of(entry.rows, measure, metric))

    def _of(self, rows: pd.DataFrame, measure: str, metric: str) -> pd.DataFrame:
        rows = rows[(rows["metric"] == metric) & rows["value"].notna()]
        if measure == MEAN:
            return rows[rows["subset"] != AVAILABLE]
        return rows[rows["subset"] == ("+".join(self.modalities) if measure == WHOLE else measure)]

    def _mean_of(self, rows: pd.DataFrame) -> pd.Series:
        return rows.groupby([self.unit, "subset"])["value"].mean().groupby(self.unit).mean()

    def difference(self, entry: Entry, measure: str, metric: str) -> SeedDifference | None:
        """`entry` minus what it is compared with, paired by seed, fold and subset."""
        keys = ["seed", "fold", "subset"]
        ours, other = (self._of(e.rows, measure, metric)[[*keys, "value"]] for e in (entry, entry.against))
        both = ours.merge(other, on=keys, suffixes=("", "_other"))
        if both.empty:
            return None
        both["value"] -= both.pop("value_other")
        values = self._mean_of(both)
        low, high, p = t_interval(values.to_numpy())
        return SeedDifference(float(values.mean()), low, high, p, nan, {str(u): float(v) for u, v in values.items()})


def t_interval(values: np.ndarray) -> tuple[float, float, float]:
    """(low, high, p): 95 % interval of the mean of (n,) differences and the t-test that it is 0, by Student's t."""
    if len(values) < FEWEST_SEEDS or np.ptp(values) < 1e-9:  # without spread there is no test
        return nan, nan, nan
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half), float(stats.ttest_1samp(values, 0.0).pvalue)


def compare(results: pd.DataFrame, jobs: list[Job], table: pd.DataFrame, reference: str, task: str,
            modalities: list[str]) -> Comparison:
    """Means, differences and tests.

    Args:
        results: of `classification_results.collect_results`.
        table: `collect.jobs_table`.
        reference: name of a variant. Each variant is compared with it under its own missingness table, or under the
            reference's first one where it was not trained under the same.
    """
    overall = results[results["label"] == ALL].assign(value=lambda t: 100 * t["value"])
    keys = list(dict.fromkeys((job.variant.name, job.table, job.variant.method, job.subset) for job in jobs))
    entries = []
    for variant, missing, method, subset in keys:
        rows = overall[(overall["variant"] == variant) & (overall["missing"] == missing)]
        if subset:  # what there is of other modalities, this model does not see
            rows = rows[rows["subset"] != AVAILABLE]
        own = table[(table["variant"] == variant) & (table["missing"] == missing) & (table["state"] == "finished")]
        counted = own["parameters"].dropna()
        if len(rows):
            entries.append(Entry(variant, missing, method, "+".join(rows["subset"].unique()) if subset else "", rows,
                                 [s / 60 for s in own["seconds"].dropna()], int(counted.iloc[0]) if len(counted) else None))
    unit = "fold" if results["seed"].nunique() == 1 and results["fold"].nunique() > 1 else "seed"
    comparison = Comparison(entries, reference, task, modalities, unit)
    references = {entry.missing: entry for entry in entries if entry.variant == reference}
    compared = [entry for entry in entries if entry.variant != reference and references]
    for entry in compared:
        entry.against = references.get(entry.missing, next(iter(references.values())))
    for metric in comparison.metrics:
        for measure in dict.fromkeys([*comparison.measures, *(s for s in comparison.subsets if s != "+".join(modalities))]):
            alone = [measure == MEAN and bool(entry.subset or entry.against.subset) for entry in compared]
            found = [None if skip else comparison.difference(entry, measure, metric)
                     for entry, skip in zip(compared, alone)]
            corrected = iter(holm([d.p for d in found if d is not None]))
            for entry, d in zip(compared, found):
                entry.differences[measure, metric] = d and SeedDifference(**{**vars(d), "p_holm": next(corrected)})
    return comparison
