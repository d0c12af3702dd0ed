"""Lists the cases of a raw folder in which any channel file may be absent."""
from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from nnmiss.availability import modality_names
from nnmiss.errors import NnmissError
from nnmiss.plain_names import require_name, shown
from nnmiss.preprocessing.file_names import is_utf8, misnamed_files


@dataclass(frozen=True)
class RawCase:
    """One case as it lies on disk: which file holds which channel, and its label file."""

    name: str
    files: dict[int, str]  # channel index -> path, in channel order; absent channels have no entry
    label: str | None
    problems: tuple[str, ...] = ()  # names of files beside these that look like the case's; it is not to be used then


def _names_in(folder: Path) -> list[str]:
    """File names of a folder; hidden files (also macOS's '._' companions) are not data."""
    if not folder.is_dir():
        raise NnmissError(f"folder {folder} not found")
    return sorted(f for f in os.listdir(folder) if not f.startswith("."))


def list_cases(images_folder: str | Path, file_ending: str, labels_folder: str | Path | None = None,
               strict: bool = True) -> list[RawCase]:
    """All cases of a folder of CASE_XXXX files, sorted by name, whatever channels they have.

    With `labels_folder` the cases are the union of image names and label names, so that a labelled case without any
    channel file is seen (its `files` is empty), and one without a label has `label` None. With `strict` False a misnamed
    file stops only the case that it may belong to: such cases have `problems`.

    Raises:
        NnmissError: a folder is absent or, with `strict`, `misnamed_files` finds something.
    """
    pattern = re.compile(r"(.+)_(\d{4})" + re.escape(file_ending))
    names, found = _names_in(Path(images_folder)), {}
    for file in names:
        if (match := pattern.fullmatch(file)) and is_utf8(file):
            found.setdefault(match[1], {})[int(match[2])] = str(Path(images_folder) / file)
    problems = misnamed_files(names, found, file_ending)
    if problems and strict:
        raise NnmissError(f"{images_folder} holds misnamed files (expected CASE_0000{file_ending}, CASE_0001{file_ending}, "
                          "...): rename or remove them" + _bullets([p for texts in problems.values() for p in texts]))
    labels = {}
    if labels_folder is not None:
        labels = {file[: -len(file_ending)]: str(Path(labels_folder) / file) for file in _names_in(Path(labels_folder))
                  if file.endswith(file_ending) and is_utf8(file)}
    return [RawCase(name, found.get(name, {}), labels.get(name), tuple(problems.get(name, ())))
            for name in sorted(found.keys() | labels.keys() | problems.keys())]


def list_training_cases(raw_dataset_folder: str | Path, dataset_json: dict, strict: bool = True) -> list[RawCase]:
    """The training cases of a raw data set: imagesTr and labelsTr, or dataset.json's explicit "dataset" entry.

    An explicit entry lists a case's images either in channel order with null for an absent channel, or (when it is
    shorter than channel_names) by names that end in _XXXX. Paths may be relative to the data set's folder. Such cases
    keep the order of dataset.json, as in nnU-Net. `strict` as in `list_cases`.

    Raises:
        NnmissError: as `list_cases`; an explicit list whose channels cannot be told; a listed file that is not there.
    """
    folder = Path(raw_dataset_folder)
    if "dataset" not in dataset_json:
        return list_cases(folder / "imagesTr", dataset_json["file_ending"], folder / "labelsTr", strict)
    entries = dataset_json["dataset"]
    if not isinstance(entries, dict):
        raise NnmissError(f'{folder}/dataset.json: "dataset" must map case names to {{"images": [...], "label": ...}}')
    num_channels = len(modality_names(dataset_json))
    cases = [_explicit_case(n, entries[n], folder, num_channels, dataset_json["file_ending"]) for n in entries]
    listed = [(c.name, f) for c in cases for f in [*c.files.values(), *([c.label] if c.label else [])]]
    absent = [f"case {name}: {file}" for name, file in listed if not os.path.isfile(file)]
    if absent:
        raise NnmissError("dataset.json lists files that do not exist (write null for an absent channel):"
                          + _bullets(absent))
    return cases


def _bullets(lines: list[str], limit: int = 50) -> str:
    more = f"\n  ... and {len(lines) - limit} more" if len(lines) > limit else ""
    return "".join(f"\n  - {line}" for line in lines[:limit]) + more


def _explicit_case(name: str, entry: dict, folder: Path, num_channels: int, file_ending: str) -> RawCase:
    if not isinstance(entry, dict) or not isinstance(entry.get("images"), list):
        raise NnmissError(f'dataset.json: "dataset" entry of case {name} must be {{"images": [...], "label": ...}}')
    require_name(name, 'dataset.json: in "dataset", case')
    strange = [file for file in [*entry["images"], entry.get("label")] if not isinstance(file, str | None)]
    if strange:
        raise NnmissError(f'dataset.json: "dataset" entry of case {name} names {shown(strange[0])}, expected a path')
    images = [None if file is None else _absolute(file, folder) for file in entry["images"]]
    label = entry.get("label")
    label = None if label is None else _absolute(label, folder)
    if len(images) == num_channels:
        return RawCase(name, {i: file for i, file in enumerate(images) if file is not None}, label)
    pattern = re.compile(r".*_(\d{4})" + re.escape(file_ending))
    matches = {file: pattern.fullmatch(file) for file in images if file is not None}
    channels = [int(m[1]) for m in matches.values() if m]
    if len(set(channels)) != len(matches) or len(matches) != len([f for f in images if f is not None]):
        raise NnmissError(f"dataset.json: case {name} lists {len(images)} images for {num_channels} channels: list one "
                          "per channel with null for an absent one, or end each file name in its channel index _XXXX")
    return RawCase(name, dict(sorted(zip(channels, matches))), label)


def _absolute(file: str, folder: Path) -> str:
    return os.path.abspath(folder / os.path.expandvars(file))


class ExplicitCases:
    """Mixin for nnU-Net's fingerprint extractor and planner that lets them list cases with holes.

    Both assign `dataset_json` and then list the cases it describes. Here the assignment also fills in the explicit
    "dataset" entry with the files that exist, so that nnU-Net's own listing neither miscounts nor stumbles over null.
    """

    @property
    def dataset_json(self) -> dict:
        return self._dataset_json

    @dataset_json.setter
    def dataset_json(self, content: dict) -> None:
        folder = getattr(self, "raw_dataset_folder", None) or self.input_folder
        self.cases = list_training_cases(folder, content)
        usable = {c.name: {"images": list(c.files.values()), "label": c.label} for c in self.cases if c.files and c.label}
        self._dataset_json = {**content, "dataset": usable}
