"""Converters of the BraTS years: one mechanism, told by `nnmiss.brats_years` in what a year differs."""
from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nnmiss.brats_years import CHALLENGES, Challenge, find_challenge
from nnmiss.dataset_conversion.brats_files import Download, FoundCase, empty_cases, merge, sort_files
from nnmiss.dataset_conversion.brats_notes import foreign_hint, found_notes, nothing_found, year_notes
from nnmiss.dataset_conversion.folder_names import folder_names
from nnmiss.dataset_conversion.raw_cases import NUM_THREADS, ConversionSummary, write_raw_dataset
from nnmiss.dataset_conversion.raw_types import RawDataset, SourceCase
from nnmiss.errors import NnmissError
from nnmiss.nifti_files import distinct_sources, nifti_files


@dataclass(frozen=True)
class Options:
    """Choices of a BraTS converter; the fields are the command's flags.

    Attributes:
        challenge: one of the year's (GLI, MEN, ...).
        name: of the data set; None is BraTS2020, or BraTS2024_PED for other challenges than GLI.
        copy: "copy" or "link".
        blank_is_missing: leaves out images that hold one value only.
        num_threads: cases at once.
        disable_progress_bar: prints none.
        overwrite: replace a data set of the same id and name.
    """

    challenge: str = "GLI"
    name: str | None = None
    copy: str = "copy"
    blank_is_missing: bool = False
    num_threads: int = NUM_THREADS
    disable_progress_bar: bool = False
    overwrite: bool = False


class BratsConverter:
    """The converter of one year; it has what a converter module has (see `nnmiss.dataset_conversion`)."""

    Options = Options

    def __init__(self, year: int):
        self.year = year
        self.challenges = [name for y, name in CHALLENGES if y == year]
        self.DEFAULT_ID = 800 + year % 100
        self.DESCRIPTION = f"brain tumours of BraTS {year} in FLAIR, T1, T1 + contrast and T2"
        if len(self.challenges) > 1:
            self.DESCRIPTION += f" (--challenge {', '.join(self.challenges)})"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Adds the flags that become `Options`."""
        parser.add_argument("--challenge", type=str.upper, choices=self.challenges, default=Options.challenge,
                            help="which of the year's (default %(default)s)")
        parser.add_argument("--name", help=f"name of the data set (default BraTS{self.year}, BraTS{self.year}_MET, ...)")
        parser.add_argument("--copy", choices=("copy", "link"), default=Options.copy,
                            help="hard links save space but share the source's content (default %(default)s)")
        parser.add_argument("--blank_is_missing", action="store_true", help="leave out images that hold one value only")

    def convert(self, sources: Sequence[str | os.PathLike], output: str | os.PathLike, dataset_id: int,
                options: Options) -> ConversionSummary:
        """Writes the cases below `sources` as a raw data set with regions; names are the official ids.

        Cases without a segmentation go to imagesTs when their id or a folder says validation or test, or when the whole
        source has no segmentation. Returns the summary; cases that could not be converted are in `failed`. Raises
        NnmissError when the folders hold no case of the year, and as `write_raw_dataset` does.
        """
        rules = find_challenge(self.year, options.challenge)
        download, folders = Download(), [Path(source) for source in distinct_sources(sources)]
        for folder in folders:
            merge(download, sort_files(nifti_files(folder), rules))
        empty = [case for folder in folders for case in empty_cases(folder, folder_names(folder), download, rules)]
        if not download.cases:
            raise NnmissError(nothing_found(sources, rules, download, empty))
        download.cases.update({case.name: case for case in empty})
        cases = [_source_case(case, rules) for _, case in sorted(download.cases.items())]
        dataset = _raw_dataset(rules, options.name)
        summary = write_raw_dataset(dataset, cases, output, dataset_id, copy=options.copy, overwrite=options.overwrite,
                                    blank_is_missing=options.blank_is_missing, num_threads=options.num_threads,
                                    notes=[*found_notes(download, cases, rules), *year_notes(download, rules)],
                                    disable_progress_bar=options.disable_progress_bar)
        if download.foreign:
            summary.errors.append(foreign_hint(download, rules))
        return summary


def label_entries(labels: dict[str, int], regions: dict[str, tuple[str, ...]]) -> tuple[dict, dict]:
    """dataset.json's "labels" and further entries for label name -> integer and region -> label names.

    Regions are written over each other in their order, so each needs a label of its own: its first (regions_class_order).
    A single label is no region to nnU-Net and stays a plain one.
    """
    entries = {"background": 0, **{region: [labels[m] for m in members] for region, members in regions.items()}}
    if all(len(members) == 1 for members in regions.values()):
        return {name: value if name == "background" else value[0] for name, value in entries.items()}, {}
    return entries, {"regions_class_order": [labels[members[0]] for members in regions.values()]}


def _raw_dataset(rules: Challenge, name: str | None) -> RawDataset:
    labels = rules.consecutive_labels()
    entries, extra = label_entries(labels, rules.regions())
    label_map = {0: 0, **{source: labels[label] for label, source in rules.labels.items()}}
    default = f"BraTS{rules.year}" + ("" if rules.name == "GLI" else f"_{rules.name}")
    meaning = ", ".join(f"{source} {label}" for label, source in rules.labels.items())
    return RawDataset(
        name=name or default, modalities=rules.modalities, labels=entries, label_values=tuple(labels.values()),
        description=f"{rules.title}, converted from the official files", label_map=label_map,
        label_hint=f" ({meaning} in {rules.title}): are they of another year or challenge, or converted already?",
        extra={**extra, "brats": {"year": rules.year, "challenge": rules.name, "label_names": labels}})


def _source_case(case: FoundCase, rules: Challenge) -> SourceCase:
    """The case for the writer; several files of a kind, or no segmentation where one must be, are its problem."""
    problems = list(dict.fromkeys(case.problems))
    for kind, files in case.files.items():
        if len(files) > 1:
            places = {str(file.path.parent) for file in files}
            what = "the case is there twice, " if len(places) > 1 else "two files are the "
            kind = "segmentation" if kind == "label" else kind
            problems.append(f"{what}{kind} as {' and '.join(str(f.path) for f in files)}: keep one")
    images = {m: case.files[m][0].path for m in rules.modalities if m in case.files}
    label = case.files["label"][0].path if "label" in case.files else None
    if not case.files:
        return SourceCase(case.name, images, label, case.unlabelled_source or case.held_out(), "; ".join(problems))
    test = case.held_out(with_source=False) if label else case.unlabelled_source or case.held_out()
    if label is None and not test:
        problems.append(f"no segmentation beside {case.any_file().path}, and neither id nor folder says that it is a "
                        "validation or test case")
    return SourceCase(case.name, images, label, test, problem="; ".join(problems) or None)
