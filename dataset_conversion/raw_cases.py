"""Writes a converter's source cases as an nnU-Net raw data set; cases may lack channel files."""
from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
from tqdm import tqdm

from nnmiss.atomic_files import write_json
from nnmiss.dataset_conversion.raw_folder import new_dataset_folder
from nnmiss.dataset_conversion.resample import resample_image, resample_label
from nnmiss.dataset_conversion.source_files import check_geometry, read_label, read_nifti
from nnmiss.errors import NnmissError


@dataclass(frozen=True)
class SourceCase:
    """One case as a converter found it.

    images: modality name -> NIfTI file; absent modalities are not in it. label: None only allowed for test cases.
    problem: what the converter found wrong already; the case is then reported, not converted.
    """

    name: str
    images: dict[str, Path]
    label: Path | None
    test: bool = False
    problem: str | None = None


@dataclass(frozen=True)
class RawDataset:
    """What dataset.json says: modality names in channel order, nnU-Net's labels, and where the data are from.

    label_values: the integers a label file may hold. extra: further entries of dataset.json.
    """

    name: str
    modalities: tuple[str, ...]
    labels: dict[str, int | list[int]]
    label_values: tuple[int, ...]
    description: str
    extra: dict = field(default_factory=dict)


@dataclass
class ConversionSummary:
    """What was written: case -> modalities on disk for training and test cases, case -> message for failed ones.

    splits: the folds written to splits_final.json, if any.
    """

    folder: Path
    modalities: tuple[str, ...]
    training: dict[str, list[str]]
    test: dict[str, list[str]]
    failed: dict[str, str]
    splits: list[dict[str, list[str]]] = field(default_factory=list)

    def untrained(self) -> list[str]:
        """A sentence for every fold and modality that none of the fold's training cases has."""
        return [f"fold {k}: no training case has {m}, so this fold cannot learn it"
                for k, fold in enumerate(self.splits) for m in self.modalities
                if not any(m in self.training[case] for case in fold["train"])]


def write_raw_dataset(dataset: RawDataset, cases: Iterable[SourceCase], output: str | os.PathLike, dataset_id: int, *,
                      copy: str = "copy", spacing_mm: tuple[float, float, float] | None = None,
                      leave_one_out: bool = False, overwrite: bool = False) -> ConversionSummary:
    """Writes `output`/DatasetXXX_Name from `cases`; a bad case is left out and named, the others are written.

    Args:
        copy: "copy" or "link" (hard links; a file is copied where the file system refuses one). Files that are not
            .nii.gz are written anew. Labels are always written anew, as uint8.
        spacing_mm: resamples every case to this voxel size (`nnmiss.dataset_conversion.resample`).
        leave_one_out: writes splits_final.json, one fold per training case that validates on it alone.
        overwrite: replaces a data set of the same id and name.

    Returns:
        the summary; `failed` is empty when everything was converted.

    Raises NnmissError when no training case at all could be converted, when `leave_one_out` has fewer than two of
    them, or for the output folder's reasons. Then nothing is written.
    """
    cases = list(cases)
    with new_dataset_folder(output, dataset_id, dataset.name, overwrite) as (temporary, final):
        summary = ConversionSummary(final, dataset.modalities, {}, {}, {})
        for case in tqdm(cases, desc="converting", unit="case"):
            try:
                _write_case(temporary, dataset, case, copy, spacing_mm)
            except NnmissError as error:
                summary.failed[case.name] = str(error)
            else:
                written = summary.test if case.test else summary.training
                written[case.name] = [m for m in dataset.modalities if m in case.images]
        if not summary.training:
            reasons = "".join(f"\n  {case}: {message}" for case, message in summary.failed.items())
            raise NnmissError("no training case could be converted, so nothing was written" + reasons)
        if leave_one_out:
            summary.splits = leave_one_out_splits(list(summary.training))
            write_json(temporary / "splits_final.json", summary.splits)
        write_json(temporary / "dataset.json", _dataset_json(dataset, len(summary.training)))
    return summary


def leave_one_out_splits(cases: list[str]) -> list[dict[str, list[str]]]:
    """One fold a case, in nnU-Net's form: validate on it, train on all others. Raises NnmissError for one case."""
    if len(cases) < 2:
        raise NnmissError(f"a leave-one-out split needs at least two training cases, got {cases}")
    return [{"train": [c for c in cases if c != held_out], "val": [held_out]} for held_out in cases]


def _write_case(folder: Path, dataset: RawDataset, case: SourceCase, copy: str, spacing_mm) -> None:
    """Writes the channel files and the label of one case, or nothing. Raises NnmissError for a bad case."""
    if case.problem:
        raise NnmissError(case.problem)
    if not case.images:
        raise NnmissError(f"no channel file at all, expected one or more of {', '.join(dataset.modalities)}")
    if case.label is None and not case.test:
        raise NnmissError("no label file, which a training case needs (a test case does not)")
    images = {m: read_nifti(path) for m, path in case.images.items()}
    label = read_label(case.label, dataset.label_values) if case.label else None
    check_geometry([*zip(case.images.values(), images.values()), *([(case.label, label)] if label else [])])

    part = "Ts" if case.test else "Tr"
    for modality, image in images.items():
        (folder / f"images{part}").mkdir(exist_ok=True)
        target = folder / f"images{part}" / f"{case.name}_{dataset.modalities.index(modality):04d}.nii.gz"
        if spacing_mm:
            nib.save(resample_image(image, spacing_mm), target)
        else:
            _place(case.images[modality], image, target, copy)
    if label:
        (folder / f"labels{part}").mkdir(exist_ok=True)
        label = resample_label(label, spacing_mm) if spacing_mm else label
        nib.save(label, folder / f"labels{part}" / f"{case.name}.nii.gz")


def _place(source: Path, image: nib.Nifti1Image, target: Path, copy: str) -> None:
    """Brings an unchanged image to `target`: linked, copied, or compressed when the source is plain .nii."""
    if not source.name.endswith(".nii.gz"):
        nib.save(image, target)
    elif copy == "link":
        try:
            os.link(source.resolve(), target)
        except OSError:  # another file system, or one that has no hard links or forbids this one
            shutil.copyfile(source, target)
    else:
        shutil.copyfile(source, target)


def _dataset_json(dataset: RawDataset, num_training: int) -> dict:
    return {
        "name": dataset.name,
        "description": dataset.description,
        "channel_names": {str(i): modality for i, modality in enumerate(dataset.modalities)},
        "labels": dataset.labels,
        "numTraining": num_training,
        "file_ending": ".nii.gz",
        **dataset.extra,
    }
