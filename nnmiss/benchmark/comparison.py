"""From the long table to numbers: each variant's means over seeds, its difference to the reference, dedicated networks."""
from __future__ import annotations

from dataclasses import dataclass, field
from math import nan

import pandas as pd

from nnmiss.availability import all_subsets, subset_name
from nnmiss.benchmark.jobs import Job
from nnmiss.benchmark.seed_statistics import PAIRED_BY, Difference, difference, seed_means, with_holm
from nnmiss.benchmark.variants import FULL
from nnmiss.errors import NnmissError, nearest_names
from nnmiss.evaluation.tables import ordered_regions

ALL, FULL_SET, ONE = "all subsets", "full set", "one modality"


@dataclass
class VariantRows:
    """One variant under one missingness table: what segmentation and classification keep of it.

    subset: of a network for one subset; "" for all others. rows: values in %, columns fold, seed, subset, value; of
    segmentation (Dice) case and region too, of classification (over all classes) metric.
    """

    variant: str
    missing: str
    method: str
    subset: str
    rows: pd.DataFrame
    minutes: list[float]
    parameters: int | None

    @property
    def label(self) -> str:
        return self.variant if self.missing == FULL else f"{self.variant} [{self.missing}]"


@dataclass
class Entry(VariantRows):
    """A variant of a segmentation benchmark."""

    means: dict[str, pd.Series] = field(default_factory=dict)
    """Measure -> mean of each seed."""
    against: Entry | None = None
    """What it is compared with; None for the reference itself and where there is nothing to compare with."""
    differences: dict[str, Difference | None] = field(default_factory=dict)
    """Measure -> difference to `against`."""

    @property
    def reference_mean(self) -> float:
        """Mean over seeds of `against` on the seeds, folds, cases and subsets of this one; NaN without any."""
        if self.against is None:
            return nan
        return float(seed_means(self.against.rows.merge(self.rows[PAIRED_BY].drop_duplicates())).mean())

    @property
    def seeds(self) -> list[int]:
        return sorted(self.rows["seed"].unique())


@dataclass
class Comparison:
    """Everything the tables and the figure show."""

    entries: list[Entry]
    reference: str
    modalities: list[str]
    regions: dict[str, str]
    """Region -> title."""

    @property
    def open(self) -> list[Entry]:
        """Variants that serve every subset."""
        return [entry for entry in self.entries if not entry.subset]

    @property
    def dedicated(self) -> list[Entry]:
        """Networks for one subset."""
        return [entry for entry in self.entries if entry.subset]

    @property
    def measures(self) -> list[str]:
        """The columns of the main table."""
        return [ALL, *(self.regions.values() if len(self.regions) > 1 else []), FULL_SET, ONE]

    def rows_of(self, rows: pd.DataFrame, measure: str) -> pd.DataFrame:
        """What a measure is the mean of."""
        if measure == FULL_SET:
            return rows[rows["subset"] == "+".join(self.modalities)]
        if measure == ONE:
            return rows[rows["subset"].isin(self.modalities)]
        titles = {title: region for region, title in self.regions.items()}
        return rows[rows["region"] == titles[measure]] if measure in titles else rows

    @property
    def subsets(self) -> list[str]:
        """Subsets that any variant has results of, in the order of tables."""
        there = {subset for entry in self.entries for subset in entry.rows["subset"].unique()}
        names = [subset_name(s, self.modalities) for s in all_subsets(len(self.modalities))]
        return [name for name in names if name in there]


def choose_reference(asked: str | None, jobs: list[Job], dedicated: bool = False) -> str:
    """The variant the others are compared with: the one asked for, else the first plain modality_dropout, else the first.

    Args:
        dedicated: a variant for one subset may be asked for; the others are compared with it on that subset.

    Raises NnmissError for a name that is none of the variants', or a dedicated network where that is not allowed.
    """
    if dedicated and asked in {job.variant.name for job in jobs}:
        return asked
    usable = list(dict.fromkeys(job.variant.name for job in jobs if not job.subset))
    if asked is not None:
        if asked not in usable:
            raise NnmissError(f"--reference {asked!r} is none of the variants that serve every subset. "
                              f"{nearest_names(asked, usable)}")
        return asked
    if not usable:
        raise NnmissError("every variant is a network for one subset: add one that serves all, such as modality_dropout")
    plain = [job.variant.name for job in jobs if job.variant.method == "modality_dropout" and job.variant.name in usable]
    return plain[0] if plain else usable[0]


def compare(results: pd.DataFrame, jobs: list[Job], table: pd.DataFrame, reference: str, modalities: list[str],
            regions: list[str]) -> Comparison:
    """Means, differences and tests.

    Args:
        results: long results of `collect.collect_results`.
        jobs: all jobs, which give the order.
        table: `collect.jobs_table`.
        reference: name of a variant. Each variant is compared with it under its own missingness table, or under the
            reference's first one where it was not trained under the same.
        modalities, regions: of the data set.
    """
    dice = results[results["metric"] == "dice"].assign(value=lambda t: 100 * t["value"])
    keys = list(dict.fromkeys((job.variant.name, job.table, job.variant.method, job.subset) for job in jobs))
    entries = []
    for variant, missing, method, subset in keys:
        rows = dice[(dice["variant"] == variant) & (dice["missing"] == missing)]
        own = table[(table["variant"] == variant) & (table["missing"] == missing) & (table["state"] == "finished")]
        if len(rows):
            counted = own["parameters"].dropna()
            entries.append(Entry(variant, missing, method, "+".join(rows["subset"].unique()) if subset else "",
                                 rows, [s / 60 for s in own["seconds"].dropna()],
                                 int(counted.iloc[0]) if len(counted) else None))
    comparison = Comparison(entries, reference, modalities, ordered_regions(regions))
    references = {entry.missing: entry for entry in entries if entry.variant == reference}
    for entry in entries:
        entry.means = {m: seed_means(comparison.rows_of(entry.rows, m)) for m in comparison.measures}
        if entry.variant != reference and references:
            entry.against = references.get(entry.missing, next(iter(references.values())))
    for measure in comparison.measures:
        for group in (comparison.open, comparison.dedicated):
            compared = [entry for entry in group if entry.against is not None]
            found = [difference(comparison.rows_of(entry.rows, measure),
                                comparison.rows_of(entry.against.rows, measure)) for entry in compared]
            for entry, one in zip(compared, with_holm(found)):
                entry.differences[measure] = one
    return comparison
