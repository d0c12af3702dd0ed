"""Finds predictions.csv of every subset in a folder of predictions."""
from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from nnmiss.atomic_files import read_json
from nnmiss.availability import AVAILABLE, all_subsets, parse_subset, subset_name
from nnmiss.errors import NnmissError
from nnmiss.inference.prediction_files import FILE, RECORD, Predictions, read_predictions


@dataclass
class Found:
    """subsets: name in the order of tables -> its predictions. errors: what cannot be used."""

    name: str
    folder: Path
    subsets: dict[str, Predictions]
    errors: list[str] = field(default_factory=list)


def subset_order(modalities: list[str]) -> list[str]:
    """Names of all subsets in the order of tables, then AVAILABLE."""
    return [*(subset_name(s, modalities) for s in all_subsets(len(modalities))), AVAILABLE]


def find_predictions(folder: str | Path, modalities: list[str], classes: list[str], task: str,
                     name: str | None = None) -> Found:
    """Reads FOLDER/predictions.csv, or FOLDER/SUBSET/predictions.csv of every sub-folder that has one.

    A single file is of the subset that predictions.json beside it names; without it, of the modalities used, and of
    AVAILABLE where these differ.

    Raises:
        NnmissError: there is none, or none that can be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise NnmissError(f"prediction folder {folder} does not exist: give the folder that nnmiss_predict wrote to (-o)")
    files = sorted(folder.glob(f"*/{FILE}"))
    flat = folder / FILE
    if flat.is_file() and files:
        raise NnmissError(f"{folder} holds both {FILE} and sub-folders with one, such as {files[0].parent.name}: they are "
                          "of different runs; give the folder of one, or move the other away")
    found = Found(name or folder.resolve().name, folder, {})
    for path in [flat] if flat.is_file() else files:
        try:
            predictions = _with_canonical_names(path, read_predictions(path, classes, task), modalities)
            subset = (_of_single(folder, predictions, modalities) if path == flat
                      else _canonical(path.parent.name, modalities))
            if subset in found.subsets:
                raise NnmissError(f"{path} is of subset {subset}, which another folder is of too: remove one")
            found.subsets[subset] = predictions
        except NnmissError as error:
            found.errors.append(str(error))
    if not found.subsets:
        why = ":\n  " + "\n  ".join(found.errors) if found.errors else f": it has neither {FILE} nor sub-folders with one"
        raise NnmissError(f"no predictions in {folder} can be read{why}")
    found.subsets = {s: found.subsets[s] for s in subset_order(modalities) if s in found.subsets}
    return found


def _with_canonical_names(path: Path, predictions: Predictions, modalities: list[str]) -> Predictions:
    """The same with the names of the subsets used in channel order."""
    try:
        names = {used: subset_name(parse_subset(used, modalities), modalities) for used in set(predictions.used)}
    except NnmissError as error:
        raise NnmissError(f"{path}, column modalities: {error}") from None
    return replace(predictions, used=[names[used] for used in predictions.used])


def _canonical(name: str, modalities: list[str]) -> str:
    return AVAILABLE if name == AVAILABLE else subset_name(parse_subset(name, modalities), modalities)


def _of_single(folder: Path, predictions: Predictions, modalities: list[str]) -> str:
    record = folder / RECORD
    if record.is_file():
        shown = read_json(record, "record of predictions", ("shown",))["shown"]
        return _canonical(str(shown), modalities)
    used = set(predictions.used)
    return _canonical(used.pop(), modalities) if len(used) == 1 else AVAILABLE
