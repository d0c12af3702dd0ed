"""Folds of classification data: given or made, never with a subject on two sides."""
from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
import torch

from nnmiss.classification.description import parse_description
from nnmiss.classification.raw_samples import RawSamples
from nnmiss.classification.splits import fold_rows, install_folds, make_folds, read_folds
from nnmiss.errors import NnmissError

LABELS = {"multiclass": {str(i): f"c{i}" for i in range(3)}, "binary": {"0": "no", "1": "yes"}, "multilabel": list("abc")}


def samples(n=100, task="multiclass", per_subject=2, split=None, targets=None) -> RawSamples:
    """`n` samples without values; subject i has the class i modulo 3, in the order of a shuffled list."""
    description = parse_description({"task": task, "labels": LABELS[task],
                                     "modalities": {"x": {"type": "array"}, "y": {"type": "array"}}}, "")
    classes = (torch.arange(n) // per_subject) % len(LABELS[task])
    if targets is None:
        targets = {"multiclass": classes, "binary": classes[:, None].float(),
                   "multilabel": torch.nn.functional.one_hot(classes, 3).float()}[task]
    rows = {name: torch.full((n,), -1) for name in "xy"}
    return RawSamples(description, [f"s{i:03d}" for i in range(n)], [f"p{i // per_subject:03d}" for i in range(n)],
                      split or [""] * n, targets, {"x": [], "y": []}, rows)


def subjects(raw, ids) -> set[str]:
    group = dict(zip(raw.ids, raw.groups))
    return {group[name] for name in ids}


@pytest.mark.parametrize("per_subject", [1, 2, 5])
@pytest.mark.parametrize("task", LABELS)
def test_made_folds_are_grouped_stratified_and_always_the_same(task, per_subject):
    raw = samples(task=task, per_subject=per_subject)
    folds = make_folds(raw)
    assert len(folds) == 5 and folds == make_folds(raw)
    assert sorted(name for fold in folds for name in fold["val"]) == raw.ids  # every sample validated once
    classes = dict(zip(raw.ids, raw.targets.reshape(len(raw), -1).argmax(1).tolist() if task == "multilabel"
                       else raw.targets.flatten().int().tolist()))
    for fold in folds:
        assert not subjects(raw, fold["train"]) & subjects(raw, fold["val"])
        assert sorted(fold["train"] + fold["val"]) == raw.ids
        shares = np.array(list(Counter(classes[name] for name in fold["val"]).values())) / len(fold["val"])
        assert len(shares) == len(LABELS[task]) and np.ptp(shares) <= 0.3


def test_given_splits_are_fold_0_and_test_samples_are_in_no_made_fold():
    split = [("train", "train", "train", "val", "test")[i // 2 % 5] for i in range(100)]
    raw = samples(split=split)
    folds = make_folds(raw)
    side = dict(zip(raw.ids, split))
    assert len(folds) == 6
    assert {name: s for s, ids in folds[0].items() for name in ids} == side
    for fold in folds[1:]:
        assert fold["test"] == folds[0]["test"] and "test" not in {side[name] for name in fold["train"] + fold["val"]}
        assert len(fold["train"]) + len(fold["val"]) == 80


def test_only_test_samples_given_makes_five_folds_of_the_others():
    raw = samples(split=["test" if i < 20 else "" for i in range(100)])
    folds = make_folds(raw)
    assert len(folds) == 5 and all(fold["test"] == raw.ids[:20] for fold in folds)
    assert sorted(name for fold in folds for name in fold["val"]) == raw.ids[20:]


def test_rare_classes_unlabelled_samples_and_few_subjects():
    targets = torch.full((40,), -1)
    targets[:3] = torch.arange(3)  # no class has five samples
    folds = make_folds(samples(40, targets=targets))
    assert all(fold["val"] and fold["train"] for fold in folds)
    with pytest.raises(NnmissError, match="4 subject"):
        make_folds(samples(8))
    raw = samples(8, split=["train", "train", "train", "train", "val", "val", "test", "test"])
    assert len(make_folds(raw)) == 1  # too few for five folds, but one is given


def test_labels_with_few_positives_are_spread():
    """Stratified by the rarest label of each sample: the five positives of a rare label are one in each fold."""
    targets = torch.zeros(100, 3)
    targets[:, 0] = 1
    targets[::20, 1] = 1
    raw = samples(task="multilabel", per_subject=1, targets=targets)
    rare = set(raw.ids[::20])
    assert [len(rare & set(fold["val"])) for fold in make_folds(raw)] == [1] * 5


def test_folds_from_files(tmp_path):
    raw = samples(20)
    (tmp_path / "splits").mkdir()
    single = {"train": raw.ids[:10], "val": raw.ids[10:14], "test": raw.ids[14:18]}
    (tmp_path / "splits" / "paper.json").write_text(json.dumps(single))
    folds = read_folds("paper", tmp_path, raw)
    assert folds[0] == single and len(folds) == 6
    assert all("s018" not in fold["train"] + fold["val"] for fold in folds)  # not named, so in no fold
    two = [{"train": raw.ids[:10], "val": raw.ids[10:]}, {"train": raw.ids[10:], "val": raw.ids[:10]}]
    (tmp_path / "two.json").write_text(json.dumps(two))
    assert read_folds(str(tmp_path / "two.json"), tmp_path, raw) == two
    few = raw.select(range(1, 20))
    assert read_folds(str(tmp_path / "two.json"), tmp_path, few, {"s000"})[0]["train"] == raw.ids[1:10]
    with pytest.raises(NnmissError, match="unknown ids s000"):
        read_folds(str(tmp_path / "two.json"), tmp_path, few)
    with pytest.raises(NnmissError, match="Did you mean paper"):
        read_folds("papper", tmp_path, raw)


@pytest.mark.parametrize(("content", "words"), [
    ({"training": []}, "must hold"), ([], "must hold"), ([{"train": "s000", "val": []}], "must hold"),
    ([{"train": ["s000"]}], "no sample in 'val'"), ({"train": []}, "no sample in 'train'"),
    ([{"train": ["s000", "s001"], "val": ["s002", "zzz"]}], "unknown ids zzz"),
    ([{"train": ["s000", "s000"], "val": ["s002"]}], "more than once: s000"),
    ([{"train": ["s000"], "val": ["s001"]}], "subjects on more than one side: p000"),
])
def test_bad_files_of_folds_are_refused(tmp_path, content, words):
    (tmp_path / "x.json").write_text(json.dumps(content))
    with pytest.raises(NnmissError, match=words):
        read_folds(str(tmp_path / "x.json"), tmp_path, samples(20))


def test_folds_are_stored_and_read_by_number(tmp_path):
    raw = samples(20, split=[("train", "train", "val", "test")[i // 2 % 4] for i in range(20)])
    folds = make_folds(raw)
    assert install_folds(folds, tmp_path).startswith("wrote")
    assert install_folds(folds, tmp_path).startswith("kept")
    assert fold_rows(tmp_path, raw, 0) == (folds[0]["train"], folds[0]["val"], folds[0]["test"])
    train, val, test = fold_rows(tmp_path, raw, "all")
    assert train == val and set(train) == set(raw.ids) - set(folds[0]["test"]) and test == folds[0]["test"]
    with pytest.raises(NnmissError, match="fold 6 does not exist: the folds are 0 to 5"):
        fold_rows(tmp_path, raw, 6)
    with pytest.raises(NnmissError, match="unknown ids"):
        fold_rows(tmp_path, raw.select(range(10)), 0)
    assert install_folds(folds[:1], tmp_path).startswith("replaced")
    with pytest.raises(NnmissError, match="fold all: unknown ids"):
        fold_rows(tmp_path, raw.select(range(10)), "all")
    (tmp_path / "splits_final.json").write_text("[]")
    with pytest.raises(NnmissError, match="nnmiss_plan_and_preprocess"):
        fold_rows(tmp_path, raw, 0)


def test_fold_all_keeps_out_what_no_fold_names_and_what_any_fold_tests(tmp_path):
    raw = samples(20)
    sides = {**dict.fromkeys(raw.ids[:10], "train"), **dict.fromkeys(raw.ids[10:14], "val"), "s014": "test"}
    install_folds(make_folds(raw, sides), tmp_path)  # s015 is in no fold, and of the subject that is tested
    train, val, test = fold_rows(tmp_path, raw, "all")
    assert train == val == raw.ids[:14] and test == ["s014"] and not subjects(raw, train) & subjects(raw, test)
    parts = [raw.ids[4 * k:4 * k + 4] for k in range(5)]
    nested = [{"train": parts[k - 1] + parts[k - 2] + parts[k - 3], "val": parts[k - 4], "test": parts[k]}
              for k in range(5)]
    install_folds(nested, tmp_path)
    with pytest.raises(NnmissError, match="every sample is tested"):
        fold_rows(tmp_path, raw, "all")
    install_folds(nested[:2], tmp_path)
    train, _, test = fold_rows(tmp_path, raw, "all")
    assert train == raw.ids[8:] and test == raw.ids[:8]
