"""Folds, and the cases held out of a fold's training part, for data sets of any size."""
from __future__ import annotations

from pathlib import Path

from nnunetv2.utilities.crossval_split import generate_crossval_split

from nnmiss.atomic_files import read_json, write_json
from nnmiss.availability import Present
from nnmiss.errors import NnmissError
from nnmiss.seeding import derive_seed

FEWEST_TO_HOLD_OUT = 5  # with fewer training cases none can be spared


def load_or_make_splits(preprocessed_folder: str | Path, cases: list[str]) -> list[dict[str, list[str]]]:
    """The folds of splits_final.json, or nnU-Net's own 5-fold split of `cases`, written there.

    Fewer than five cases give as many folds as there are cases (leave one out); one case gives none. Cases that
    test_cases.json keeps for testing are in no fold.

    Raises:
        NnmissError: the file names unknown or test cases, or has a fold without training or validation cases.
    """
    path = Path(preprocessed_folder) / "splits_final.json"
    free = without_test_cases(preprocessed_folder, cases)
    if path.is_file():
        splits = read_json(path, "splits file")
        if not isinstance(splits, list) or not splits:
            raise NnmissError(f"{path} must hold a list of folds, each with 'train' and 'val'")
        _check_splits(splits, set(cases), set(cases) - set(free), path)
        return splits
    if len(free) < 2:
        return []
    made = generate_crossval_split(sorted(free), seed=12345, n_splits=min(5, len(free)))
    splits = [{part: [str(case) for case in fold[part]] for part in ("train", "val")} for fold in made]
    write_json(path, splits)
    return splits


def _check_splits(splits: list, cases: set[str], test_cases: set[str], path: Path) -> None:
    for number, fold in enumerate(splits):
        if not isinstance(fold, dict) or not fold.get("train") or not fold.get("val"):
            raise NnmissError(f"{path}: fold {number} needs non-empty lists 'train' and 'val'")
        if not all(isinstance(fold[part], list) and all(isinstance(case, str) for case in fold[part]) for part in fold
                   if part in ("train", "val")):
            raise NnmissError(f"{path}: 'train' and 'val' of fold {number} must be lists of case names")
        unknown = sorted({*fold["train"], *fold["val"]} - cases)
        if unknown:
            raise NnmissError(f"{path}: fold {number} names {len(unknown)} case(s) that are not preprocessed, such as "
                              f"{', '.join(unknown[:3])}: preprocess again or mend the file")
        for_testing = sorted({*fold["train"], *fold["val"]} & test_cases)
        if for_testing:
            raise NnmissError(f"{path}: fold {number} has {len(for_testing)} case(s) that test_cases.json beside it keeps "
                              f"for testing, such as {', '.join(for_testing[:3])}: mend one of the two files")
        both = sorted(set(fold["train"]) & set(fold["val"]))
        if both:
            raise NnmissError(f"{path}: fold {number} trains and validates on the same case(s), such as {both[0]}")


def without_test_cases(preprocessed_folder: str | Path, cases: list[str]) -> list[str]:
    """`cases` without those that test_cases.json (written with a preset of splits) keeps for testing.

    Raises NnmissError when the file does not hold a list of cases, or when no case is left.
    """
    path = Path(preprocessed_folder) / "test_cases.json"
    if not path.is_file():
        return list(cases)
    test = read_json(path, "list of test cases", keys=("cases",))["cases"]
    if not isinstance(test, list) or not all(isinstance(case, str) for case in test):
        raise NnmissError(f'{path}: "cases" must be a list of case names, got {test!r}')
    left = [case for case in cases if case not in set(test)]
    if not left:
        raise NnmissError(f"{path} keeps every case for testing: none is left to train on, mend or remove it")
    return left


def fold_cases(splits: list[dict[str, list[str]]], fold: int | str, cases: list[str]) -> tuple[list[str], list[str]]:
    """(training, validation) cases of a fold; "all" trains and validates on everything, as in nnU-Net.

    Raises NnmissError for a fold that does not exist (nnU-Net would make a random 80:20 split and go on).
    """
    if fold == "all":
        return sorted(cases), sorted(cases)
    if not 0 <= fold < len(splits):
        have = ("one case has no folds, train 'all'" if not splits else "there is one fold, 0; or 'all'" if len(splits) == 1
                else f"the folds are 0 to {len(splits) - 1}, or 'all'")
        raise NnmissError(f"fold {fold} does not exist: {have}")
    return list(splits[fold]["train"]), list(splits[fold]["val"])


def most_complete(cases: list[str], available: dict[str, Present], wanted: int, seed: int) -> list[str]:
    """Up to `wanted` of the cases, those with most modalities first, else by chance."""
    return sorted(cases, key=lambda case: (-sum(available[case]), derive_seed(seed, "hold out", case)))[:wanted]


def hold_out(training: list[str], available: dict[str, Present], wanted: int, seed: int,
             groups: dict[str, str] | None = None) -> tuple[list[str], list[str]]:
    """(remaining, held out): up to `wanted` training cases, at most a fifth of them, those with most modalities first.

    MetaKD's meta-validation set: never the fold's validation cases. At most half of the complete cases are taken, so
    that some are left to learn from. With fewer than five training cases none can be spared; then both lists are all of
    them, and the caller says so. With `groups` (case -> subject) the other cases of held-out subjects are in neither list.
    """
    if wanted < 1 or len(training) < FEWEST_TO_HOLD_OUT:
        return list(training), list(training) if wanted > 0 else []
    ranked = most_complete(training, available, len(training), seed)
    complete = sum(all(available[case]) for case in training)
    spared = complete - complete // 2
    ranked = [*ranked[: complete - spared], *ranked[complete:], *ranked[complete - spared : complete]]
    held = sorted(ranked[: min(wanted, len(training) // FEWEST_TO_HOLD_OUT)])
    gone = {groups[case] for case in held} if groups else set()
    return [case for case in training if case not in held and not (groups and groups[case] in gone)], held
