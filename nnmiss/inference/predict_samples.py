"""A folder of samples in, predictions.csv out: with what each sample has, with named modalities, or with many subsets."""
from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nnmiss import __version__
from nnmiss.atomic_files import write_json
from nnmiss.availability import AVAILABLE, Present, subset_name
from nnmiss.classification.preprocessing import apply_preprocessing, misfits, unseen_categories
from nnmiss.classification.raw_samples import RawSamples, read_raw_samples
from nnmiss.errors import shortened
from nnmiss.inference.classify_samples import subset_probabilities, write_subsets
from nnmiss.inference.prediction_files import RECORD


@dataclass
class Outcome:
    """What a prediction came to.

    written: sub-folder ("" for the output folder itself) -> samples in its file. failures: sample -> what is wrong.
    """

    written: dict[str, int] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def predict_samples(models: dict[int | str, Any], folder: str | Path, output: str | Path,
                    subsets: dict[str, Present], ids: list[str] | None = None, device: torch.device | str = "cpu",
                    num_threads: int = 1, show_progress: bool = True) -> Outcome:
    """Predicts samples with the mean of the probabilities of some models (an ensemble of folds).

    Args:
        models: fold -> `nnmiss.trainers.load_classifier.LoadedClassifier`.
        folder: with manifest.csv; what it holds beside follows the data set's format, labels are not needed.
        output: made before; holds predictions.csv afterwards, or a sub-folder per subset.
        subsets: sub-folder ("": the output folder itself) -> modalities that each sample is shown, as far as it has them.
        ids: only these samples.

    Returns:
        What was written. Samples that cannot be read or that have nothing of any subset are failures; the others finish.
    """
    first = next(iter(models.values()))
    outcome = Outcome()
    raw, outcome.failures = read_raw_samples(folder, first.description, ids, num_threads, show_progress)
    for model in models.values():
        for modality, wrong in misfits(raw, model.fitted).items():
            outcome.failures |= {name: f"modality {modality}: {text}" for name, text in wrong.items()}
    raw = raw.without(outcome.failures)
    if not len(raw):  # an earlier prediction must not be taken for this one
        nothing = torch.zeros(len(subsets), 0, len(first.classes))
        outcome.written = write_subsets(output, [], nothing, subsets, raw.available, first.modalities, first.task,
                                        first.classes)
        return outcome
    have, shown = raw.available & readable(first.network), torch.tensor(list(subsets.values()))
    values = torch.zeros(len(subsets), len(raw), len(first.classes), dtype=torch.float64)
    for model in models.values():
        samples = apply_preprocessing(raw, model.fitted)
        values += subset_probabilities(model.network, samples, torch.arange(len(raw)), shown, model.task, device,
                                       available=have) / len(models)
    outcome.written = write_subsets(output, raw.ids, values, subsets, have, first.modalities, first.task, first.classes)
    outcome.failures |= _without_prediction(raw, values, shown, first.modalities)
    unseen = [text for model in models.values() for text in unseen_categories(raw, model.fitted)]
    outcome.notes = [*dict.fromkeys(unseen), *_notes(raw.ids, have, subsets, first.modalities)]
    return outcome


def readable(network: nn.Module) -> Tensor:
    """(M,) bool: the modalities that a network uses; a single-modality model uses one."""
    alone = network.usable(torch.eye(network.num_modalities, dtype=torch.bool))
    return alone if alone.any() else torch.ones_like(alone)


def write_record(output: Path, models: dict[int | str, Any], model_folder: Path, folder: str | Path,
                 subsets: dict[str, Present], outcome: Outcome) -> None:
    """Writes predictions.json: the model, what was predicted with which modalities, and what failed."""
    first = next(iter(models.values()))
    names = {key: key or (AVAILABLE if all(shown) else subset_name(shown, first.modalities))
             for key, shown in subsets.items()}
    write_json(output / RECORD, {
        "shown": names.get(""), "samples": {names[key]: n for key, n in outcome.written.items()},
        "model": {"method": first.method, "folder": str(model_folder.absolute()), "folds": list(models),
                  "checkpoint": first.checkpoint.name},
        "task": first.task, "classes": first.classes, "modalities": first.modalities,
        "input": str(Path(folder).absolute()), "notes": outcome.notes, "failed": outcome.failures,
        "nnmiss_version": __version__})


def _without_prediction(raw: RawSamples, values: Tensor, shown: Tensor, modalities: list[str]) -> dict[str, str]:
    """Sample -> message, of samples that have nothing of any subset, or nothing that the model could use."""
    failures, asked = {}, shown.any(0)
    for i in values.isnan().any(-1).all(0).nonzero()[:, 0].tolist():
        has = subset_name(raw.available[i].tolist(), modalities)
        if (raw.available[i] & asked).any():
            failures[raw.ids[i]] = f"the model gives no probabilities for {has}"
        else:
            failures[raw.ids[i]] = (f"it has {has} and none of the requested modalities "
                                    f"{subset_name(asked.tolist(), modalities)}")
    return failures


def _notes(ids: list[str], have: Tensor, subsets: dict[str, Present], modalities: list[str]) -> list[str]:
    """How many samples were predicted with a part of what was wanted, and how many have nothing of a subset."""
    notes, parts, nothing = [], [], []
    for key, shown in subsets.items():
        wanted = torch.tensor(shown)
        used = have & wanted
        lacking = (used.any(1) & (used != wanted).any(1)).nonzero()[:, 0].tolist()
        if key == "" and lacking and not all(shown):
            notes.append(f"warning: {len(lacking)} of {len(ids)} sample(s) lack part of {subset_name(shown, modalities)} "
                         f"and are predicted with the rest: {shortened((ids[i] for i in lacking), 5)}")
        elif key not in ("", AVAILABLE):
            without = int((~used.any(1)).sum())
            parts += [f"{key} {len(lacking)}"] if lacking else []
            nothing += [f"{key} {without}"] if without else []
    if parts:
        notes.append(f"samples predicted with a part of a subset, of {len(ids)} (column modalities): {shortened(parts, 8)}")
    if nothing:
        notes.append(f"samples that have nothing of a subset and are not in its file, of {len(ids)}: "
                     f"{shortened(nothing, 8)}")
    return notes
