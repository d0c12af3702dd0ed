"""Converter of anybody's own data: a file-name pattern for each modality and for the label."""
from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnmiss.brats_years import canonical_label
from nnmiss.dataset_conversion.file_patterns import find_pattern_files, parse_pattern
from nnmiss.dataset_conversion.folder_names import folder_names
from nnmiss.dataset_conversion.label_choice import parse_labels, parse_regions
from nnmiss.dataset_conversion.raw_cases import NUM_THREADS, ConversionSummary, write_raw_dataset
from nnmiss.dataset_conversion.raw_types import RawDataset, SourceCase
from nnmiss.errors import NnmissError, shortened
from nnmiss.nifti_files import NiftiFile, describe, distinct_sources, nifti_files

DESCRIPTION = "your own data: a pattern of file names for each modality and the label"
DEFAULT_ID = 840


@dataclass(frozen=True)
class Options:
    """Choices of this converter; the fields are the command's flags.

    Attributes:
        modalities: "NAME=PATTERN", in channel order; see `nnmiss.dataset_conversion.file_patterns`.
        label: the pattern of the label files; None when no case has one.
        labels: "NAME=INTEGER" of the label files, background left out; they become 1, 2, ... in this order.
        regions: "NAME=LABEL,LABEL", names or integers of `labels`.
        name: of the data set.
        unlabelled: "error", or "test": a case without label goes to imagesTs.
        copy: "copy" or "link".
        blank_is_missing: leaves out images that hold one value only.
        num_threads: cases at once.
        disable_progress_bar: prints none.
        overwrite: replace a data set of the same id and name.
    """

    modalities: Sequence[str] = ()
    label: str | None = None
    labels: Sequence[str] = ()
    regions: Sequence[str] = ()
    name: str = "MyData"
    unlabelled: str = "error"
    copy: str = "copy"
    blank_is_missing: bool = False
    num_threads: int = NUM_THREADS
    disable_progress_bar: bool = False
    overwrite: bool = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that become `Options`."""
    parser.add_argument("--modality", dest="modalities", action="append", required=True, metavar="NAME=PATTERN",
                        help="files of a modality below the source, as flair='{case}/*FLAIR*.nii.gz'; once for each, in "
                             "channel order. {case} is the case's name; * and ? stand for anything but /, ** for folders")
    parser.add_argument("--label", metavar="PATTERN", help="files of the labels, as '{case}/*seg*.nii.gz'")
    parser.add_argument("--labels", nargs="+", action="extend", default=[], metavar="NAME=INTEGER",
                        help="what the integers in the label files mean, as lesion=1; 0 is the background")
    parser.add_argument("--regions", nargs="+", action="extend", default=[], metavar="NAME=LABEL,...",
                        help="train on unions of labels, largest first: whole_tumor=ed,ncr,et tumor_core=ncr,et")
    parser.add_argument("--name", default=Options.name, help="name of the data set (default %(default)s)")
    parser.add_argument("--unlabelled", choices=("error", "test"), default=Options.unlabelled,
                        help="what a case without label is: an error, or a test case (default %(default)s)")
    parser.add_argument("--copy", choices=("copy", "link"), default=Options.copy,
                        help="hard links save space but share the source's content (default %(default)s)")
    parser.add_argument("--blank_is_missing", action="store_true", help="leave out images that hold one value only")


def convert(sources: Sequence[str | os.PathLike], output: str | os.PathLike, dataset_id: int,
            options: Options) -> ConversionSummary:
    """Writes the cases that the patterns find below `sources` as a raw data set.

    Returns the summary; cases that could not be converted (two files for one modality, no label, ...) are in `failed`.
    Raises NnmissError for patterns, labels or regions that cannot be, for a pattern that finds nothing, and as
    `write_raw_dataset` does.
    """
    patterns = _modality_patterns(options.modalities)
    label_map, entries, extra = _labels(options)
    files = [file for source in distinct_sources(sources) for file in nifti_files(source)]
    wanted = {**patterns, **({"label": options.label} if options.label else {})}
    found = {}
    for name, pattern in wanted.items():
        found[name] = find_pattern_files(parse_pattern(pattern), files)
        if not found[name]:
            there = "; ".join(describe(source) for source in sources)
            raise NnmissError(f"the pattern of {name}, {pattern}, finds no file; {there}")
    cases = _cases(found, list(patterns), options.unlabelled == "test")
    dataset = RawDataset(
        name=options.name, modalities=tuple(patterns), labels=entries, label_values=tuple(label_map.values()),
        description="converted with nnmiss_convert_dataset folder", label_map=label_map, extra=extra,
        label_hint=": name them with --labels")
    used = {file.path for by_case in found.values() for several in by_case.values() for file in several}
    unused = [file.relative for file in files if file.path not in used]
    notes = [f"{len(unused)} NIfTI files match no pattern and were not used: {shortened(unused, 5)}"] if unused else []
    empty = _empty_folders(sources, wanted.values(), {case.name for case in cases})
    if empty:
        notes.append(f"where the patterns expect a case, there are folders without any of its files: {shortened(empty)}")
    return write_raw_dataset(dataset, cases, output, dataset_id, copy=options.copy, overwrite=options.overwrite,
                             blank_is_missing=options.blank_is_missing, num_threads=options.num_threads, notes=notes,
                             disable_progress_bar=options.disable_progress_bar)


def _modality_patterns(modalities: Sequence[str]) -> dict[str, str]:
    """Modality -> pattern. Raises NnmissError for names that cannot be, or twice."""
    patterns: dict[str, str] = {}
    for item in modalities:
        name, equals, pattern = item.partition("=")
        name = name.strip()
        if not equals or not name or not pattern or "+" in name or "/" in name:
            raise NnmissError(f"--modality takes NAME=PATTERN, as flair='{{case}}/*FLAIR*.nii.gz' (no + or / in the name), "
                              f"got {item!r}")
        if name.lower() == "label":
            raise NnmissError("--modality cannot be called label, which --label is for")
        if name.lower() in {known.lower() for known in patterns}:
            raise NnmissError(f"--modality {name} is given twice: one pattern for each modality")
        patterns[name] = pattern
    if not patterns:
        raise NnmissError("--modality NAME=PATTERN is needed, once for each modality")
    return patterns


def _labels(options: Options) -> tuple[dict[int, int], dict, dict]:
    """Source integer -> ours, dataset.json's "labels", and its further entries. Raises NnmissError for impossible ones."""
    if not options.label and options.unlabelled != "test":
        raise NnmissError("--label PATTERN is needed, or --unlabelled test when no case has a label")
    if options.label and not options.labels:
        raise NnmissError("--labels is needed: what do the integers in the label files mean? As --labels lesion=1")
    labels = parse_labels(options.labels)
    ours = {name: k for k, name in enumerate(labels, start=1)}
    label_map = {0: 0, **{labels[name]: ours[name] for name in labels}}
    if not options.regions:
        return label_map, {"background": 0, **ours}, {}
    regions, order = parse_regions(options.regions, labels)
    extra = {"regions_class_order": [ours[name] for name in order]}
    canonical = [canonical_label(name) for name in ours]
    if None not in canonical and len(set(canonical)) == len(canonical):
        extra["brats"] = {"label_names": dict(zip(canonical, ours.values()))}
    entries = {region: sorted(ours[name] for name in members) for region, members in regions.items()}
    return label_map, {"background": 0, **entries}, extra


def _empty_folders(sources: Sequence[str | os.PathLike], patterns: Iterable[str], known: set[str]) -> list[str]:
    """Folders that are called as a pattern's folder of a case ({case}, sub-{case}), but of whose case nothing was found."""
    forms = [parse_pattern(whole[0]) for whole in (re.match(r"[^{]*\{case\}[^/]*(?=/)", p) for p in patterns) if whole]
    names = ["/".join(names) for source in distinct_sources(sources) for names in folder_names(Path(source))]
    matches = {name: [match["case"] for form in forms if (match := form.fullmatch(name))] for name in names}
    return [name for name, cases in matches.items() if cases and not known.intersection(cases)]


def _cases(found: dict[str, dict[str, list[NiftiFile]]], modalities: list[str],
           unlabelled_is_test: bool) -> list[SourceCase]:
    """One case for each name that some pattern found."""
    cases = []
    for name in sorted({case for by_case in found.values() for case in by_case}):
        files = {what: by_case[name] for what, by_case in found.items() if name in by_case}
        problems = _problems(files)
        label = files["label"][0].path if "label" in files else None
        if label is None and not unlabelled_is_test:
            problems.append("the label's pattern finds no file of it; with --unlabelled test it becomes a test case")
        images = {m: files[m][0].path for m in modalities if m in files}
        cases.append(SourceCase(name, images, label, label is None, "; ".join(problems) or None))
    return cases


def _problems(files: dict[str, list[NiftiFile]]) -> list[str]:
    """Two files for one modality (or the label), and one file for two."""
    problems = [f"{len(several)} files match the pattern of {what} ({', '.join(f.relative for f in several)}): make it "
                "narrower" for what, several in files.items() if len(several) > 1]
    takers: dict[os.PathLike, list[str]] = {}
    for what, several in files.items():
        for file in several:
            takers.setdefault(file.path, []).append(what)
    return problems + [f"{path} matches the patterns of {' and '.join(names)}: make them narrower"
                       for path, names in takers.items() if len(names) > 1]
