"""From predictions and truth to metrics with intervals: which samples count for a subset, and comparisons of models."""
from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from nnmiss.availability import AVAILABLE
from nnmiss.errors import NnmissError, shortened
from nnmiss.evaluation.classification.bootstrap import Measured, Replicates, Sample, replicate
from nnmiss.evaluation.classification.conventions import ALL, Conventions
from nnmiss.evaluation.classification.folders import Found
from nnmiss.evaluation.classification.truth import Truth
from nnmiss.inference.prediction_files import Predictions

COLUMNS = ["subset", "label", "metric", "value", "low", "high", "n", "resamples"]


@dataclass
class Evaluation:
    """Metrics of our model, and of all models on the samples they share.

    own: subset -> (its samples, our replicates). shared: subset -> (samples all models have, model -> replicates), ours
    first; without other models the same as `own`.
    """

    truth: Truth
    conventions: Conventions
    names: list[str]
    own: dict[str, tuple[Sample, Replicates]] = field(default_factory=dict)
    shared: dict[str, tuple[Sample, dict[str, Replicates]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def measured(self, subset: str, model: str, metric: str, label: str = ALL) -> Measured | None:
        """A metric of a model on the shared samples of a subset; None where there is none."""
        replicates = self.shared[subset][1].get(model) if subset in self.shared else None
        if replicates is None or (label, metric) not in replicates.values:
            return None
        return replicates.measured((label, metric), self.conventions.level)


def measure(truth: Truth, models: list[Found], conventions: Conventions) -> Evaluation:
    """All metrics of all subsets.

    Args:
        models: ours first; names must differ.

    Raises:
        NnmissError: no labelled sample with a prediction, or two models of one name.
    """
    names = [model.name for model in models]
    if len(set(names)) < len(names):
        raise NnmissError(f"models to compare need different names, got {', '.join(names)}: use NAME=PATH or --name")
    evaluation = Evaluation(truth, conventions, names, notes=list(truth.notes))
    evaluation.errors += [error for model in models for error in model.errors]
    labelled = dict(zip(truth.ids, truth.labelled))
    _name_strangers(models[0], labelled, evaluation)
    for subset in models[0].subsets:
        _measure_subset(subset, models, labelled, evaluation)
    evaluation.notes += _left_out(models[0], labelled, evaluation) + _undefined(evaluation)
    if not evaluation.own:
        why = f": {shortened(evaluation.notes, 5)}" if evaluation.notes else ""
        where = truth.source or "the truth"
        raise NnmissError(f"{models[0].folder} has no prediction that counts of a labelled sample of {where}{why}")
    return evaluation


def results_table(evaluation: Evaluation) -> pd.DataFrame:
    """Our metrics as the long table COLUMNS."""
    rows = []
    for subset, (sample, replicates) in evaluation.own.items():
        known = _known_counts(sample, evaluation.truth)
        for label, metric in replicates.values:
            m = replicates.measured((label, metric), evaluation.conventions.level)
            rows.append((subset, label, metric, m.value, m.low, m.high, known.get(label, len(sample)), m.resamples))
    return pd.DataFrame(rows, columns=COLUMNS)


def comparison_table(evaluation: Evaluation) -> pd.DataFrame:
    """Our model minus each other: columns `other` and COLUMNS, value being the difference, on the same resamples."""
    rows = []
    ours = evaluation.names[0]
    for subset, (sample, models) in evaluation.shared.items():
        known = _known_counts(sample, evaluation.truth)
        for other in evaluation.names[1:]:
            for label, metric in models[ours].values if other in models else ():
                d = models[ours].difference(models[other], (label, metric), evaluation.conventions.level)
                rows.append((other, subset, label, metric, d.value, d.low, d.high, known.get(label, len(sample)),
                             d.resamples))
    return pd.DataFrame(rows, columns=["other", *COLUMNS])


def sample_of(truth: Truth, ids: list[str]) -> Sample:
    """These samples in the order of their ids, so that files in another order give the same resamples."""
    place = {name: i for i, name in enumerate(truth.ids)}
    rows = [place[name] for name in sorted(ids)]
    return Sample(sorted(ids), [truth.subjects[i] for i in rows], truth.targets[rows])


def _measure_subset(subset: str, models: list[Found], labelled: dict[str, bool], evaluation: Evaluation) -> None:
    truth, conventions = evaluation.truth, evaluation.conventions
    counted = {model.name: set(_counted(model.subsets[subset], subset, conventions, labelled)) for model in models
               if subset in model.subsets}
    ours, *others = counted
    without = [model.name for model in models if model.name not in counted]
    if without:
        evaluation.notes.append(f"subset {subset}: no predictions of {', '.join(without)}")
    if not counted[ours]:
        return

    def replicated(names: list[str], ids: set[str]) -> tuple[Sample, dict[str, Replicates]]:
        sample = sample_of(truth, list(ids))
        of_models = [model.subsets[subset] for model in models if model.name in names]
        return sample, dict(zip(names, replicate(sample, of_models, truth.task, truth.classes, truth.label_groups,
                                                 conventions)))

    common = set.intersection(*counted.values())
    if len(common) == len(counted[ours]):
        sample, of_models = replicated([ours, *others], common)
        evaluation.own[subset], evaluation.shared[subset] = (sample, of_models[ours]), (sample, of_models)
        return
    sample, of_models = replicated([ours], counted[ours])
    evaluation.own[subset] = sample, of_models[ours]
    if common:
        evaluation.shared[subset] = replicated([ours, *others], common)
    evaluation.notes.append(f"subset {subset}: compared on the {len(common)} samples that all models have, of "
                            f"{len(counted[ours])} of {ours}")


def _counted(predictions: Predictions, subset: str, conventions: Conventions, labelled: dict[str, bool]) -> list[str]:
    """The samples that count for a subset."""
    any_use = conventions.with_incomplete or subset == AVAILABLE
    return [name for name, used in zip(predictions.ids, predictions.used)
            if labelled.get(name, False) and (any_use or used == subset)]


def _name_strangers(ours: Found, labelled: dict[str, bool], evaluation: Evaluation) -> None:
    """Predictions of samples that the truth does not know are errors; unlabelled ones are a note."""
    predicted = dict.fromkeys(name for predictions in ours.subsets.values() for name in predictions.ids)
    strangers = [name for name in predicted if name not in labelled]
    if strangers:
        where = evaluation.truth.source or "the truth"
        evaluation.errors.append(f"{len(strangers)} predicted sample(s) are not in {where}: {shortened(strangers, 5)}")
    unlabelled = [name for name in predicted if not labelled.get(name, True)]
    if unlabelled:
        evaluation.notes.append(f"{len(unlabelled)} predicted sample(s) are unlabelled and not counted")


def _left_out(ours: Found, labelled: dict[str, bool], evaluation: Evaluation) -> list[str]:
    """Says how many samples lack a part of a subset and are not counted there."""
    short = []
    for subset, predictions in ours.subsets.items():
        usable = sum(labelled.get(name, False) for name in predictions.ids)
        lacking = usable - (len(evaluation.own[subset][0]) if subset in evaluation.own else 0)
        short += [f"{subset} {lacking} of {usable}"] if lacking else []
    return [f"samples that lack a part of a subset are not counted there (--with_incomplete counts them): "
            f"{shortened(short, 8)}"] if short else []


def _undefined(evaluation: Evaluation) -> list[str]:
    """Says which classes or labels have one value only in the samples of a subset."""
    truth, found = evaluation.truth, {}
    names = truth.classes[1:] if truth.task == "binary" else truth.classes
    for subset, (sample, _) in evaluation.own.items():
        targets = sample.targets
        is_positive = targets[:, None] == np.arange(len(names)) if truth.task == "multiclass" else targets == 1
        is_negative = ~is_positive if truth.task == "multiclass" else targets == 0
        alike = tuple(name for name, a, b in zip(names, is_positive.any(0), is_negative.any(0)) if not (a and b))
        if alike:
            found.setdefault(alike, []).append(subset)
    return [f"AUROC and AUPRC are undefined, as all samples are alike, of {shortened(alike, 5)} in {shortened(subsets, 5)}"
            for alike, subsets in found.items()]


def _known_counts(sample: Sample, truth: Truth) -> dict[str, int]:
    """Label -> samples in which it is known, of a multilabel task."""
    if truth.task != "multilabel":
        return {}
    return dict(zip(truth.classes, (~np.isnan(sample.targets)).sum(0).tolist()))
