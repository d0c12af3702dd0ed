"""Writes what an evaluation of a classification found: results.csv, summary.json, table.md, table.tex, figures."""
from __future__ import annotations

from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nnmiss import __version__
from nnmiss.atomic_files import replacing, write_json, write_text
from nnmiss.availability import AVAILABLE
from nnmiss.evaluation import markup as subset_markup
from nnmiss.evaluation.classification import figures, markup
from nnmiss.evaluation.classification.conventions import ALL, METRICS
from nnmiss.evaluation.classification.folders import Found
from nnmiss.evaluation.classification.measure import Evaluation, comparison_table, results_table
from nnmiss.evaluation.classification.metrics import calibration_bins
from nnmiss.evaluation.classification.tables import (
    difference_table,
    interval_table,
    label_subset,
    label_table,
    model_tables,
    subset_tables,
)
from nnmiss.evaluation.summary import without_nan
from nnmiss.inference.prediction_files import Predictions, predicted

RESULTS, SUMMARY, COMPARISON = "results.csv", "summary.json", "comparison.csv"


def publish(folder: Path, evaluation: Evaluation, models: list[Found], draw: bool = True) -> pd.DataFrame:
    """Writes everything into `folder`, summary.json last. Returns the long results, see `measure.COLUMNS`."""
    results, differences = results_table(evaluation), comparison_table(evaluation)
    _write_table(results, folder / RESULTS)
    if len(models) > 1:
        _write_table(differences, folder / COMPARISON)
    else:
        (folder / COMPARISON).unlink(missing_ok=True)
    _write_tables(folder, evaluation)
    if draw:
        bins = {subset: calibration_bins(evaluation.truth.task, sample.targets, _of(models[0], subset, sample.ids),
                                         evaluation.conventions.ece_bins) for subset, (sample, _) in evaluation.own.items()}
        figures.write_figures(folder, evaluation, bins, _confusion(evaluation, models[0]))
    write_json(folder / SUMMARY, without_nan(summarise(evaluation, models, results, differences)))
    return results


def summarise(evaluation: Evaluation, models: list[Found], results: pd.DataFrame,
              differences: pd.DataFrame) -> dict[str, Any]:
    """The content of summary.json; undefined numbers are NaN."""
    truth, overall = evaluation.truth, results[results["label"] == ALL]
    subsets = {subset: {"n": len(sample), "metrics": {
        row.metric: {"value": row.value, "low": row.low, "high": row.high, "resamples": row.resamples}
        for row in overall[overall["subset"] == subset].itertuples()}} for subset, (sample, _) in evaluation.own.items()}
    proper = [subset for subset in subsets if subset != AVAILABLE]
    return {
        "nnmiss_version": __version__, "method": evaluation.names[0], "task": truth.task, "classes": truth.classes,
        "label_groups": truth.label_groups, "modalities": truth.modalities,
        "conventions": evaluation.conventions.as_dict(),
        "mean_over_subsets": {m: _mean([subsets[s]["metrics"][m]["value"] for s in proper]) for m in METRICS},
        "subsets": subsets,
        "comparison": differences[differences["label"] == ALL].drop(columns="label").to_dict("records"),
        "sources": {"gt": truth.source, **{name: str(model.folder.absolute()) for name, model in
                                           zip(evaluation.names, models)}},
        "notes": evaluation.notes, "errors": evaluation.errors}


def table_text(evaluation: Evaluation) -> str:
    """The table of subsets for the terminal; of models that were predicted with what there is only, that row."""
    return subset_markup.to_text(subset_tables(evaluation)[0])


def _write_tables(folder: Path, evaluation: Evaluation) -> None:
    by_subset = subset_tables(evaluation)
    others = [interval_table(evaluation), *model_tables(evaluation), label_table(evaluation), difference_table(evaluation)]
    others = [table for table in others if table is not None]
    parts = [f"# {evaluation.names[0]}\n", *map(subset_markup.to_markdown, by_subset), *map(markup.to_markdown, others)]
    if evaluation.notes:
        parts.append("## Notes\n\n" + "".join(f"- {note}\n" for note in evaluation.notes))
    write_text(folder / "table.md", "\n".join(parts))
    write_text(folder / "table.tex", "\n".join([*map(subset_markup.to_latex, by_subset), *map(markup.to_latex, others)]))


def _write_table(table: pd.DataFrame, path: Path) -> None:
    with replacing(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")


def _of(model: Found, subset: str, ids: list[str]) -> np.ndarray:
    predictions: Predictions = model.subsets[subset]
    place = {name: i for i, name in enumerate(predictions.ids)}
    return predictions.probabilities[[place[name] for name in ids]]


def _confusion(evaluation: Evaluation, model: Found) -> np.ndarray | None:
    """(C, C) counts of `label_subset`, true classes down; None for a multilabel task."""
    task, count = evaluation.truth.task, len(evaluation.truth.classes)
    if task == "multilabel":
        return None
    subset = label_subset(evaluation)
    sample = evaluation.own[subset][0]
    truth = sample.targets.reshape(len(sample)).astype(int)
    chosen = predicted(_of(model, subset, sample.ids), task)
    return np.bincount(count * truth + chosen, minlength=count * count).reshape(count, count)


def _mean(values: list[float]) -> float:
    defined = [v for v in values if isfinite(v)]
    return sum(defined) / len(defined) if defined else float("nan")
