"""Preprocessing that is fitted on the training samples alone, applied to all, and stored with the model as JSON."""
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from nnmiss.atomic_files import LARGE_JSON_MB, read_json, write_json
from nnmiss.classification.kinds import KINDS
from nnmiss.classification.raw_samples import RawSamples
from nnmiss.classification.sample_set import ModalityInput, SampleSet, StoredModality
from nnmiss.errors import NnmissError, shortened

FILE_NAME = "preprocessing.json"


def fit_preprocessing(raw: RawSamples, rows: Tensor, available: Tensor | None = None) -> dict:
    """Statistics of the training samples for every modality.

    Args:
        raw: the samples.
        rows: (n,) long, those of training.
        available: (N, M) bool, what training may use of every sample of `raw`; default: whatever it has.

    Returns:
        {"modalities": {name: {"spec": ..., "fitted": ...}}}, plain JSON, for `apply_preprocessing`.

    Raises NnmissError, naming the modality, where nothing tells its shape or a training sample has another one.
    """
    modalities = {}
    for m, (name, spec) in enumerate(raw.description.modalities.items()):
        kind, values = KINDS[spec["type"]], raw.values[name]
        has = raw.row[name][rows] >= 0
        if available is not None:
            has &= available[rows, m]
        chosen = [values[i] for i in raw.row[name][rows[has]].tolist()]
        owners = [raw.ids[i] for i in rows[has].tolist()]
        _refuse({owners[i]: message for i, message in kind.misfits(chosen, spec).items()}, name)
        try:
            fitted = kind.fit(chosen, spec, next(iter(values), None))
        except NnmissError as error:
            raise NnmissError(f"modality {name}: {error}") from None
        modalities[name] = {"spec": spec, "fitted": fitted}
    return {"modalities": modalities}


def apply_preprocessing(raw: RawSamples, fitted: dict) -> SampleSet:
    """All samples of `raw` as network inputs, by the statistics of `fit_preprocessing`.

    Modalities come in the order of `fitted`. Raises NnmissError naming the samples whose values do not go with those of
    training (see `misfits`).
    """
    for name, wrong in misfits(raw, fitted).items():
        _refuse(wrong, name)
    stored = {name: StoredModality(KINDS[entry["spec"]["type"]].transform(raw.values[name], entry["spec"], entry["fitted"]),
                                   raw.row[name])
              for name, entry in fitted["modalities"].items()}
    return SampleSet(list(raw.ids), list(raw.groups), raw.targets, stored)


def misfits(raw: RawSamples, fitted: dict) -> dict[str, dict[str, str]]:
    """Modality -> {sample id: what is wrong} of values that do not go with those of training; empty where all do."""
    found = {}
    for name, entry in fitted["modalities"].items():
        wrong = KINDS[entry["spec"]["type"]].misfits(raw.values[name], entry["spec"], entry["fitted"])
        named = {raw.ids[sample]: wrong[place] for sample, place in enumerate(raw.row[name].tolist()) if place in wrong}
        if named:
            found[name] = named
    return found


def unseen_categories(raw: RawSamples, fitted: dict) -> list[str]:
    """What to say of samples, all of which go with training, whose tables hold categories that training had not."""
    return [f"{name}: {text}" for name, entry in fitted["modalities"].items() if entry["spec"]["type"] == "table"
            for text in KINDS["table"].unseen(raw.values[name], entry["fitted"])]


def augmented(inputs: list[ModalityInput], fitted: dict, generator: torch.Generator) -> list[ModalityInput]:
    """A training batch, one input per modality of `fitted`, with the random changes that dataset.json asks for.

    Inputs without any are returned as they are, and draw nothing from the generator (of the CPU).
    """
    out = []
    for given, entry in zip(inputs, fitted["modalities"].values()):
        values = KINDS[entry["spec"]["type"]].augment(given.values, entry["spec"], entry["fitted"], generator)
        out.append(given if values is given.values else replace(given, values=values))
    return out


def notes(fitted: dict) -> list[str]:
    """What a person should know of the fit: columns of tables that were left out, and those that seem to be misread."""
    said = [f"{name}: column {column} is left out, {why}" for name, entry in fitted["modalities"].items()
            for column, why in entry["fitted"].get("left_out", {}).items()]
    return said + [f"{name}: {text}" for name, entry in fitted["modalities"].items() if entry["spec"]["type"] == "table"
                   for text in KINDS["table"].suspicions(entry["spec"], entry["fitted"])]


def save_preprocessing(fitted: dict, folder: str | Path) -> None:
    """Writes `folder`/preprocessing.json, atomically."""
    write_json(Path(folder) / FILE_NAME, fitted)


def load_preprocessing(folder: str | Path) -> dict:
    """Reads what `save_preprocessing` wrote, to the last bit. Raises NnmissError when it is absent or not such a file."""
    path = Path(folder) / FILE_NAME
    fitted = read_json(path, "preprocessing of a model", ("modalities",), max_mb=LARGE_JSON_MB)
    entries = fitted["modalities"].values() if isinstance(fitted["modalities"], dict) else [None]
    if not all(isinstance(entry, dict) and {"spec", "fitted"} <= set(entry) and entry["spec"].get("type") in KINDS
               for entry in entries):
        raise NnmissError(f"{path} does not hold the modalities' preprocessing: train again or restore the file")
    return fitted


def _refuse(wrong: dict[str, str], modality: str) -> None:
    """Raises NnmissError naming the samples, when any is wrong."""
    if wrong:
        raise NnmissError(f"modality {modality}, {len(wrong)} samples do not go with the others: "
                          + shortened((f"{name}: {message}" for name, message in wrong.items()), 5))
