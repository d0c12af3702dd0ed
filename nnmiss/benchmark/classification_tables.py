"""The tables of a classification's benchmark as text: means over seeds, differences, subsets."""
from __future__ import annotations

from math import isfinite

from nnmiss.availability import AVAILABLE, parse_subset
from nnmiss.benchmark.classification import MEAN, Comparison, Entry
from nnmiss.benchmark.report import Table, mean_text
from nnmiss.benchmark.seed_statistics import FEWEST_SEEDS
from nnmiss.evaluation.classification.conventions import TITLES
from nnmiss.evaluation.markup import circles
from nnmiss.evaluation.tables import UNDEFINED, p_text


def tables(comparison: Comparison) -> list[Table]:
    """The tables that have a row, in the order of the page."""
    made = [summary_table(comparison, metric) for metric in comparison.metrics]
    made.append(difference_table(comparison))
    if len(comparison.subsets) > len(comparison.measures) - (MEAN in comparison.measures):  # more than the columns above
        made += [subset_table(comparison, metric) for metric in comparison.metrics]
    return [table for table in made if table.lines]


def summary_table(comparison: Comparison, metric: str) -> Table:
    """A row per variant: mean +- standard deviation of each measure, cost, n."""
    lines, title, unit = [], TITLES[metric], comparison.unit
    for entry in comparison.entries:
        cells = [mean_text(comparison.units(entry, measure, metric)) if _applies(entry, measure) else UNDEFINED
                 for measure in comparison.measures]
        minutes = f"{sum(entry.minutes) / len(entry.minutes):.1f}" if entry.minutes else UNDEFINED
        size = f"{entry.parameters / 1e6:.3f}" if entry.parameters else UNDEFINED
        lines.append([entry.variant, entry.missing, *cells, minutes, size, str(entry.rows["seed"].nunique()),
                      str(entry.rows["fold"].nunique())])
    of_folds = "; a seed is the mean of its folds" if unit == "seed" else ""
    caption = (f"{title} (%) by variant: mean over {unit}s, with the standard deviation of the {unit}s' values where there "
               f"are at least two{of_folds}. {AVAILABLE}: every sample with what it has; the other columns count samples "
               "that have all of the subset.")
    return Table(f"{title}: means over {unit}s", caption,
                 ["variant", "missing", *comparison.measures, "minutes", "parameters (M)", "seeds", "folds"], lines, 2)


def _applies(entry: Entry, measure: str) -> bool:
    """A mean over subsets says nothing of a single-modality model."""
    return not (entry.subset and measure == MEAN)


def difference_table(comparison: Comparison) -> Table:
    """A row per variant and measure: difference to the reference in each main metric."""
    lines, unit = [], comparison.unit
    for measure in comparison.measures:
        for entry in comparison.entries:
            found = [entry.differences.get((measure, metric)) for metric in comparison.metrics]
            if entry.against is not None and found[0] is not None:
                cells = [cell for d in found for cell in _difference_cells(d)]
                lines.append([entry.label, entry.against.label, measure, *cells, str(len(found[0].per_unit))])
    caption = (f"Difference to {comparison.reference} in percentage points, paired by seed, fold and subset. Interval: "
               f"95 %, Student's t over {unit}s. p: two-sided paired t-test. Both from {FEWEST_SEEDS} {unit}s on, and "
               "where not all differ alike. Holm: corrected over the variants, by subset. With few "
               f"{unit}s a large p says nothing.")
    per_metric = [name for m in comparison.metrics for name in (TITLES[m], "95 % interval", "p", "Holm p")]
    return Table("Differences to the reference", caption, ["variant", "against", "subset", *per_metric,
                                                           f"{unit}s"], lines, 3)


def _difference_cells(d) -> list[str]:
    if d is None:
        return [UNDEFINED] * 4
    interval = f"{d.low:+.2f} to {d.high:+.2f}" if isfinite(d.low) else UNDEFINED
    return [f"{d.mean:+.2f}", interval, p_text(d.p), p_text(d.p_holm)]


def subset_table(comparison: Comparison, metric: str) -> Table:
    """A row per subset of modalities, a column per variant."""
    lines = []
    for subset in comparison.subsets:
        if subset == AVAILABLE:
            continue
        values = [mean_text(comparison.units(entry, subset, metric)) for entry in comparison.entries]
        lines.append([*circles(parse_subset(subset, comparison.modalities)), *values])
    caption = f"{TITLES[metric]} (%) by available modalities: mean over {comparison.unit}s with standard deviation."
    return Table(f"{TITLES[metric]}: subsets", caption, [*comparison.modalities, *(e.label for e in comparison.entries)],
                 lines, len(comparison.modalities))


def difference_rows(comparison: Comparison) -> list[dict]:
    """All differences in full precision, for differences.csv."""
    return [{"variant": entry.variant, "missing": entry.missing, "against": entry.against.variant,
             "against_missing": entry.against.missing, "measure": measure, "metric": metric, "difference": d.mean,
             "ci_low": d.low, "ci_high": d.high, "p": d.p, "p_holm": d.p_holm, comparison.unit + "s": len(d.per_unit),
             f"per_{comparison.unit}": " ".join(f"{unit}:{value:.4f}" for unit, value in d.per_unit.items())}
            for entry in comparison.entries for (measure, metric), d in entry.differences.items() if d is not None]


def remarks(comparison: Comparison) -> list[str]:
    """Notes on what the repetitions allow to be said."""
    notes, unit = [], comparison.unit
    fewest = min(entry.rows[unit].nunique() for entry in comparison.entries)
    if fewest < FEWEST_SEEDS:
        notes.append(f"a variant has only {fewest} {unit}(s): fewer than {FEWEST_SEEDS} allow no interval and no test. "
                     "Differences between single trainings can be the seeds' alone")
    if unit == "fold":
        notes.append("there is one seed, so intervals and tests are over folds, which share training samples: they are too "
                     "narrow; train more seeds")
    different = {entry.label: tuple(sorted({*zip(entry.rows["seed"], entry.rows["fold"])})) for entry in comparison.entries}
    if len(set(different.values())) > 1:
        notes.append("variants have different finished seeds and folds: compare them by the differences, which are paired, "
                     "not by the means")
    mixed = [f"{entry.label} with {entry.against.label}" for entry in comparison.entries
             if entry.against and entry.against.missing != entry.missing]
    if mixed:
        notes.append(f"the reference was not trained under the same missing table: compared are {'; '.join(mixed)}")
    return notes + _about_fold_all(comparison)


def _about_fold_all(comparison: Comparison) -> list[str]:
    if not any("all" in entry.rows["fold"].unique() for entry in comparison.entries):
        return []
    return ["fold 'all' is validated on its training samples, unless the data set has test samples"]
