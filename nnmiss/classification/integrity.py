"""The checks of a raw classification data set: columns, labels, ids, files and subjects, every bad cell named."""
from __future__ import annotations

from collections import Counter
from pathlib import Path

import torch

from nnmiss.availability import Present
from nnmiss.classification.description import SPLIT_COLUMN, Description, read_description
from nnmiss.classification.kinds import KINDS
from nnmiss.classification.manifest import Manifest, Problem, path_problems, read_manifest, required_columns
from nnmiss.errors import NnmissError, nearest_names, shortened

PROBLEMS_SHOWN = 20


def check_dataset(folder: str | Path, description: Description) -> list[str]:
    """The checks that do not open the files of single samples. Returns what is worth knowing but not wrong.

    Raises one NnmissError that lists what is wrong: rows and columns of manifest.csv, files that are not there or lie
    outside the folder, unreadable files of all samples, samples without any modality, subjects on two sides of the split.
    """
    folder = Path(folder)
    manifest = read_manifest(folder, description)
    problems = [*_lacking_columns(manifest, description), *manifest.problems, *path_problems(folder, manifest)]
    ids_of, unreadable = _ids_of_files(folder, description)
    problems += unreadable
    if not problems:  # else samples may seem to lack what cannot be read
        problems += without_modality(manifest, {name: set(ids) for name, ids in ids_of.items()})
    problems += _divided_subjects(manifest) + _without_labels(manifest, description)
    raise_problems(problems, folder.name)
    return _notes(manifest, description, ids_of)


def samples_there_are(folder: str | Path) -> tuple[dict[str, Present], list[str]]:
    """({id: what it has} of the samples that are not for testing, modality names), without opening files of samples.

    Raises NnmissError for a raw folder that planning would refuse.
    """
    folder = Path(folder)
    description = read_description(folder)
    check_dataset(folder, description)
    manifest = read_manifest(folder, description)
    ids_of = {name: set(ids) for name, ids in _ids_of_files(folder, description)[0].items()}
    has = {name: [bool(cell) for cell in manifest.paths[name]] if name in manifest.paths
           else [sample in ids_of[name] for sample in manifest.ids] for name in description.modalities}
    rows = zip(manifest.ids, manifest.split, zip(*has.values()))
    return {sample: row for sample, side, row in rows if side != "test"}, list(description.modalities)


def without_modality(manifest: Manifest, ids_of: dict[str, set[str]]) -> list[Problem]:
    """Samples that have no path and are in no file of all samples."""
    somewhere = set().union(*ids_of.values())
    return [Problem(name, "has none of the modalities: no path, and no row in a file of all samples")
            for i, name in enumerate(manifest.ids)
            if name not in somewhere and not any(cells[i] for cells in manifest.paths.values())]


def raise_problems(problems: list[Problem] | list[str], name: str) -> None:
    """Raises one NnmissError that lists `problems`, those of the whole data set first; nothing when there are none."""
    if not problems:
        return
    ordered = sorted(problems, key=lambda problem: getattr(problem, "sample", None) is not None)
    shown = "".join(f"\n  - {problem}" for problem in ordered[:PROBLEMS_SHOWN])
    more = f"\n  ... and {len(ordered) - PROBLEMS_SHOWN} more" if len(ordered) > PROBLEMS_SHOWN else ""
    raise NnmissError(f"{name} has {len(ordered)} problem{'s' * (len(ordered) > 1)}:{shown}{more}")


def _lacking_columns(manifest: Manifest, description: Description) -> list[Problem]:
    spare = [name for name in manifest.columns if name not in required_columns(description)]
    return [Problem(None, f"{manifest.path.name} has no column {name!r}"
                          + (f". {nearest_names(name, spare)}" if spare else ""))
            for name in required_columns(description) if name not in manifest.columns]


def _ids_of_files(folder: Path, description: Description) -> tuple[dict[str, list[str]], list[Problem]]:
    """(modality -> ids in its file, problems of files that cannot be read)."""
    found: dict[str, list[str]] = {}
    problems = []
    for name, spec in description.modalities.items():
        if "file" not in spec:
            continue
        try:
            found[name] = KINDS[spec["type"]].read_file(folder / spec["file"], spec)[0]
        except NnmissError as error:
            problems.append(Problem(None, f"modality {name}: {error}"))
    return found, problems


def _divided_subjects(manifest: Manifest) -> list[Problem]:
    sides: dict[str, set[str]] = {}
    for group, side in zip(manifest.groups, manifest.split):
        sides.setdefault(group, set()).add(side)
    return [Problem(None, f"column {SPLIT_COLUMN}: subject {group} is in {' and '.join(sorted(s or 'none' for s in its))}; "
                          "its samples must all be on one side") for group, its in sides.items() if len(its) > 1]


def _without_labels(manifest: Manifest, description: Description) -> list[Problem]:
    lacking = set(description.label_columns) - set(manifest.columns)
    known = _known(manifest)
    if lacking or known.any():
        return []
    return [Problem(None, "no sample has a label: fill the label column(s), 1 and 0 for each label of a multilabel task")]


def _known(manifest: Manifest) -> torch.Tensor:
    """(N,) bool: samples with any known label."""
    targets = manifest.targets
    return ~targets.isnan().all(1) if targets.is_floating_point() else targets >= 0


def _notes(manifest: Manifest, description: Description, ids_of: dict[str, list[str]]) -> list[str]:
    notes = []
    known = set(manifest.ids)
    for name, ids in ids_of.items():
        strange = [i for i in ids if i not in known]
        if strange:
            notes.append(f"{description.modalities[name]['file']} has {len(strange)} id(s) that the manifest lacks, which "
                         f"are not used: {shortened(strange, 5)}")
        if len(strange) == len(ids):
            notes.append(f"no sample has modality {name}")
    notes += [f"no sample has modality {name}" for name, cells in manifest.paths.items() if not any(cells)]
    unlabelled = int((~_known(manifest)).sum())
    if unlabelled:
        notes.append(f"{unlabelled} of {len(manifest.ids)} samples have no label; training skips them")
    used = {description.group_column, SPLIT_COLUMN, *required_columns(description)}
    unused = [name for name in manifest.columns if name not in used]
    if unused:
        notes.append(f"columns of {manifest.path.name} that are not used: {shortened(unused)}")
    return notes + _class_notes(manifest, description)


def _class_notes(manifest: Manifest, description: Description) -> list[str]:
    targets = manifest.targets
    if description.task == "multilabel":
        count = (targets == 1).sum(0).tolist()
    else:
        values = Counter(targets.flatten().tolist())
        count = [values.get(i, 0) for i in range(len(description.classes))]
    empty = [name for name, n in zip(description.classes, count) if not n]
    return [f"no sample {'is positive for' if description.task == 'multilabel' else 'is of class'} {shortened(empty)}"] \
        if empty else []
