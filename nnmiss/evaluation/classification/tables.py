"""What stands in the tables: subsets as in MetaKD's Table 2, models as in MIND's Tables 1 to 3, labels, differences."""
from __future__ import annotations

from dataclasses import dataclass
from math import isfinite, nan

import numpy as np

from nnmiss import __version__
from nnmiss.availability import AVAILABLE, all_subsets, subset_name
from nnmiss.evaluation.classification.bootstrap import Measured
from nnmiss.evaluation.classification.conventions import ALL, LOWER_IS_BETTER, METRICS, TITLES
from nnmiss.evaluation.classification.measure import Evaluation
from nnmiss.evaluation.statistics import subset_row_test
from nnmiss.evaluation.tables import UNDEFINED, Cell, SubsetTable, nan_mean, p_text, ranked

PAIRS = (("accuracy", "macro_f1"), ("auroc", "auprc"))  # of a table


@dataclass(frozen=True)
class TextTable:
    """A table of texts.

    groups: titles over several columns with the number of these, all columns together; empty: none.
    left: how many columns are text.
    """

    title: str
    caption: str
    header: list[str]
    lines: list[list[Cell]]
    groups: list[tuple[str, int]]
    left: int = 1


def main_pair(task: str) -> tuple[str, str]:
    """The metrics that are reported first: accuracy and F1 of a multiclass task, else AUROC and AUPRC."""
    return PAIRS[0] if task == "multiclass" else PAIRS[1]


def subset_tables(evaluation: Evaluation) -> list[SubsetTable]:
    """The table of the main metrics, and that of the other pair: a row per subset."""
    main = main_pair(evaluation.truth.task)
    return [_subset_table(evaluation, pair) for pair in (main, *(p for p in PAIRS if p != main))]


def _subset_table(evaluation: Evaluation, metrics: tuple[str, ...]) -> SubsetTable:
    modalities, names = evaluation.truth.modalities, [*evaluation.names[1:], evaluation.names[0]]  # ours last
    comparing = len(names) > 1
    subsets = [(s, subset_name(s, modalities)) for s in all_subsets(len(modalities))]
    subsets = [(s, name) for s, name in subsets if name in evaluation.shared]
    cells: list[list[Cell]] = [[] for _ in subsets]
    average, p_row, of_available, tested = [], [], [], set()
    for metric in metrics:
        values = np.array([[_percent(evaluation, name, model, metric) for model in names] for _, name in subsets])
        for row, line in zip(cells, values):
            row += ranked(line, True, comparing)
        common = values[np.isfinite(values).all(1)] if len(subsets) else values  # rows that all models have
        tested.add(len(common))
        average += ranked(nan_mean(common), True, comparing) if len(subsets) else []
        tests = [subset_row_test(common[:, -1], common[:, i]) for i in range(len(names) - 1)] if len(subsets) else []
        p_row += [Cell(p_text(t.p)) for t in tests] + ([Cell(UNDEFINED)] * 2 if comparing else [])
        of_available += ranked(np.array([_percent(evaluation, AVAILABLE, m, metric) for m in names]), True, comparing)
    footers = [("Average", average)] if len(subsets) else []
    footers += [(f"p-value (n = {'/'.join(map(str, sorted(tested)))})", p_row)] if comparing and len(subsets) else []
    if AVAILABLE in evaluation.shared:
        footers.append((f"Available (n = {len(evaluation.shared[AVAILABLE][0])})", of_available))
    columns = [*names, "Imprv"] if comparing else [""]
    return SubsetTable(metrics[0], modalities, [(TITLES[m], columns) for m in metrics],
                       [(s, row, str(len(evaluation.shared[name][0]))) for (s, name), row in zip(subsets, cells)], footers,
                       _subset_caption(evaluation, metrics, comparing))


def _percent(evaluation: Evaluation, subset: str, model: str, metric: str) -> float:
    found = evaluation.measured(subset, model, metric)
    return nan if found is None else 100 * found.value


def _subset_caption(evaluation: Evaluation, metrics: tuple[str, ...], comparing: bool) -> str:
    ours, counted = evaluation.names[0], "that have all of it"
    if evaluation.conventions.with_incomplete:
        counted = "that have any of it, predicted with what they have"
    text = (f"{' and '.join(TITLES[m] for m in metrics)} (%) of {ours} by available modalities, on the n samples "
            f"{counted}; average over the rows{' that all models have' if comparing else ''}. ")
    if comparing:
        text += ("Best bold, of three or more second best italic. Imprv: gain over the best other model. p-value: "
                 f"one-tailed paired t-test of {ours} against each model over these rows. ")
    return text + f"nnmiss {__version__}."


def interval_table(evaluation: Evaluation) -> TextTable:
    """A row per subset of our model, a column per metric with its interval."""
    lines = []
    for subset, (sample, replicates) in evaluation.own.items():
        found = [replicates.measured((ALL, metric), evaluation.conventions.level) for metric in METRICS]
        lines.append([Cell(subset), *(Cell(interval_text(m)) for m in found), Cell(str(len(sample)))])
    return TextTable("Intervals", f"All metrics of {evaluation.names[0]}. {evaluation.conventions.sentence()}.",
                     ["subset", *(TITLES[m] for m in METRICS), "n"], lines, [])


def model_tables(evaluation: Evaluation) -> list[TextTable]:
    """MIND's Table 1 (all modalities, or what there is) and Tables 2 and 3 (each modality alone): a row per model."""
    modalities = evaluation.truth.modalities
    whole, pair = "+".join(modalities), main_pair(evaluation.truth.task)
    pairs = (pair, *(p for p in PAIRS if p != pair)) if evaluation.truth.task == "multiclass" else (pair,)
    tables = []
    for metrics in pairs:
        for title, subsets in (("All modalities", [whole, AVAILABLE]), ("Single modalities", modalities)):
            there = [s for s in subsets if s in evaluation.shared]
            if there:
                tables.append(_model_table(evaluation, title, there, metrics))
    return tables


def _model_table(evaluation: Evaluation, title: str, subsets: list[str], metrics: tuple[str, ...]) -> TextTable:
    lines: list[list[Cell]] = [[Cell(name)] for name in [*evaluation.names[1:], evaluation.names[0]]]
    for subset in subsets:
        for metric in metrics:
            found = [evaluation.measured(subset, line[0].text, metric) for line in lines]
            ranks = _best([nan if m is None else m.value for m in found], metric)
            for line, m, rank in zip(lines, found, ranks):
                line.append(Cell(UNDEFINED if m is None else interval_text(m), rank))
    groups = [("", 1), *((f"{subset} (n = {len(evaluation.shared[subset][0])})", len(metrics)) for subset in subsets)]
    caption = (f"{' and '.join(TITLES[m] for m in metrics)} with intervals, a row per model"
               + ("; best bold" if len(lines) > 1 else "") + f". {evaluation.conventions.sentence()}.")
    return TextTable(f"{title}: {' and '.join(TITLES[m] for m in metrics)}", caption,
                     ["model", *(TITLES[m] for _ in subsets for m in metrics)], lines, groups)


def _best(values: list[float], metric: str) -> list[str]:
    """"best" for the best by the printed digits, where there is more than one value."""
    printed = [round(v, 3) if isfinite(v) else nan for v in values]
    defined = [v for v in printed if isfinite(v)]
    if len(defined) < 2:
        return [""] * len(values)
    best = min(defined) if metric in LOWER_IS_BETTER else max(defined)
    return ["best" if v == best else "" for v in printed]


def label_table(evaluation: Evaluation) -> TextTable | None:
    """A row per class or label and group of labels; None for a binary task, whose only row is in the other tables."""
    truth, subset = evaluation.truth, label_subset(evaluation)
    if truth.task == "binary":
        return None
    sample, replicates = evaluation.own[subset]
    metrics = ("f1", "auroc", "auprc")
    lines = []
    for name in [*truth.classes, *truth.label_groups]:
        place = truth.classes.index(name) if name in truth.classes else None
        count = "" if place is None else str(int((sample.targets == place).sum() if truth.task == "multiclass"
                                                 else (sample.targets[:, place] == 1).sum()))
        keys = [(name, "macro_f1" if m == "f1" and place is None else m) for m in metrics]
        found = [replicates.measured(key, evaluation.conventions.level) for key in keys]
        lines.append([Cell(name), *(Cell(interval_text(m)) for m in found), Cell(count)])
    groups = "; below, the means of groups of labels" if truth.label_groups else ""
    caption = (f"Each {'label' if truth.task == 'multilabel' else 'class'} of {evaluation.names[0]}, subset {subset}, "
               f"n = {len(sample)}{groups}. {evaluation.conventions.sentence()}.")
    return TextTable("Labels", caption, ["label", *(TITLES[m] for m in metrics), "positives"], lines, [])


def label_subset(evaluation: Evaluation) -> str:
    """The subset whose labels are reported: all modalities, else what there is, else the last."""
    whole = "+".join(evaluation.truth.modalities)
    return next(s for s in (whole, AVAILABLE, list(evaluation.own)[-1]) if s in evaluation.own)


def difference_table(evaluation: Evaluation) -> TextTable | None:
    """Our model minus each other of each subset in the main metrics; None without others."""
    lines, ours, metrics = [], evaluation.names[0], main_pair(evaluation.truth.task)
    for other in evaluation.names[1:]:
        for subset, (sample, models) in evaluation.shared.items():
            if other in models:
                found = [models[ours].difference(models[other], (ALL, m), evaluation.conventions.level) for m in metrics]
                lines.append([Cell(other), Cell(subset), *(Cell(interval_text(d, "+.3f")) for d in found),
                              Cell(str(len(sample)))])
    if not lines:
        return None
    caption = (f"{ours} minus the other model, on the samples that all models have and on the same resamples. Other "
               f"metrics and labels: comparison.csv. {evaluation.conventions.sentence()}.")
    return TextTable("Differences", caption, ["against", "subset", *(TITLES[m] for m in metrics), "n"], lines, [], 2)


def interval_text(found: Measured, form: str = ".3f") -> str:
    """0.748 (0.721, 0.774); without an interval the value alone; a dash where undefined."""
    if not isfinite(found.value):
        return UNDEFINED
    value = f"{found.value:{form}}"
    return f"{value} ({found.low:{form}}, {found.high:{form}})" if isfinite(found.low) else value
