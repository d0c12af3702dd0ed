"""Which patients train, validate and test: a published list, or drawn by patient from a seed."""
from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nnmiss.errors import NnmissError, shortened
from nnmiss.seeding import derive_seed

PARTS = ("train", "val", "test")
TEST_SHARE, VALIDATION_SHARE = 0.2, 0.1  # of all patients, as MedFuse: a fifth; of the others: a tenth


def split_of_patients(patients: Sequence[str], files: Sequence[str | os.PathLike], seed: int) -> tuple[dict[str, str],
                                                                                                      list[str]]:
    """Patient id -> train, val or test, and sentences about it.

    Args:
        patients: text ids, each once.
        files: one csv with columns subject_id and split; or the two lists of the public benchmark, test patients and
            validation patients, lines of id and 1 or 0; or none: a fifth tests, a tenth of the others validates.

    Patients in none of the lists train, as in the benchmark; they are counted. Raises NnmissError for other files, ids
    that are given to two parts, and lists that name none of the patients.
    """
    if not files:
        return _drawn(patients, seed), []
    given = _one_list(files[0]) if len(files) == 1 else _two_lists(files)
    unknown = [p for p in patients if p not in given]
    if len(unknown) == len(patients):
        raise NnmissError(f"--splits: none of the {len(patients)} patients is in {', '.join(map(str, files))}, which names "
                          f"{shortened(given, 3)}: the list belongs to another release")
    notes = [f"{len(unknown)} of {len(patients)} patients are not in --splits and train"] if unknown else []
    return {p: given.get(p, "train") for p in patients}, notes


def _drawn(patients: Sequence[str], seed: int) -> dict[str, str]:
    """Whole patients, by a permutation of their sorted ids."""
    order = np.random.default_rng(derive_seed("mimic split", seed)).permutation(sorted(patients)).tolist()
    test = round(TEST_SHARE * len(order))
    val = test + round(VALIDATION_SHARE * (len(order) - test))
    return {p: "test" if i < test else "val" if i < val else "train" for i, p in enumerate(order)}


def _one_list(path: str | os.PathLike) -> dict[str, str]:
    rows = _rows(path)
    head = [cell.strip().lower() for cell in rows[0]]
    if not {"subject_id", "split"} <= set(head):
        raise NnmissError(f"{path} begins with {','.join(rows[0])!r}, expected columns subject_id and split; or give the "
                          "benchmark's two lists, test patients and validation patients: --splits testset.csv valset.csv")
    subject, split = head.index("subject_id"), head.index("split")
    given: dict[str, str] = {}
    for row in rows[1:]:
        patient, part = (row[column].strip() if column < len(row) else "" for column in (subject, split))
        part = {"validate": "val", "validation": "val"}.get(part.lower(), part.lower())
        if part not in PARTS or given.setdefault(patient, part) != part:
            raise NnmissError(f"{path}: patient {patient!r} has split {part!r}"
                              + (f" and {given[patient]!r}: one is possible" if part in PARTS
                                 else f", expected one of {', '.join(PARTS)}"))
    return given


def _two_lists(files: Sequence[str | os.PathLike]) -> dict[str, str]:
    if len(files) != 2:
        raise NnmissError(f"--splits takes one file or two lists, got {len(files)} files")
    given: dict[str, str] = {}
    for path, part in zip(files, ("test", "val")):
        for row in _rows(path):
            if len(row) < 2 or row[1].strip() not in ("0", "1"):
                raise NnmissError(f"{path}: expected lines of patient id and 1 or 0, got {','.join(row)!r}")
            patient = row[0].strip()
            if row[1].strip() == "1" and given.get(patient, "train") not in ("train", part):
                raise NnmissError(f"patient {patient} is a {given[patient]} patient in {files[0]} and a {part} patient in "
                                  f"{path}")
            given[patient] = part if row[1].strip() == "1" else given.get(patient, "train")
    return given


def _rows(path: str | os.PathLike) -> list[list[str]]:
    """Lines of a csv that are not empty. Raises NnmissError when the file is absent or empty."""
    try:
        with open(Path(path), newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if any(cell.strip() for cell in row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise NnmissError(f"--splits: {path} cannot be read ({error})") from None
    if not rows:
        raise NnmissError(f"--splits: {path} is empty")
    return rows
