"""Converter of the open multiple-sclerosis data set of Ljubljana (Lesjak 2017): FLAIR, T1, T1 with contrast, T2."""
from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nnmiss.availability import match_modality
from nnmiss.dataset_conversion.raw_cases import NUM_THREADS, ConversionSummary, write_raw_dataset
from nnmiss.dataset_conversion.raw_types import RawDataset, SourceCase
from nnmiss.errors import NnmissError, nearest_names

DESCRIPTION = "multiple-sclerosis lesions in FLAIR, T1, T1 + contrast and T2 (Lesjak 2017; folders patientXX)"
DEFAULT_ID = 810

# How a file's name, without patient and ending, begins. T1POST before T1, which is its beginning too.
FILE_KINDS = {
    "flair": r"FLAIR",
    "t1ce": r"(T1POST|T1WKS|T1KS)",
    "t1": r"(T1W|T1)",
    "t2": r"(T2W|T2)",
    "label": r"(GOLD_STANDARD|consensus_gt)",
}
MODALITIES = ("flair", "t1", "t1ce", "t2")


@dataclass(frozen=True)
class Options:
    """Choices of this converter; the fields are the command's flags.

    Attributes:
        name: of the data set, as in Dataset810_OpenMS.
        spacing_mm: resample to this voxel size, one number or three; None keeps the grid and the files as they are.
        test: patients that go to imagesTs and labelsTs.
        drop: "patient:modality" channel files to leave out.
        copy: "copy" or "link".
        demo_split: write splits_final.json with one fold per training patient, validated on it.
        num_threads: patients at once.
        disable_progress_bar: prints none.
        overwrite: replace a data set of the same id and name.
    """

    name: str = "OpenMS"
    spacing_mm: Sequence[float] | None = None
    test: Sequence[str] = ()
    drop: Sequence[str] = ()
    copy: str = "copy"
    demo_split: bool = False
    num_threads: int = NUM_THREADS
    disable_progress_bar: bool = False
    overwrite: bool = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that become `Options`."""
    parser.add_argument("--name", default=Options.name, help="name of the data set (default %(default)s)")
    parser.add_argument("--spacing", dest="spacing_mm", type=float, nargs="+", metavar="MM",
                        help="resample to this voxel size, one number or three (default: keep the grid)")
    parser.add_argument("--test", nargs="+", default=[], metavar="PATIENT",
                        help="patients for imagesTs and labelsTs, not for training")
    parser.add_argument("--drop", nargs="+", action="extend", default=[], metavar="PATIENT:MODALITY",
                        help="leave out this channel file, as patient07:t1ce (may be repeated)")
    parser.add_argument("--copy", choices=("copy", "link"), default=Options.copy,
                        help="hard links save space but share the source's content (default %(default)s)")
    parser.add_argument("--demo_split", action="store_true",
                        help="write splits_final.json: one fold per training patient, validated on that one")


def convert(sources: Sequence[str | os.PathLike], output: str | os.PathLike, dataset_id: int,
            options: Options) -> ConversionSummary:
    """Writes the patients found in the `sources` folders as a raw data set with labels {background 0, lesion 1}.

    Without `spacing_mm` the images keep every voxel value, the small negative ones from interpolation too: z-scoring
    does not mind them, and the background is exactly zero already. With it see `nnmiss.dataset_conversion.resample`.

    Returns the summary; patients that could not be converted are in `failed`. Raises NnmissError when no patients are
    found, for options that name patients or modalities that are not there, and as `write_raw_dataset` does.
    """
    cases = find_patients(sources)
    cases = _mark_test(cases, options.test)
    cases = _drop_channels(cases, options.drop)
    dataset = RawDataset(
        name=options.name, modalities=MODALITIES, labels={"background": 0, "lesion": 1}, label_values=(0, 1),
        description="3D MR image database of multiple sclerosis patients with white matter lesion segmentations",
        extra={"reference": "Lesjak et al., Neuroinformatics 2017, doi:10.1007/s12021-017-9348-7", "licence": "CC BY"},
    )
    return write_raw_dataset(dataset, cases.values(), output, dataset_id, copy=options.copy,
                             spacing_mm=_three(options.spacing_mm), leave_one_out=options.demo_split,
                             overwrite=options.overwrite, num_threads=options.num_threads,
                             disable_progress_bar=options.disable_progress_bar)


def find_patients(sources: Sequence[str | os.PathLike]) -> dict[str, SourceCase]:
    """Patient name -> its files, for the sub-folders of `sources` that are named patient* or hold files of this kind.

    A source may also be one patient's folder. Raises NnmissError for an absent source, a patient found twice, or none.
    """
    cases: dict[str, SourceCase] = {}
    for source in map(Path, sources):
        if not source.is_dir():
            raise NnmissError(f"source folder {source} does not exist: -i takes the folder that holds patient07, ...")
        for folder in sorted([source, *(p for p in source.iterdir() if p.is_dir())]):
            case = _patient(folder)
            if folder == source and not (case.images or case.label):
                continue
            if not (case.images or case.label or case.problem or folder.name.lower().startswith("patient")):
                continue
            if case.name in cases:
                raise NnmissError(f"patient {case.name} is in two source folders, the second is {folder}: give one")
            cases[case.name] = case
    if not cases:
        raise NnmissError(f"no patients in {', '.join(map(str, sources))}: expected sub-folders such as patient07 with "
                          "files FLAIR_*.nii.gz, T1_*, T1POST_*, T2_* and GOLD_STANDARD_*")
    return cases


def _patient(folder: Path) -> SourceCase:
    """What lies in one folder; two files of one kind are its `problem`."""
    found: dict[str, Path] = {}
    problem = None
    for path in sorted(folder.iterdir()):
        kind = _file_kind(path.name, folder.name)
        if kind and path.is_file():
            if kind in found:
                problem = f"{path} and {found[kind].name} are both {kind}: keep one of them"
            found[kind] = path
    label = found.pop("label", None)
    return SourceCase(folder.name, {m: found[m] for m in MODALITIES if m in found}, label, problem=problem)


def _file_kind(file_name: str, patient: str) -> str | None:
    """'flair', 't1', 't1ce', 't2' or 'label' for FLAIR_N4.nii.gz or patient07_FLAIR.nii.gz; None for other files."""
    stem, ending, rest = file_name.partition(".nii")
    if not ending or rest not in ("", ".gz"):
        return None
    stem = stem.removeprefix(f"{patient}_")
    return next((kind for kind, form in FILE_KINDS.items() if re.match(form + r"(_|$)", stem, re.IGNORECASE)), None)


def _mark_test(cases: dict[str, SourceCase], test: Sequence[str]) -> dict[str, SourceCase]:
    chosen = {_match_patient(name, cases, "--test") for name in test}
    return {name: replace(case, test=name in chosen) for name, case in cases.items()}


def _drop_channels(cases: dict[str, SourceCase], drop: Sequence[str]) -> dict[str, SourceCase]:
    """`cases` without the channel files that `drop` names. Raises NnmissError if one is not there or nothing stays."""
    cases = dict(cases)
    for item in drop:
        patient, colon, modality = item.partition(":")
        if not colon:
            raise NnmissError(f"--drop takes PATIENT:MODALITY, as patient07:t1ce, got {item!r}")
        patient = _match_patient(patient, cases, "--drop")
        modality = MODALITIES[match_modality(modality, list(MODALITIES))]
        case = cases[patient]
        if modality not in case.images:
            raise NnmissError(f"--drop {item}: {patient} has no {modality} file, it has {', '.join(case.images)}")
        kept = {m: path for m, path in case.images.items() if m != modality}
        if not kept:
            raise NnmissError(f"--drop {item}: {patient} would keep no channel file: leave it at least one")
        cases[patient] = replace(case, images=kept)
    return cases


def _match_patient(name: str, cases: dict[str, SourceCase], flag: str) -> str:
    if name not in cases:
        raise NnmissError(f"{flag}: there is no patient {name!r} in the source. {nearest_names(name, list(cases))}")
    return name


def _three(spacing_mm: Sequence[float] | None) -> tuple[float, float, float] | None:
    """One or three numbers as three. Raises NnmissError for others."""
    if spacing_mm is None:
        return None
    spacing = tuple(spacing_mm) * (3 if len(spacing_mm) == 1 else 1)
    if len(spacing) != 3 or not all(s > 0 for s in spacing):
        raise NnmissError(f"--spacing takes one or three positive numbers of mm, got {list(spacing_mm)}")
    return spacing
