"""The baselines of MIND's tables: one head, TS, MKE, the unimodal ensemble, and the search over their settings."""
from __future__ import annotations

import math

import pandas as pd
import pytest
import torch
from tiny_classification import DATASET, fold_folder, make_classifier, tiny_data, tiny_fold  # noqa: F401
from tiny_mind import batch_losses, checkpoints, run_stages

from nnmiss.benchmark.search_space import draw_trial, parse_space
from nnmiss.cli.search import run as search_command
from nnmiss.cli.train import run as train_command
from nnmiss.errors import NnmissError
from nnmiss.inference.classify_samples import subset_logits
from nnmiss.losses.ensemble_distillation import ensemble_distillation
from nnmiss.trainers.load_classifier import load_classifier

TASKS = ("multiclass", "binary", "multilabel")


def test_vanilla_has_one_head_and_vanilla_3h_one_more_each():
    fold = tiny_fold(("image", "series"), n=24)
    for method, heads in (("vanilla", ["fusion"]), ("vanilla_3h", ["fusion", "image", "series"])):
        for fusion in ("concat", "medfuse"):
            trainer = make_classifier(method, fold, fusion=fusion)
            losses, made = batch_losses(trainer, torch.arange(6))
            assert list(made) == heads and list(losses) == ["loss", *heads]
            assert math.isclose(losses["loss"].item(), sum(losses[name].item() for name in heads), rel_tol=1e-6)


@pytest.mark.parametrize("task", TASKS)
def test_ts_teaches_the_fusion(tmp_path, task):
    fold = tiny_fold(("image", "series", "table"), task, n=32)
    trainer = run_stages("ts", fold, tmp_path, "image:lenet+series:lstm2+table:mlp8", until="student", alpha="0.7",
                         beta="0.2", num_epochs=1)
    rows = torch.tensor([3, 0, 5])
    losses, heads = batch_losses(trainer, rows)
    logits = heads["fusion"][0]
    expected = trainer.loss(logits, trainer.samples.targets[rows])
    for weight, name in ((0.7, "image"), (0.2, "series"), (0.2, "table")):
        expected = expected + weight * ensemble_distillation(logits, trainer.lessons[name][rows], task)
    assert torch.allclose(losses["loss"], expected, rtol=1e-5)
    without = make_classifier("ts", fold, alpha="0", teacher_encoders="image:lenet")
    assert not any("image" in stage.name for stage in without.stages)


@pytest.mark.parametrize("task", TASKS)
def test_mke_learns_from_its_teacher_alone(tmp_path, task):
    fold = tiny_fold(("image", "table"), task, n=24)
    trainer = run_stages("mke", fold, tmp_path, until="student", teacher_modality="table", num_epochs=1, gamma="2")
    assert [stage.name for stage in trainer.stages] == ["teacher_table_1", "teacher_table_2", "teacher_table_3", "student"]
    rows = torch.arange(4)
    first, again = batch_losses(trainer, rows)[0], batch_losses(trainer, rows)[0]
    assert first["loss"] == again["loss"] and first["regularisation"] > 0  # the noise can be replayed
    assert math.isclose(first["loss"].item(), (first["distillation"] + 2 * first["regularisation"]).item(), rel_tol=1e-6)
    trainer.samples.targets.fill_(0)
    assert batch_losses(trainer, rows)[0]["loss"] == first["loss"]
    trainer.iteration += 1
    assert batch_losses(trainer, rows)[0]["regularisation"] != first["regularisation"]
    trainer.gamma = 0.0
    assert list(batch_losses(trainer, rows)[0]) == ["loss", "distillation"]


@pytest.mark.parametrize("task", TASKS)
def test_ume_is_the_mean_of_unimodal_probabilities(tmp_path, task):
    fold = tiny_fold(("image", "series", "table"), task, n=32, absent=0.3)
    trainer = run_stages("ume", fold, tmp_path, "image:lenet+lenet+series:lstm3+table:mlp4+mlp6")
    chosen = trainer.choose_teachers(checkpoints(tmp_path))
    loaded = make_classifier("ume", fold, "mean", teacher_encoders="image:lenet+lenet+series:lstm3+table:mlp4+mlp6")
    loaded.load_checkpoint(tmp_path / "checkpoint_final.pth")
    rows, have = torch.arange(len(fold.samples)), fold.samples.available
    answers = []
    for m, weights in chosen.items():
        (number,) = weights
        teacher = trainer.build_teacher(m, number)
        teacher.load_state_dict(weights[number])
        z = subset_logits(teacher, fold.samples, rows, trainer.only(m)[None], "cpu")[0]
        answers.append(z.softmax(1) if task == "multiclass" else z.sigmoid())
    answers = torch.stack(answers)  # (M, N, outputs)
    for subset in ((True, True, True), (True, False, True), (False, True, False)):
        shown = (have & torch.tensor(subset)).T[..., None]  # (M, N, 1)
        expected = torch.where(shown, answers, 0).sum(0) / shown.sum(0)
        for network in (trainer.network, loaded.network):
            z = subset_logits(network, fold.samples, rows, torch.tensor([subset]), "cpu")[0]
            got = z.softmax(1) if task == "multiclass" else z.sigmoid()
            assert torch.allclose(got, expected, atol=1e-5, equal_nan=True)


def test_ume_stores_the_encoders_it_chose(tiny_data):  # noqa: F811
    listed = "image:lenet+lenet+table:mlp3+mlp5+array:mlp4+mlp7"
    assert train_command([DATASET, "ume", "0", "-device", "cpu", "--disable_progress_bar", "--set", "max_epochs=1",
                          f"teacher_encoders={listed}"]) == 0
    folder = fold_folder(tiny_data, "nnMissClassifierUME")
    model = load_classifier(folder)
    assert [expert.width for expert in model.network.experts][1:] in ([3, 4], [3, 7], [5, 4], [5, 7])
    assert (folder / "validation" / "results.csv").is_file() and (folder / "test" / "results.csv").is_file()


# ---- search -----------------------------------------------------------------------------------------------------


def test_trials_depend_on_seed_and_number_only():
    space = parse_space({"initial_lr": "1e-5..1e-3", "omega": "each:0.1..100", "alpha": "0.0,0.5", "x": "0..1"})
    first = draw_trial(space, ["a", "b"], 0, 3)
    assert first == draw_trial(space, ["a", "b"], 0, 3) != draw_trial(space, ["a", "b"], 0, 4)
    fewer = parse_space({"initial_lr": "1e-5..1e-3"})
    assert draw_trial(fewer, ["a", "b"], 0, 3)["initial_lr"] == first["initial_lr"]
    rates = [float(draw_trial(space, ["a", "b"], 0, n)["initial_lr"]) for n in range(400)]
    assert min(rates) >= 1e-5 and max(rates) <= 1e-3 and 170 < sum(rate < 1e-4 for rate in rates) < 230
    assert first["alpha"] in ("0.0", "0.5") and [p.partition(":")[0] for p in first["omega"].split("+")] == ["a", "b"]


@pytest.mark.parametrize("text", ["3..1", "a..b", "1..", "", "1,,2", "0..inf"])
def test_wrong_ranges_are_refused(text):
    with pytest.raises(NnmissError):
        parse_space({"omega": text})


def test_a_search_is_resumed_and_ranked_by_validation(tiny_data):  # noqa: F811
    asked = [DATASET, "vanilla", "0", "-device", "cpu", "--set", "max_epochs=2"]
    assert search_command([*asked, "--trials", "2"]) == 0
    first = {path: path.stat().st_mtime_ns for path in (tiny_data / "nnUNet_results").rglob("checkpoint_final.pth")}
    assert len(first) == 2 and len(list((tiny_data / "nnUNet_results").rglob("test/results.csv"))) == 1
    assert search_command([*asked, "--trials", "3"]) == 0
    assert all(path.stat().st_mtime_ns == time for path, time in first.items())
    (file,) = fold_folder(tiny_data).parents[1].glob("search/*/fold_0/search.csv")
    table = pd.read_csv(file)
    assert sorted(table["trial"]) == [0, 1, 2] and table["rank"].tolist() == [1, 2, 3]
    assert table["validation_score"].is_monotonic_decreasing and table["student.initial_lr"].notna().sum() == 2
    for tag, score in zip(table["tag"], table["validation_score"]):
        folder = fold_folder(tiny_data, "nnMissClassifierVanilla", tag=tag)
        assert pd.read_csv(folder / "progress.csv")["score"].max() == pytest.approx(score)
        assert (folder / "test").is_dir() or tag != table["tag"][0]
    with pytest.raises(NnmissError, match="another --tag"):
        search_command([*asked, "batch_size=4"])
    assert search_command([*asked, "keep=last", "--tag", "last", "--trials", "2"]) == 0
    table = pd.read_csv(file.parents[2] / f"{file.parents[1].name.replace('search', 'last')}" / "fold_0" / "search.csv")
    for tag, score in zip(table["tag"], table["validation_score"]):  # of the weights that were kept
        progress = pd.read_csv(fold_folder(tiny_data, "nnMissClassifierVanilla", tag=tag) / "progress.csv")
        assert progress["score"].iloc[-1] == pytest.approx(score)
    assert table["epoch"].tolist() == [2, 2]
    for wrong in (["--over", "nothing=1..2"], ["--over", "max_epochs=1,2"], ["--trials", "0"]):
        with pytest.raises(NnmissError):
            search_command([*asked, "--tag", "other", *wrong])
