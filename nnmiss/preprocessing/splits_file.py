"""Reads, checks and installs a splits_final.json, and the list of test cases of a preset beside it."""
from __future__ import annotations

from pathlib import Path

from nnmiss.atomic_files import read_json, write_json
from nnmiss.errors import NnmissError, shortened
from nnmiss.preprocessing.split_presets import FittedSplit, fit_preset, is_preset, list_presets, nearest_preset

Splits = list[dict[str, list[str]]]


def read_splits(path: str | Path, cases: list[str]) -> Splits:
    """Reads a file like nnU-Net's splits_final.json and checks it against the data set's cases.

    Args:
        path: JSON: a list with one {"train": [...], "val": [...]} per fold.
        cases: the names of the training cases.

    Raises:
        NnmissError: another structure, an empty training set, ids that are unknown, doubled or on both sides.
    """
    content = read_json(path, "splits file")
    sides = ("train", "val")
    if not isinstance(content, list) or not content or not all(
            isinstance(fold, dict) and all(isinstance(fold.get(s), list) for s in sides) for fold in content) or not all(
            isinstance(case, str | int) for fold in content for s in sides for case in fold[s]):
        raise NnmissError(f'{path} must hold a list with one {{"train": [...], "val": [...]}} per fold')
    problems = []
    for number, fold in enumerate(content):
        train, val = ([str(case) for case in fold[side]] for side in sides)
        unknown = sorted(set(train + val) - set(cases))
        doubled = sorted({c for c in train + val if (train + val).count(c) > 1})
        if unknown:
            problems.append(f"fold {number}: unknown cases {shortened(unknown, 8)}")
        if doubled:
            problems.append(f"fold {number}: cases that stand there more than once {shortened(doubled, 8)}")
        if not train:
            problems.append(f"fold {number}: no training case")
    if problems:
        known = f"the data set's cases are {shortened(sorted(cases), 8)}"
        raise NnmissError(f"{path}: " + "; ".join(problems) + f" ({known})")
    return [{side: [str(case) for case in fold[side]] for side in sides} for fold in content]


def choose_splits(asked: str | FittedSplit | None, raw_dataset_folder: Path, cases: list[str]) -> Splits | None:
    """The splits that --splits names, else those shipped in the raw folder's splits_final.json, else None.

    Args:
        asked: a preset's name, such a preset already fitted to the data set, or the path of a file.
        raw_dataset_folder: where a shipped file would be.
        cases: the names of the training cases.

    Raises NnmissError for an unknown preset, one that does not fit, a bad file, or two sources that disagree.
    """
    shipped_file = raw_dataset_folder / "splits_final.json"
    shipped = read_splits(shipped_file, cases) if shipped_file.is_file() else None
    if asked is None:
        return shipped
    if isinstance(asked, str) and is_preset(asked):
        asked = fit_preset(asked, cases)
    if isinstance(asked, FittedSplit):
        chosen, asked = asked.folds, asked.preset.name
    else:
        require_splits_source(asked)
        chosen = read_splits(asked, cases)
    if shipped is not None and chosen != shipped:
        raise NnmissError(f"--splits {asked} differs from {shipped_file}, which nnU-Net copies: remove one of them")
    return chosen


def require_splits_source(asked: str) -> None:
    """Raises NnmissError, with a table of the presets, when `asked` is neither a preset nor a file."""
    if is_preset(asked) or Path(asked).is_file():
        return
    raise NnmissError(f"--splits {asked!r} is neither a file nor a preset. {nearest_preset(asked)}Give the path of a file "
                      'like splits_final.json, a list of {"train": [...], "val": [...]}, or one of these presets:\n'
                      + list_presets())


def install_splits(splits: Splits, preprocessed_folder: Path, shipped: bool) -> str:
    """Writes splits_final.json into the preprocessed folder. Returns what was done, in words.

    With `shipped` splits (from the raw folder) an existing file that begins with the same folds stays, as in nnU-Net.

    Raises NnmissError when an existing file disagrees with shipped splits.
    """
    target = preprocessed_folder / "splits_final.json"
    before = read_json(target, "splits file") if target.is_file() else None
    if shipped and before is not None:
        same = len(before) >= len(splits) and all(
            set(a[side]) == set(b[side]) for a, b in zip(splits, before) for side in ("train", "val"))
        if not same:
            raise NnmissError(f"{target} differs from the splits shipped with the raw data: remove one of them")
        return f"kept {target}"
    if before == splits:
        return f"kept {target}"
    preprocessed_folder.mkdir(parents=True, exist_ok=True)
    write_json(target, splits)
    return f"{'replaced' if before is not None else 'wrote'} {target}: {len(splits)} fold" + "s" * (len(splits) > 1)


def install_test_cases(fitted: FittedSplit | None, preprocessed_folder: Path) -> str:
    """Writes test_cases.json of a preset, before its splits; without a preset removes one that an earlier preset wrote.

    A test_cases.json without "preset" is somebody's own and stays. Returns what was done, in words, "" for nothing.
    """
    target = preprocessed_folder / "test_cases.json"
    if fitted is not None:
        preprocessed_folder.mkdir(parents=True, exist_ok=True)
        write_json(target, fitted.test_record)
        return f"wrote {target}: {len(fitted.ids['test'])} test cases, which fold 'all' leaves out"
    content = read_json(target, "list of test cases") if target.is_file() else None
    if isinstance(content, dict) and "preset" in content:
        target.unlink()
        return f"removed {target}, which belonged to preset {content['preset']}"
    return ""
