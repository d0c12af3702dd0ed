"""Whether predictions were made for the data set they are evaluated with: their own dataset.json tells."""
from __future__ import annotations

from pathlib import Path

from nnmiss.atomic_files import read_json
from nnmiss.availability import modality_names
from nnmiss.errors import NnmissError


def check_same_dataset(pred_folder: str | Path, dataset_json: dict) -> list[str]:
    """Compares the dataset.json beside predictions with the one that is evaluated by; returns notes.

    Raises NnmissError when a label has one name and other integers, or the modalities are others: the scores would be of
    something else than their names say. Names that only one of the two has, and another order, are noted.
    """
    path = Path(pred_folder) / "dataset.json"
    if not path.is_file():
        return []
    try:
        theirs = read_json(path, "dataset.json", keys=("labels", "channel_names"))
        modalities = modality_names(theirs)
    except NnmissError as error:
        return [f"whether the predictions are of this data set cannot be told: {error}"]
    ours, notes = modality_names(dataset_json), []
    if {m.lower() for m in modalities} != {m.lower() for m in ours}:
        raise NnmissError(f"the predictions were made with modalities {', '.join(modalities)} ({path}), the data set has "
                          f"{', '.join(ours)}: check -d")
    if modalities != ours:
        notes.append(f"{path} has the modalities in the order {', '.join(modalities)}, the data set {', '.join(ours)}")
    labels, own = _labels(theirs), _labels(dataset_json)
    differ = [f"{name} is {sorted(labels[name])} there and {sorted(own[name])} here"
              for name in sorted(labels.keys() & own.keys()) if labels[name] != own[name]]
    if differ:
        raise NnmissError(f"{path} has other labels than the data set: {'; '.join(differ)}. Check -d, or leave it out to "
                          "evaluate by the predictions' own dataset.json")
    only = [f"{', '.join(sorted(a.keys() - b.keys()))} only {where}"
            for a, b, where in ((labels, own, "there"), (own, labels, "here")) if a.keys() - b.keys()]
    if only:
        notes.append(f"{path} and the data set name labels differently: {'; '.join(only)}")
    return notes


def _labels(dataset_json: dict) -> dict[str, frozenset]:
    labels = dataset_json.get("labels")
    return {name: frozenset(map(str, value if isinstance(value, list | tuple) else [value]))
            for name, value in labels.items()} if isinstance(labels, dict) else {}
