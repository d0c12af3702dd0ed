"""Settings, presets, stages, schedules, folds and held-out cases."""
from __future__ import annotations

import pytest
import torch

from nnmiss.errors import NnmissError
from nnmiss.trainers import METHODS, method_class
from nnmiss.trainers.settings import parse_assignments, resolve_settings, split_epochs, stage_epochs
from nnmiss.trainers.splits import fold_cases, hold_out, load_or_make_splits, without_test_cases
from nnmiss.trainers.stages import StagedSchedule

KNOWN = {"alpha": 0.1, "num_epochs": 10, "fusion": "concat", "flag": False}
PRESETS = {"paper": {}, "official": {"alpha": 0.2, "missing.num_epochs": 7}}


def resolve(preset="paper", **assignments):
    return resolve_settings(KNOWN, PRESETS, preset, {k.replace("__", "."): v for k, v in assignments.items()},
                            ("warmup", "missing"))


def test_the_user_wins_over_the_preset_and_the_preset_over_the_default():
    assert resolve("official")["warmup"]["alpha"] == 0.2
    assert resolve("official", alpha="0.3")["missing"]["alpha"] == 0.3
    assert resolve("official")["missing"]["num_epochs"] == 7
    assert resolve("official")["warmup"]["num_epochs"] == 10


def test_what_names_a_stage_wins_over_what_does_not():
    settings = resolve(missing__alpha="0.5", alpha="0.4")
    assert (settings["warmup"]["alpha"], settings["missing"]["alpha"]) == (0.4, 0.5)


def test_values_take_the_type_of_the_default():
    settings = resolve(num_epochs="3", flag="true", fusion="mean")["warmup"]
    assert settings == {"alpha": 0.1, "num_epochs": 3, "flag": True, "fusion": "mean"}


@pytest.mark.parametrize("assignments, message", [
    ({"alhpa": "1"}, "Did you mean alpha"),
    ({"late__alpha": "1"}, "unknown stage"),
    ({"num_epochs": "many"}, "expected int"),
    ({"flag": "perhaps"}, "expected bool"),
])
def test_bad_settings_are_refused_with_what_is_known(assignments, message):
    with pytest.raises(NnmissError, match=message):
        resolve(**assignments)


def test_assignments_need_an_equals_sign():
    assert parse_assignments(["a=1", "b=x=y"]) == {"a": "1", "b": "x=y"}
    with pytest.raises(NnmissError, match="key=value"):
        parse_assignments(["alpha"])


@pytest.mark.parametrize("method", METHODS)
def test_presets_name_only_known_settings(method):
    trainer = method_class(method)
    stages = tuple(stage.name for stage in trainer.stages_of(["a", "b"], trainer.known_settings()))
    for preset in trainer.presets:
        assert resolve_settings(trainer.known_settings(), trainer.presets, preset, {}, stages)
    assert "paper" in trainer.presets


def test_unknown_methods_name_the_nearest():
    with pytest.raises(NnmissError, match="Did you mean metakd"):
        method_class("metakt")


def test_epochs_are_shared_and_no_stage_is_left_without():
    assert split_epochs(460, (80, 35)) == [320, 140]
    assert split_epochs(2, (99, 1)) == [1, 1]
    assert sum(split_epochs(7, (1, 1, 1))) == 7
    with pytest.raises(NnmissError, match="leaves 1 epoch for 2 stages, fewer than one each: raise it to 2 or more"):
        split_epochs(1, (1, 1))


def test_what_is_given_for_a_stage_comes_off_the_total():
    assert stage_epochs(460, {"a": 80, "b": 35}, {}) == {"a": 320, "b": 140}
    assert stage_epochs(10, {"a": 80, "b": 35}, {"a": 4}) == {"a": 4, "b": 6}
    assert stage_epochs(10, {"a": 1, "b": 1}, {"a": 2, "b": 3}) == {"a": 2, "b": 3}
    assert stage_epochs(0, {"a": 80, "b": 35}, {"a": 4}) == {"a": 4, "b": 35}  # as published
    with pytest.raises(NnmissError, match="num_epochs=5 leaves 0 epochs for b, fewer than one each: raise num_epochs to 6"):
        stage_epochs(5, {"a": 1, "b": 1}, {"a": 5})
    with pytest.raises(NnmissError, match=r"num_epochs=1 leaves 1 epoch for a and b, .* to 2 or more$"):
        stage_epochs(1, {"a": 1, "b": 1}, {})


def test_half_of_the_complete_cases_stay_in_the_training():
    training = [f"c{i:02d}" for i in range(50)]
    available = {c: (True, i < 4) for i, c in enumerate(training)}
    _, held = hold_out(training, available, 5, seed=0)
    assert len(held) == 5
    assert sum(all(available[c]) for c in held) == 2


def test_a_split_that_validates_on_training_cases_is_refused(tmp_path):
    (tmp_path / "splits_final.json").write_text('[{"train": ["a", "b"], "val": ["b"]}]')
    with pytest.raises(NnmissError, match="trains and validates on the same case"):
        load_or_make_splits(tmp_path, ["a", "b"])


def rates(name, first, epochs, total):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 1.0)
    schedule = StagedSchedule(optimizer, 0.01, name, first, total)
    out = []
    for epoch in range(epochs):
        schedule.step(epoch)
        out.append(optimizer.param_groups[0]["lr"])
    return out


@pytest.mark.parametrize("name", ["poly", "cosine"])
def test_a_schedule_over_two_stages_is_one_schedule(name):
    assert rates(name, 0, 6, 10) + rates(name, 6, 4, 10) == rates(name, 0, 10, 10)
    assert rates(name, 0, 1, 10) == [0.01]
    assert sorted(rates(name, 0, 10, 10), reverse=True) == rates(name, 0, 10, 10)


def test_poly_is_nnunets_and_cosine_halves_in_the_middle():
    assert rates("poly", 5, 1, 10)[0] == pytest.approx(0.01 * 0.5**0.9)
    assert rates("cosine", 5, 1, 10)[0] == pytest.approx(0.005)


def test_folds_are_made_once_and_cover_every_case(tmp_path):
    cases = [f"c{i:02d}" for i in range(11)]
    splits = load_or_make_splits(tmp_path, cases)
    assert splits == load_or_make_splits(tmp_path, cases)
    assert sorted(c for fold in splits for c in fold["val"]) == cases
    assert all(not set(fold["train"]) & set(fold["val"]) for fold in splits)


def test_folds_equal_nnunets(tmp_path):
    from nnunetv2.utilities.crossval_split import generate_crossval_split

    cases = [f"c{i:02d}" for i in range(11)]
    stock = generate_crossval_split(cases, seed=12345, n_splits=5)
    assert load_or_make_splits(tmp_path, cases) == [{k: [str(c) for c in v] for k, v in fold.items()} for fold in stock]


def test_fewer_than_five_cases_leave_one_out(tmp_path):
    assert len(load_or_make_splits(tmp_path, ["a", "b", "c"])) == 3
    (tmp_path / "x").mkdir()
    assert load_or_make_splits(tmp_path / "x", ["a"]) == []
    assert fold_cases([], "all", ["a"]) == (["a"], ["a"])


def test_fold_all_leaves_out_the_test_cases_of_a_preset(tmp_path):
    assert without_test_cases(tmp_path, ["a", "b", "c"]) == ["a", "b", "c"]
    (tmp_path / "test_cases.json").write_text('{"cases": ["b"]}')
    assert without_test_cases(tmp_path, ["a", "b", "c"]) == ["a", "c"]
    (tmp_path / "test_cases.json").write_text('{"cases": ["a", "b", "c"]}')
    with pytest.raises(NnmissError, match="none is left to train on"):
        without_test_cases(tmp_path, ["a", "b", "c"])


def test_no_fold_has_a_test_case(tmp_path):
    (tmp_path / "test_cases.json").write_text('{"cases": ["b", "e"]}')
    cases = list("abcdefgh")
    for fold in load_or_make_splits(tmp_path, cases):
        assert sorted(fold["train"] + fold["val"]) == ["a", "c", "d", "f", "g", "h"]
    (tmp_path / "splits_final.json").write_text('[{"train": ["a", "b"], "val": ["c"]}]')
    with pytest.raises(NnmissError, match="keeps for testing, such as b"):
        load_or_make_splits(tmp_path, cases)


def test_a_fold_that_does_not_exist_is_refused(tmp_path):
    splits = load_or_make_splits(tmp_path, ["a", "b", "c"])
    with pytest.raises(NnmissError, match="fold 3 does not exist: the folds are 0 to 2"):
        fold_cases(splits, 3, ["a", "b", "c"])
    with pytest.raises(NnmissError, match="fold 1 does not exist: there is one fold, 0; or 'all'"):
        fold_cases(splits[:1], 1, ["a", "b", "c"])


def test_a_split_that_names_unknown_cases_is_refused(tmp_path):
    (tmp_path / "splits_final.json").write_text('[{"train": ["a", "ghost"], "val": ["b"]}]')
    with pytest.raises(NnmissError, match="ghost"):
        load_or_make_splits(tmp_path, ["a", "b"])


def test_held_out_cases_are_complete_ones_and_leave_the_training():
    training = [f"c{i}" for i in range(20)]
    available = {c: (True, i % 2 == 0) for i, c in enumerate(training)}
    remaining, held = hold_out(training, available, 5, seed=0)
    assert len(held) == 4  # a fifth of twenty
    assert all(available[c] == (True, True) for c in held)
    assert sorted(remaining + held) == sorted(training)
    assert hold_out(training, available, 5, seed=0)[1] == held


def test_few_training_cases_are_shared_with_meta_validation():
    training = ["a", "b"]
    assert hold_out(training, dict.fromkeys(training, (True, True)), 5, 0) == (training, training)
    assert hold_out(training, dict.fromkeys(training, (True, True)), 0, 0) == (training, [])
