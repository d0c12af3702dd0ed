"""Which ADNI participants train, validate and test: a list from a file, or 70 / 15 / 15 % of each class."""
from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np

from nnmiss.atomic_files import read_json
from nnmiss.errors import NnmissError, shortened
from nnmiss.seeding import derive_seed

SHARES = {"train": 0.7, "val": 0.15, "test": 0.15}
NAMES = {"train": "train", "training": "train", "val": "val", "validation": "val", "valid": "val", "test": "test",
         "testing": "test"}


def split_of_participants(labels: Mapping[str, int], path: str | os.PathLike | None,
                          seed: int) -> tuple[dict[str, str], list[str]]:
    """PTID -> train, val or test, without participants whom the file does not name; and sentences about it.

    Args:
        labels: PTID -> class.
        path: JSON {"train": [PTID, ...], "val": [...], "test": [...]} (also training, validation, testing).
        seed: of the drawn split, class by class.
    """
    if path is None:
        return _drawn(labels, seed), []
    given: dict[str, str] = {}
    for key, ids in read_json(path, "--splits", keys=()).items():
        part = NAMES.get(str(key).lower())
        if part is None or not isinstance(ids, list):
            raise NnmissError(f"--splits {path}: expected lists of PTIDs named train, val and test, got {key!r}")
        for ptid in map(str, ids):
            if given.setdefault(ptid, part) != part:
                raise NnmissError(f"--splits {path}: {ptid} is in {given[ptid]} and in {part}")
    unnamed = [ptid for ptid in labels if ptid not in given]
    if len(unnamed) == len(labels):
        raise NnmissError(f"--splits {path} names none of the {len(labels)} participants, which are {shortened(labels, 3)}")
    if not any(given.get(ptid) == "train" for ptid in labels):
        raise NnmissError(f"--splits {path}: none of the {len(labels)} participants is in train")
    notes = [f"left out because --splits does not name them: {len(unnamed)} participants"] if unnamed else []
    return {ptid: given[ptid] for ptid in labels if ptid in given}, notes


def _drawn(labels: Mapping[str, int], seed: int) -> dict[str, str]:
    rng, split = np.random.default_rng(derive_seed("adni split", seed)), {}
    for label in sorted(set(labels.values())):
        order = rng.permutation(sorted(ptid for ptid, own in labels.items() if own == label)).tolist()
        ends = np.round(np.cumsum(list(SHARES.values())) * len(order)).astype(int)
        split |= {ptid: part for part, start, end in zip(SHARES, [0, *ends], ends) for ptid in order[start:end]}
    return split
