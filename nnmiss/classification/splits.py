"""Folds of a classification data set: given ones, and five made so that no subject is on two sides."""
from __future__ import annotations

import warnings
from collections.abc import Collection
from pathlib import Path

import numpy as np
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold, StratifiedKFold

from nnmiss.atomic_files import read_json, write_json
from nnmiss.classification.manifest import SPLITS
from nnmiss.classification.raw_samples import RawSamples
from nnmiss.errors import NnmissError, nearest_names, shortened

FILE_NAME = "splits_final.json"
FOLDS = 5
SEED = 12345  # nnU-Net's

Fold = dict[str, list[str]]  # "train", "val" and, where there are test samples, "test" -> ids


def make_folds(raw: RawSamples, sides: dict[str, str] | None = None) -> list[Fold]:
    """Fold 0 as given, then five made; without given validation samples only the five, which are folds 0 to 4.

    Args:
        raw: all samples.
        sides: id -> "train", "val", "test", or "" for "not said"; samples that are not named are in no fold. Default:
            the manifest's column "split".

    The made folds share out all samples but those for testing: grouped by subject, stratified by class (multilabel: by the
    rarest label that the sample has; without a label: a stratum of its own), and always the same for the same samples.

    Raises:
        NnmissError: neither five subjects to make folds of nor given ones.
    """
    sides = dict(zip(raw.ids, raw.split)) if sides is None else sides
    of = {side: [name for name in raw.ids if sides.get(name) == side] for side in SPLITS}
    tested = {"test": of["test"]} if of["test"] else {}
    folds = [{"train": of["train"], "val": of["val"], **tested}] if of["train"] and of["val"] else []
    free = [i for i, name in enumerate(raw.ids) if name in sides and sides[name] != "test"]
    groups = np.array([raw.groups[i] for i in free])
    if len(set(groups)) < FOLDS:
        if folds:
            return folds
        raise NnmissError(f"{len(set(groups))} subject(s) are too few for {FOLDS} folds: give train and val in the column "
                          "split of the manifest, or a file with --splits")
    for train, val in _five(_strata(raw, free), groups):
        folds.append({"train": [raw.ids[free[i]] for i in train], "val": [raw.ids[free[i]] for i in val], **tested})
    return folds


def read_folds(asked: str, raw_folder: str | Path, raw: RawSamples, left_out: Collection[str] = ()) -> list[Fold]:
    """The folds that --splits names.

    Args:
        asked: a json file, or NAME for `raw_folder`/splits/NAME.json. It holds one {"train": ids, "val": ids, "test": ids},
            which takes the place of the manifest's column (see `make_folds`), or a list of such folds, taken as they are.
        raw: all samples. left_out: ids that could not be read; they are dropped from the folds.

    Raises NnmissError for another structure, unknown or doubled ids, subjects on two sides, and empty sides.
    """
    path = _find(asked, Path(raw_folder))
    content = read_json(path, "splits file")
    folds = content if isinstance(content, list) else [content]
    if not folds or not all(_is_fold(fold) for fold in folds):
        raise NnmissError(f'{path} must hold {{"train": [ids], "val": [ids], "test": [ids]}} or a list of such folds '
                          '("test" may be left out, and "val" of a single one)')
    folds = [{side: [str(name) for name in fold[side]] for side in SPLITS if fold.get(side)} for fold in folds]
    problems = [f"fold {number}: {text}" for number, fold in enumerate(folds)
                for text in _problems(fold, raw, left_out, needs_val=isinstance(content, list))]
    if problems:
        raise NnmissError(f"{path}: " + "; ".join(problems))
    folds = [{side: [name for name in ids if name not in left_out] for side, ids in fold.items()} for fold in folds]
    if isinstance(content, list):
        return folds
    return make_folds(raw, {name: side for side, ids in folds[0].items() for name in ids})


def install_folds(folds: list[Fold], folder: str | Path) -> str:
    """Writes splits_final.json into a preprocessed data set's folder. Returns what was done, in words."""
    path = Path(folder) / FILE_NAME
    try:
        before = read_json(path, "splits file")
    except NnmissError:  # not there, or damaged
        before = None
    if before == folds:
        return f"kept {path}"
    write_json(path, folds)
    return f"{'wrote' if before is None else 'replaced'} {path}: {len(folds)} fold" + "s" * (len(folds) > 1)


def fold_rows(folder: str | Path, raw: RawSamples, fold: int | str) -> tuple[list[str], list[str], list[str]]:
    """Ids of the (training, validation, test) samples of a fold; "all" trains and validates on those of all folds that no
    fold tests.

    Args:
        folder: nnUNet_preprocessed/DatasetXXX_Name, with splits_final.json.

    Raises NnmissError for a fold that does not exist, and for a file that does not fit the samples.
    """
    path = Path(folder) / FILE_NAME
    folds = read_json(path, "splits file")
    if not isinstance(folds, list) or not folds or not all(_is_fold(f) for f in folds):
        raise NnmissError(f"{path} must hold a list of folds, each with 'train' and 'val': run nnmiss_plan_and_preprocess")
    if fold == "all":
        return _all_folds(folds, raw, path)
    if not isinstance(fold, int) or not 0 <= fold < len(folds):
        have = f"the folds are 0 to {len(folds) - 1}" if len(folds) > 1 else "there is one fold, 0"
        raise NnmissError(f"fold {fold} does not exist: {have}; or 'all'")
    chosen = folds[fold]
    problems = _problems(chosen, raw, (), needs_val=True)
    if problems:
        raise NnmissError(f"{path}, fold {fold}: {'; '.join(problems)}: run nnmiss_plan_and_preprocess again")
    return list(chosen["train"]), list(chosen["val"]), list(chosen.get("test", []))


def _all_folds(folds: list[Fold], raw: RawSamples, path: Path) -> tuple[list[str], list[str], list[str]]:
    """`fold_rows` of "all". Samples that are in no fold stay out: they may be of subjects that are tested."""
    tested = {name for fold in folds for name in fold.get("test", [])}
    used = {name for fold in folds for side in ("train", "val") for name in fold.get(side, [])} - tested
    if not used:
        raise NnmissError(f"{path}: every sample is tested in one of the folds, so none is left to train fold 'all' on")
    problems = _problems({"train": sorted(used), "test": sorted(tested)}, raw, (), needs_val=False)
    if problems:
        raise NnmissError(f"{path}, fold all: {'; '.join(problems)}: run nnmiss_plan_and_preprocess again")
    free = [name for name in raw.ids if name in used]
    return free, list(free), [name for name in raw.ids if name in tested]


def _strata(raw: RawSamples, rows: list[int]) -> np.ndarray:
    """(n,) int: the class of each of these samples, -1 where it has none."""
    targets = raw.targets[rows].numpy()
    if raw.description.task != "multilabel":
        targets = np.nan_to_num(targets.reshape(len(rows)), nan=-1)
        return targets.astype(np.int64)
    positive = targets == 1  # (n, L)
    rarity = np.where(positive, positive.sum(0), len(rows) + 1)  # how common each label of a sample is
    return np.where(positive.any(1), rarity.argmin(1), -1)


def _five(strata: np.ndarray, groups: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Five (training, validation) positions. Classes with fewer than five samples cannot be in every fold."""
    alone = len(set(groups)) == len(groups)
    maker, kept_together = (StratifiedKFold, None) if alone else (StratifiedGroupKFold, groups)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")
        try:
            folds = list(maker(FOLDS, shuffle=True, random_state=SEED).split(strata, strata, kept_together))
        except ValueError:  # no class has five samples
            folds = []
    if not folds or any(not len(val) for _, val in folds):
        folds = list(GroupKFold(FOLDS).split(strata, strata, groups))
    return folds


def _find(asked: str, raw_folder: Path) -> Path:
    named = raw_folder / "splits" / f"{asked.removesuffix('.json')}.json"
    for path in (Path(asked), named):
        if path.is_file():
            return path
    there = sorted(path.stem for path in (raw_folder / "splits").glob("*.json"))
    hint = nearest_names(asked, there) if there else f"{raw_folder} has no splits."
    raise NnmissError(f"--splits {asked!r} is neither a file nor one of this data set's splits. {hint}")


def _is_fold(fold: object) -> bool:
    return isinstance(fold, dict) and {"train"} <= set(fold) <= set(SPLITS) \
        and all(isinstance(ids, list) and all(isinstance(name, str | int) for name in ids) for ids in fold.values())


def _problems(fold: Fold, raw: RawSamples, left_out: Collection[str], needs_val: bool) -> list[str]:
    ids = [name for side in SPLITS for name in fold.get(side, [])]
    known = {*raw.ids, *left_out}
    unknown = sorted(set(ids) - known)
    problems = [f"unknown ids {shortened(unknown, 8)}"] if unknown else []
    doubled = sorted({name for name in ids if ids.count(name) > 1}) if len(set(ids)) < len(ids) else []
    if doubled:
        problems.append(f"ids that stand there more than once: {shortened(doubled, 8)}")
    lacking = [side for side in SPLITS[:1 + needs_val] if not set(fold.get(side, [])) - set(left_out)]
    problems += [f"no sample in {side!r}" for side in lacking]
    group_of = dict(zip(raw.ids, raw.groups))
    sides: dict[str, set[str]] = {}
    for side in fold:
        for name in fold[side]:
            sides.setdefault(group_of.get(name, name), set()).add(side)
    divided = [group for group, its in sides.items() if len(its) > 1]
    if divided and not doubled:
        problems.append(f"subjects on more than one side: {shortened(divided, 8)}")
    return problems
