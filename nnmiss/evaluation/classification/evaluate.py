"""Evaluates predictions.csv of every subset: results.csv, summary.json, table.md, table.tex and figures."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from nnmiss.atomic_files import writable_folder
from nnmiss.evaluation.classification.conventions import Conventions
from nnmiss.evaluation.classification.folders import find_predictions
from nnmiss.evaluation.classification.markup import to_markdown
from nnmiss.evaluation.classification.measure import measure
from nnmiss.evaluation.classification.publish import publish, table_text
from nnmiss.evaluation.classification.tables import difference_table
from nnmiss.evaluation.classification.truth import Truth, read_truth


def evaluate_predictions(truth: Truth | str | Path, pred_folder: str | Path, output_folder: str | Path | None = None,
                         conventions: Conventions | None = None, compare: Sequence[str | Path] = (),
                         name: str | None = None, figures: bool = True) -> pd.DataFrame:
    """Compares predictions with the truth and writes results, summary, tables and figures.

    Args:
        truth: a `Truth` (of preprocessed samples: `Truth.of_samples`), or the folder of a classification data set.
        pred_folder: holds predictions.csv, or SUBSET/predictions.csv (and available/predictions.csv).
        output_folder: made if absent; default the folder of predictions.
        conventions: default `Conventions()`.
        compare: folders of predictions of other models for the same samples, PATH or NAME=PATH.
        name: this model's name in the tables; default the prediction folder's name.
        figures: False saves the second or two that drawing takes.

    Returns:
        long results with columns subset, label, metric, value, low, high, n, resamples. `attrs["errors"]` lists what
        failed (everything else is in the results), `attrs["notes"]` what is worth knowing, `attrs["table"]` the table of
        subsets as text, `attrs["comparison"]` the differences to other models as Markdown, "" without.

    Raises:
        NnmissError: nothing could be evaluated.
    """
    truth = truth if isinstance(truth, Truth) else read_truth(truth)
    wanted = [(name, pred_folder), *map(_name_and_folder, compare)]
    models = [find_predictions(folder, truth.modalities, truth.classes, truth.task, called) for called, folder in wanted]
    evaluation = measure(truth, models, conventions or Conventions())
    results = publish(writable_folder(output_folder or pred_folder), evaluation, models, figures)
    differences = difference_table(evaluation)
    results.attrs.update(errors=evaluation.errors, notes=evaluation.notes, table=table_text(evaluation),
                         comparison=to_markdown(differences) if differences else "")
    return results


def _name_and_folder(specification: str | Path) -> tuple[str | None, str]:
    """PATH or NAME=PATH."""
    text = str(specification)
    if "=" in text and not Path(text).exists():
        name, _, path = text.partition("=")
        return name or None, path
    return None, text
