"""Finds the predictions of a folder: one folder per modality subset, or flat with CASE.json beside each case."""
from __future__ import annotations

from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from nnmiss.atomic_files import read_json
from nnmiss.availability import all_subsets, parse_subset, subset_name
from nnmiss.errors import NnmissError


@dataclass(frozen=True)
class Prediction:
    """One predicted segmentation: of which case, with which modalities (canonical subset name), in which file."""

    case: str
    subset: str
    path: Path

    @property
    def probabilities(self) -> Path:
        """Where its probabilities are, if they were saved."""
        return self.path.with_name(f"{self.case}.npz")


@dataclass
class Found:
    """What a prediction folder holds: predictions, errors (things that could not be used) and notes."""

    predictions: list[Prediction] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def case_files(folder: Path, file_ending: str) -> dict[str, Path]:
    """Case name -> file, sorted; hidden files are unfinished ones and are left out."""
    return {p.name[: -len(file_ending)]: p for p in sorted(folder.iterdir())
            if p.is_file() and p.name.endswith(file_ending) and not p.name.startswith(".")}


def find_predictions(folder: str | Path, modalities: list[str], file_ending: str) -> Found:
    """Lists `folder/CASE.nii.gz` with their CASE.json, or `folder/<subset>/CASE.nii.gz`.

    Raises NnmissError when the folder is absent, has no prediction, or mixes both layouts.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise NnmissError(f"prediction folder {folder} does not exist: give what nnmiss_predict wrote to (-o) as -pred")
    found = Found()
    subfolders = _subset_folders(folder, modalities, file_ending, found)
    flat = case_files(folder, file_ending)
    if flat and subfolders:
        raise NnmissError(f"{folder} holds predictions ({next(iter(flat.values())).name} ...) and folders of subsets "
                          f"({next(iter(subfolders))} ...): move one of them elsewhere, both cannot go into one table")
    for subset, subfolder in subfolders.items():
        found.predictions += [Prediction(c, subset, p) for c, p in case_files(subfolder, file_ending).items()]
    _add_flat(flat, modalities, found)
    if not found.predictions:
        raise NnmissError(f"no *{file_ending} found in {folder} nor in folders of it named like "
                          f"{'+'.join(modalities[:2])}. " + " ".join(found.errors[:5]))
    return found


def subset_order(modalities: list[str]) -> list[str]:
    """The names of all subsets in the row order of the tables."""
    return [subset_name(present, modalities) for present in all_subsets(len(modalities))]


NOT_SUBSETS = ("uncertainty", "reconstructions")  # what nnmiss_predict writes beside segmentations


def _subset_folders(folder: Path, modalities: list[str], file_ending: str, found: Found) -> dict[str, Path]:
    """Canonical subset name -> folder, in table order. A name that nearly fits is an error, any other a note."""
    named: dict[str, Path] = {}
    lower = [m.lower() for m in modalities]
    for subfolder in sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")):
        if subfolder.name in NOT_SUBSETS and subfolder.name not in lower:
            continue
        if not case_files(subfolder, file_ending):
            continue
        try:
            subset = subset_name(parse_subset(subfolder.name, modalities), modalities)
        except NnmissError as error:
            near = any(get_close_matches(part.lower(), lower, cutoff=0.5) for part in subfolder.name.split("+"))
            (found.errors if near else found.notes).append(f"folder {subfolder} was not used: {error}")
            continue
        if subset in named:
            raise NnmissError(f"{named[subset]} and {subfolder} both hold subset {subset}: keep one of them")
        named[subset] = subfolder
    return {subset: named[subset] for subset in sorted(named, key=subset_order(modalities).index)}


def _add_flat(flat: dict[str, Path], modalities: list[str], found: Found) -> None:
    """Reads `modalities_used` of each CASE.json; without one, the case counts as predicted with all modalities."""
    without = []
    for case, path in flat.items():
        record = path.with_name(f"{case}.json")
        used = modalities
        try:
            content = read_json(record, "record of the prediction") if record.is_file() else {}
            if isinstance(content, dict) and "modalities_used" in content:
                used = content["modalities_used"]
            else:
                without.append(case)
            if not isinstance(used, list) or not all(isinstance(name, str) for name in used):
                raise NnmissError(f'"modalities_used" must be a list of names, got {used!r}')
            subset = subset_name(parse_subset(used, modalities), modalities)
        except NnmissError as error:
            found.errors.append(f"case {case} ({record}): {error}")
            continue
        found.predictions.append(Prediction(case, subset, path))
    if without:
        have = "1 prediction has" if len(without) == 1 else f"{len(without)} predictions have"
        found.notes.append(f"{have} no CASE.json that says which modalities were used "
                           f"({', '.join(without[:3])}{' ...' if len(without) > 3 else ''}): counted as all modalities")
