"""Converter of Medical Segmentation Decathlon tasks: 4-D images become one file per modality."""
from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nnmiss.atomic_files import read_json
from nnmiss.brats_years import canonical_label, find_challenge
from nnmiss.dataset_conversion.brats import label_entries
from nnmiss.dataset_conversion.raw_cases import NUM_THREADS, ConversionSummary, write_raw_dataset
from nnmiss.dataset_conversion.raw_types import RawDataset, SourceCase
from nnmiss.errors import NnmissError, shortened
from nnmiss.nifti_files import check_source, stem

DESCRIPTION = "a task of the Medical Segmentation Decathlon, as Task01_BrainTumour (4-D images)"
DEFAULT_ID = 830

BRATS_NAMES = {"flair": "flair", "t1": "t1", "t1w": "t1", "t1gd": "t1ce", "t1ce": "t1ce", "t1c": "t1ce", "t2": "t2",
               "t2w": "t2"}


@dataclass(frozen=True)
class Options:
    """Choices of this converter; the fields are the command's flags.

    Attributes:
        name: of the data set; None is the task's, as in Dataset830_BrainTumour.
        blank_is_missing: leaves out channels that hold one value only.
        num_threads: cases at once.
        disable_progress_bar: prints none.
        overwrite: replace a data set of the same id and name.
    """

    name: str | None = None
    blank_is_missing: bool = False
    num_threads: int = NUM_THREADS
    disable_progress_bar: bool = False
    overwrite: bool = False


@dataclass(frozen=True)
class Task:
    """What a task's dataset.json says.

    channels: modality names in the order of the file's volumes. labels: name -> integer, background left out.
    brats: the modalities and labels are those of BraTS.
    """

    name: str
    channels: tuple[str, ...]
    labels: dict[str, int]
    brats: bool
    content: dict


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that become `Options`."""
    parser.add_argument("--name", help="name of the data set (default: the task's)")
    parser.add_argument("--blank_is_missing", action="store_true",
                        help="leave out channels that hold one value only, which 4-D files need as placeholders")


def convert(sources: Sequence[str | os.PathLike], output: str | os.PathLike, dataset_id: int,
            options: Options) -> ConversionSummary:
    """Writes one task folder (with its dataset.json, imagesTr, labelsTr and perhaps imagesTs) as a raw data set.

    Modalities and labels of brain tumours get nnmiss' names, order and regions; other tasks keep theirs in lower case.

    Returns the summary; cases that could not be converted are in `failed`. Raises NnmissError for a folder that is no
    task, and as `write_raw_dataset` does.
    """
    if len(sources) != 1:
        raise NnmissError(f"-i takes one task folder, got {len(sources)}")
    folder = find_task(sources[0])
    task = read_task(folder)
    cases, notes = find_cases(folder, task)
    order = [m for m in ("flair", "t1", "t1ce", "t2") if m in task.channels] if task.brats else task.channels
    names = {"background": 0, **{label: k for k, label in enumerate(task.labels, start=1)}}
    entries, extra = names, {}
    if task.brats:
        labels = find_challenge(2018).consecutive_labels()
        names = {"background": 0, **labels}
        entries, more = label_entries(labels, find_challenge(2018).regions())
        extra = {**more, "brats": {"label_names": labels}}
    source_ids = {"background": 0, **task.labels}
    dataset = RawDataset(
        name=options.name or task.name, modalities=tuple(order), labels=entries, label_values=tuple(names.values()),
        description=str(task.content.get("description", "")), label_map={source_ids[n]: names[n] for n in names},
        extra={**extra, **{key: task.content[key] for key in ("reference", "licence", "release") if key in task.content}})
    return write_raw_dataset(dataset, cases, output, dataset_id, overwrite=options.overwrite, notes=notes,
                             blank_is_missing=options.blank_is_missing, num_threads=options.num_threads,
                             disable_progress_bar=options.disable_progress_bar)


def find_task(source: str | os.PathLike) -> Path:
    """The task folder: `source`, or the only folder in it with a dataset.json. Raises NnmissError for none or several."""
    source = check_source(source)
    if (source / "dataset.json").is_file():
        return source
    below = sorted(p.parent for p in source.glob("*/dataset.json"))
    if len(below) == 1:
        return below[0]
    there = f"several ({shortened([p.name for p in below])})" if below else "none"
    raise NnmissError(f"{source} holds no dataset.json; of its folders {there} has one: give a task's folder, as "
                      "Task01_BrainTumour")


def read_task(folder: Path) -> Task:
    """Names of modalities and labels. Raises NnmissError for a dataset.json that is not a Decathlon's."""
    path = folder / "dataset.json"
    content = read_json(path, "the task's dataset.json", ("modality", "labels"))
    channels, labels = content["modality"], content["labels"]
    if not channels or not isinstance(channels, dict) or set(channels) != set(map(str, range(len(channels)))):
        raise NnmissError(f'{path}: "modality" must map "0", "1", ... to names, got {channels!r}')
    if not isinstance(labels, dict) or not all(str(value).isdigit() for value in labels):
        raise NnmissError(f'{path}: "labels" must map "0", "1", ... to names, got {labels!r}')
    names = [str(channels[str(k)]) for k in range(len(channels))]
    foreground = sorted((int(value), str(name)) for value, name in labels.items() if int(value))
    canonical = {canonical_label(name): value for value, name in foreground}
    brats = (set(canonical) == {"ed", "ncr", "et"} and len(foreground) == 3
             and len(names) > 1 and {n.lower() for n in names} <= set(BRATS_NAMES))
    channels = tuple(BRATS_NAMES[n.lower()] if brats else plain_name(n) for n in names)
    if len(set(channels)) < len(channels):
        raise NnmissError(f'{path}: "modality" names must differ without regard to case, got {names}')
    name = re.sub(r"^Task\d+_", "", folder.resolve().name)
    return Task(re.sub(r"[^A-Za-z0-9_-]", "", name) or "MSD", channels, canonical if brats else _plain_labels(foreground),
                brats, content)


def find_cases(folder: Path, task: Task) -> tuple[list[SourceCase], list[str]]:
    """The cases of imagesTr and imagesTs, those that dataset.json lists but the folder lacks as problems; and notes.

    Raises NnmissError when there is no training image and no test image.
    """
    cases, notes = [], []
    for part, test in (("Tr", False), ("Ts", True)):
        images, labels = _files(folder / f"images{part}"), _files(folder / f"labels{part}")
        listed = {stem(name) or name for name in _listed(task.content, test)}
        for name in sorted(images.keys() | labels.keys() | listed):
            problem = None
            if name not in images:
                problem = f"{folder / f'images{part}' / name}.nii.gz is not there" + (
                    ", though dataset.json lists it" if name in listed else ", though it has a label")
            elif name not in labels and not test:
                problem = f"{folder / 'labelsTr' / name}.nii.gz is not there, which a training case needs"
            files = dict.fromkeys(task.channels, images[name]) if name in images else {}
            cases.append(SourceCase(name, files, labels.get(name), test, problem, stacked=True))
        unlisted = sorted(images.keys() - listed)
        if listed and unlisted:
            notes.append(f"dataset.json does not list these of images{part}, which were converted: {shortened(unlisted)}")
    if not any(case.images for case in cases):
        raise NnmissError(f"{folder} has no images: expected imagesTr/CASE.nii.gz and labelsTr/CASE.nii.gz")
    return cases, notes


def plain_name(name: str) -> str:
    """A modality's name in lower case, with _ for what cannot stand in the name of a folder of subsets."""
    return re.sub(r"[\s+/\\]+", "_", name.strip().lower()) or "image"


def _plain_labels(foreground: list[tuple[int, str]]) -> dict[str, int]:
    """Label names without blanks, in the order of their integers. Raises NnmissError for names that fall together."""
    names = {re.sub(r"\s+", "_", name.strip().lower()): value for value, name in foreground}
    if len(names) < len(foreground) or "background" in names:
        raise NnmissError('dataset.json: "labels" must have distinct names besides the background, got '
                          f"{dict(foreground)}")
    return names


def _files(folder: Path) -> dict[str, Path]:
    """Case -> file; hidden files, as macOS' ._ companions, are none."""
    if not folder.is_dir():
        return {}
    return {stem(p.name): p for p in sorted(folder.iterdir()) if stem(p.name) and not p.name.startswith(".")}


def _listed(content: dict, test: bool) -> list[str]:
    """File names that dataset.json lists for training or test; entries of other forms are passed over."""
    entries = content.get("test" if test else "training")
    entries = entries if isinstance(entries, list) else []
    paths = [entry.get("image") if isinstance(entry, dict) else entry for entry in entries]
    names = [Path(path).name for path in paths if isinstance(path, str)]
    return [name for name in names if not name.startswith(".")]
