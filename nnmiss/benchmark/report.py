"""The tables of a benchmark as text: means over seeds, differences, dedicated networks, subsets."""
from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

import pandas as pd

from nnmiss.availability import parse_subset
from nnmiss.benchmark.comparison import ALL, Comparison, Entry
from nnmiss.benchmark.seed_statistics import FEWEST_SEEDS, Difference, seed_means
from nnmiss.benchmark.variants import FULL
from nnmiss.evaluation.markup import circles
from nnmiss.evaluation.tables import UNDEFINED, number_text, p_text


@dataclass(frozen=True)
class Table:
    """A title, what it says of itself, and its cells as text."""

    title: str
    caption: str
    header: list[str]
    lines: list[list[str]]
    left: int = 1
    """Columns that are text."""


def tables(comparison: Comparison) -> list[Table]:
    """The tables of a benchmark that have a row, in the order of the page."""
    made = [summary_table(comparison), difference_table(comparison), dedicated_table(comparison), subset_table(comparison)]
    return [table for table in made if table.lines]


def summary_table(comparison: Comparison) -> Table:
    """A row per variant: mean +- standard deviation over seeds of each measure, cost, n."""
    lines = []
    for entry in comparison.open:
        cells = [mean_text(entry.means[measure]) for measure in comparison.measures]
        lines.append([entry.variant, entry.missing, *cells, *_cost(entry), *_counts(entry)])
    caption = ("Dice (%) by variant: mean over seeds, with the standard deviation of the seeds' means where there are at "
               "least two. A seed's mean is over the cases of all its folds for each subset and region, then over these.")
    return _without_missing(comparison, Table("Means over seeds", caption, [
        "variant", "missing", *comparison.measures, "minutes", "parameters (M)", "seeds", "folds", "cases"], lines, 2))


def difference_table(comparison: Comparison) -> Table:
    """A row per variant and measure: difference to the reference, interval, p, n."""
    lines = []
    for measure in comparison.measures:
        for entry in comparison.open:
            if entry.against is not None:
                lines.append([entry.label, entry.against.label, measure,
                              *difference_cells(entry.differences.get(measure), entry)])
    caption = (f"Difference in Dice (percentage points) to {comparison.reference}, paired by seed, fold, case, subset and "
               "region. Interval: 95 %, bootstrap over seeds and cases (over cases alone with one seed: it then says "
               f"nothing of other seeds). p: two-sided paired t-test over the seeds' means, from {FEWEST_SEEDS} seeds on; "
               "Holm: corrected over the variants of one measure. With few seeds a large p says nothing.")
    return Table("Differences to the reference", caption,
                 ["variant", "against", "measure", "difference", "95 % interval", "p", "Holm p", "seeds", "cases"],
                 lines, 3)


def dedicated_table(comparison: Comparison) -> Table:
    """A row per network for one subset: its Dice, the reference's on the same cases, the difference."""
    lines = []
    for entry in comparison.dedicated:
        lines.append([entry.label, entry.subset, mean_text(entry.means[ALL]), number_text(entry.reference_mean),
                      *difference_cells(entry.differences.get(ALL), entry), _cost(entry)[0]])
    caption = (f"Networks trained for one subset only, against {comparison.reference} on that subset: Dice (%) over "
               "regions, on the cases, seeds and folds both have. Tests as above, Holm over these networks.")
    return Table("Dedicated networks", caption,
                 ["variant", "subset", "Dice", "reference", "difference", "95 % interval", "p", "Holm p", "seeds", "cases",
                  "minutes"], lines, 2)


def subset_table(comparison: Comparison) -> Table:
    """A row per subset of modalities, a column per variant: mean over regions, cases and seeds."""
    lines = []
    for subset in comparison.subsets:
        values, n = [], 0
        for entry in comparison.open:
            of_subset = entry.rows[entry.rows["subset"] == subset]
            values.append(number_text(float(seed_means(of_subset).mean())))
            n = max(n, of_subset["case"].nunique())
        lines.append([*circles(parse_subset(subset, comparison.modalities)), *values, str(n)])
    caption = "Dice (%) by available modalities: mean over regions, cases and seeds. n: cases."
    return Table("Subsets", caption, [*comparison.modalities, *(entry.label for entry in comparison.open), "n"], lines,
                 len(comparison.modalities))


def mean_text(means: pd.Series) -> str:
    """'71.20 ± 0.80' of the seeds' means; without the deviation for one seed; a dash for none."""
    means = means.dropna()
    if not len(means):
        return UNDEFINED
    return f"{means.mean():.2f}" + (f" ± {means.std():.2f}" if len(means) > 1 else "")


def difference_cells(found: Difference | None, entry: Entry) -> list[str]:
    """Difference, interval, p, Holm p, seeds and cases."""
    if found is None:
        return [UNDEFINED] * 4 + ["0", "0"]
    few = "too few seeds" if len(found.per_seed) < FEWEST_SEEDS else None
    return [f"{found.mean:+.2f}", f"{found.ci_low:+.2f} to {found.ci_high:+.2f}", few or p_text(found.p),
            UNDEFINED if few else p_text(found.p_holm), str(len(found.per_seed)), str(found.n_cases)]


def _cost(entry: Entry) -> list[str]:
    minutes = f"{sum(entry.minutes) / len(entry.minutes):.1f}" if entry.minutes else UNDEFINED
    return [minutes, f"{entry.parameters / 1e6:.2f}" if entry.parameters else UNDEFINED]


def _counts(entry: Entry) -> list[str]:
    return [str(len(entry.seeds)), str(entry.rows["fold"].nunique()), str(entry.rows["case"].nunique())]


def _without_missing(comparison: Comparison, table: Table) -> Table:
    """Leaves out the column of missingness tables where there are none."""
    if any(entry.missing != FULL for entry in comparison.entries):
        return table
    return Table(table.title, table.caption, [table.header[0], *table.header[2:]],
                 [[line[0], *line[2:]] for line in table.lines], 1)


def difference_rows(comparison: Comparison) -> list[dict]:
    """All differences in full precision, for differences.csv."""
    rows = []
    for entry in comparison.entries:
        for measure, d in entry.differences.items():
            if d is not None and not (entry.subset and measure != ALL):
                rows.append({"variant": entry.variant, "missing": entry.missing, "against": entry.against.variant,
                             "against_missing": entry.against.missing, "measure": measure, "difference": d.mean,
                             "ci_low": d.ci_low, "ci_high": d.ci_high, "p": d.p if isfinite(d.p) else None,
                             "p_holm": d.p_holm if isfinite(d.p_holm) else None, "seeds": len(d.per_seed),
                             "cases": d.n_cases, "pairs": d.n_pairs,
                             "per_seed": " ".join(f"{s}:{v:.4f}" for s, v in d.per_seed.items())})
    return rows
