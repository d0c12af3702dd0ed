"""Writes availability.json: which modalities each training case has, and which files are blank."""
from __future__ import annotations

import os
from pathlib import Path

from nnmiss.atomic_files import read_json, write_json
from nnmiss.availability import Present
from nnmiss.errors import NnmissError
from nnmiss.preprocessing.raw_dataset import RawCase

FILE_NAME = "availability.json"


def write_availability(folder: str | Path, modalities: list[str], cases: dict[str, Present],
                       blank: dict[str, list[str]], blank_is_missing: bool) -> None:
    """Writes availability.json into a preprocessed data set's folder, atomically.

    Args:
        folder: nnUNet_preprocessed/DatasetXXX_Name.
        modalities: channel names in channel order.
        cases: case -> one bool per modality.
        blank: case -> names of its blank modalities; cases without any are left out.
        blank_is_missing: whether blank modalities count as absent in `cases`.
    """
    write_json(Path(folder) / FILE_NAME, {
        "modalities": list(modalities),
        "cases": {case: [bool(p) for p in row] for case, row in sorted(cases.items())},
        "blank": {case: list(names) for case, names in sorted(blank.items()) if names},
        "blank_is_missing": bool(blank_is_missing),
    })


def read_table(folder: str | Path) -> dict | None:
    """The whole content of availability.json, or None when it is absent or not as `write_availability` leaves it."""
    try:
        content = read_json(Path(folder) / FILE_NAME)
    except (OSError, NnmissError):
        return None
    keys = {"modalities", "cases", "blank", "blank_is_missing"}
    if not isinstance(content, dict) or not keys <= content.keys():
        return None
    return content if isinstance(content["cases"], dict) and isinstance(content["blank"], dict) else None


def why_outdated(folder: str | Path, modalities: list[str], cases: list[RawCase], blank_is_missing: bool) -> str | None:
    """None when fingerprint and availability.json describe the raw files as they are now, else the reason in words.

    Files whose content changed are noticed by their time of modification, and other files moved or copied into their place
    with a time of their own (`mv`, `cp -p`, `rsync -t`) by the time at which their directory entry changed.
    """
    fingerprint = Path(folder) / "dataset_fingerprint.json"
    content = read_table(folder)
    if not fingerprint.is_file():
        return "there is no fingerprint yet"
    if content is None:
        return "there is no availability.json"
    if content["modalities"] != list(modalities):
        return "the modalities changed"
    if content["blank_is_missing"] != blank_is_missing:
        return f"blank files are now {'missing' if blank_is_missing else 'images'}"
    if content["cases"].keys() != {case.name for case in cases}:
        return "cases were added or removed"
    made = fingerprint.stat().st_mtime
    for case in cases:
        blank = content["blank"].get(case.name, []) if blank_is_missing else []
        files = [c in case.files for c in range(len(modalities))]
        known = [bool(a) or m in blank for a, m in zip(content["cases"][case.name], modalities)]
        if files != known:
            return f"channel files of case {case.name} appeared or disappeared"
        for file in [*case.files.values(), *([case.label] if case.label else [])]:
            status = os.stat(file)
            if max(status.st_mtime, status.st_ctime) > made:
                return f"{file} changed"
    return None
