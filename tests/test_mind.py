"""MIND's stages: who trains on what, which teachers teach, Eq. 7, utilisation, sharing, resuming."""
from __future__ import annotations

import math
from dataclasses import replace

import pandas as pd
import pytest
import torch
from tiny_classification import DATASET, fold_folder, make_classifier, tiny_data, tiny_fold  # noqa: F401
from tiny_mind import SMALL, batch_losses, checkpoints, run_stages
from tiny_samples import tiny_samples

from nnmiss.atomic_files import write_json
from nnmiss.cli.train import run as train_command
from nnmiss.errors import NnmissError
from nnmiss.inference.checkpoints import read_checkpoint
from nnmiss.inference.classify_samples import subset_logits
from nnmiss.trainers.shared_teachers import shared_teacher

TASKS = ("multiclass", "binary", "multilabel")


def supervised_by_hand(task: str, logits, target) -> float:
    """Mean over the samples of the cross-entropy, or of the mean binary cross-entropy over the labels."""
    total = 0.0
    for z, y in zip(logits.detach().double(), target):
        if task == "multiclass":
            total -= float(z[y] - z.exp().sum().log())
        else:
            p = 1 / (1 + (-z).exp())
            total -= float((y * p.log() + (1 - y) * (1 - p).log()).mean())
    return total / len(logits)


def distilled_by_hand(task: str, logits, lessons, reduction: str, tau: float) -> float:
    total = 0.0
    for z, t in zip(logits.detach().double(), lessons.double()):
        if task == "multiclass":
            s = (z / tau).exp() / (z / tau).exp().sum()
            total += float((t * (t / s).log()).sum()) * tau**2
        else:
            p = 1 / (1 + (-z).exp())
            labels = -(t * p.log() + (1 - t) * (1 - p).log())
            total += float(labels.sum() if reduction == "sum" else labels.mean())
    return total / len(logits)


@pytest.mark.parametrize(("task", "settings"), [
    ("multiclass", {"tau": "2"}), ("multiclass", {"student_rows": "all"}), ("binary", {}),
    ("multilabel", {"reduction": "sum"}), ("multilabel", {"reduction": "mean", "supervise_heads": "false"})])
def test_equation_seven(tmp_path, task, settings):
    modalities = ("image", "series", "table")
    fold = tiny_fold(modalities, task, n=40, absent=0.3)
    trainer = run_stages("mind", fold, tmp_path, "image:lenet+series:lstm2+table:mlp8", until="student", teachers=1,
                         omega="image:3+series:0.5+table:1", num_epochs=1, **settings)
    rows = trainer.rows_of_ids(trainer.training)[:7]
    losses, heads = batch_losses(trainer, rows)
    target, omega = trainer.samples.targets[rows], {"image": 3.0, "series": 0.5, "table": 1.0}
    logits, shown = heads["fusion"]
    assert shown.tolist() == [i for i, row in enumerate(rows) if trainer.samples.available[row].all()]
    expected = supervised_by_hand(task, logits, target[shown])
    for m, name in enumerate(modalities):
        logits, shown = heads[name]
        assert shown.tolist() == [i for i, row in enumerate(rows) if trainer.samples.available[row, m]]
        if settings.get("supervise_heads") != "false":
            expected += supervised_by_hand(task, logits, target[shown])
        expected += omega[name] * distilled_by_hand(task, logits, trainer.lessons[name][rows[shown]],
                                                    settings.get("reduction", "sum"), float(settings.get("tau", 1)))
    assert math.isclose(losses["loss"].item(), expected, rel_tol=1e-5)
    losses["loss"].backward()
    assert all(p.grad is not None for p in trainer.network.parameters())


def test_omega_zero_is_vanilla_3h_bit_for_bit(tmp_path):
    fold = tiny_fold(("image", "series"), n=32)
    mind = run_stages("mind", fold, tmp_path / "mind", omega="0")
    vanilla = run_stages("vanilla_3h", fold, tmp_path / "vanilla")
    taught = run_stages("mind", fold, tmp_path / "taught", omega="1", teachers=1)
    assert [stage.name for stage in mind.stages] == ["student"]
    assert mind.progress.parts["loss"] == vanilla.progress.parts["loss"] != taught.progress.parts["loss"]
    for name, value in vanilla.network.state_dict().items():
        assert torch.equal(value, mind.network.state_dict()[name]), name
    assert any((value != taught.network.state_dict()[name]).any() for name, value in vanilla.network.state_dict().items())


def test_teachers_train_on_unimodal_rows_and_the_student_on_complete_ones():
    fold = tiny_fold(("image", "table"), n=48, absent=0.4)
    have = dict(zip(fold.samples.ids, fold.samples.available.tolist()))
    asked = {"teacher_encoders": SMALL}
    seen = {name: make_classifier("mind", fold, f"teacher_{name}_1", **asked).training for name in ("image", "table")}
    student = make_classifier("mind", fold, "student", **asked)
    everyone = make_classifier("mind", fold, "student", student_rows="all", **asked)
    for m, name in enumerate(("image", "table")):
        assert seen[name] == [i for i in fold.training if have[i][m]]
    assert student.training == [i for i in fold.training if all(have[i])] != everyone.training == fold.training
    assert set(student.training) < set(seen["image"])
    assert student.validation == everyone.validation == fold.validation


def test_a_missing_table_is_obeyed(tmp_path):
    hidden = dict.fromkeys(tiny_fold(n=24).training[:5], (False, True))
    fold = tiny_fold(("image", "table"), n=24, available=hidden)
    assert make_classifier("mind", fold, "teacher_image_1", teacher_encoders=SMALL).training == fold.training[5:]
    student = run_stages("mind", fold, tmp_path, until="student", num_epochs=1)
    assert student.training == fold.training[5:]
    assert student.lessons["image"][:5].isnan().all() and not student.lessons["table"][5:12].isnan().any()


def test_the_best_teachers_on_validation_teach(tmp_path):
    fold = tiny_fold(("image", "table"), n=40)
    student = run_stages("mind", fold, tmp_path, until="student", teachers=2)

    def marked(scores):
        def checkpoint_of(stage):
            kept = checkpoints(tmp_path)(stage)
            return {**kept, "kept": {**kept["kept"], "score": scores.get(stage, 0.0)}}
        return {m: sorted(weights) for m, weights in student.choose_teachers(checkpoint_of).items()}

    assert marked({"teacher_image_2": 0.9, "teacher_image_3": 0.8, "teacher_table_3": 0.1}) == {0: [2, 3], 1: [1, 3]}
    assert marked({"teacher_image_1": float("nan")}) == {0: [2, 3], 1: [1, 2]}


def test_test_samples_choose_nothing(tmp_path):
    samples = tiny_samples(("image", "table"), 40)
    changed = samples.targets.clone()
    changed[30:] = (changed[30:] + 1) % 3
    folds = (tiny_fold(samples=samples), tiny_fold(samples=replace(samples, targets=changed)))
    first, second = (run_stages("mind", fold, tmp_path / str(i), teachers=1) for i, fold in enumerate(folds))
    assert first.curves.state()["score"] == second.curves.state()["score"]
    for name, lessons in first.lessons.items():
        assert torch.equal(lessons.nan_to_num(-1), second.lessons[name].nan_to_num(-1))


@pytest.mark.parametrize("task", TASKS)
def test_lessons_are_mean_probabilities_of_training_samples_only(tmp_path, task):
    fold = tiny_fold(("image", "table"), task, n=32, absent=0.3)
    student = run_stages("mind", fold, tmp_path, until="student", teachers=2, num_epochs=1)
    chosen = student.choose_teachers(checkpoints(tmp_path))
    for m, name in enumerate(fold.samples.modalities):
        asked = [i for i, key in enumerate(fold.samples.ids) if key in student.training]
        told = student.lessons[name]
        assert (~told.isnan()).all(1).nonzero()[:, 0].tolist() == asked and len(chosen[m]) == 2
        probabilities = []
        for number, weights in chosen[m].items():
            teacher = student.build_teacher(m, number)
            teacher.load_state_dict(weights)
            z = subset_logits(teacher, fold.samples, torch.tensor(asked), student.only(m)[None], "cpu")[0]
            probabilities.append(z.softmax(1) if task == "multiclass" else z.sigmoid())
        assert torch.allclose(told[asked], sum(probabilities) / 2, atol=1e-6)


def test_utilisation_of_three_modalities(tmp_path):
    fold = tiny_fold(("image", "series", "table"), n=60, absent=0.25)
    student = run_stages("vanilla_3h", fold, tmp_path, num_epochs=3, keep="last", initial_lr="0.01")
    rows = [student.position[name] for name in fold.validation if all(fold.samples.available[student.position[name]])]
    rows = torch.tensor(rows)
    left = torch.tensor([[1, 1, 1], [0, 1, 1], [1, 0, 1], [1, 1, 0]]).bool()
    answers = subset_logits(student.network, fold.samples, rows, left, "cpu").argmax(2)
    full, *without = [float((answer == fold.samples.targets[rows]).float().mean()) for answer in answers]
    table = pd.read_csv(tmp_path / "utilisation.csv")
    assert list(table.columns) == ["iteration", "epoch", "u_image", "u_series", "u_table", "d_util"]
    assert table["epoch"].tolist() == [1, 2, 3] and 0 < len(rows) < len(fold.validation)
    expected = [(full - a) / full for a in without]
    assert table.iloc[-1, 2:].tolist() == pytest.approx([*expected, max(expected) - min(expected)], abs=1e-6)
    assert (tmp_path / "utilisation.png").stat().st_size > 5000


def test_epochs_are_compared_by_the_fusion(tmp_path):
    student = run_stages("vanilla_3h", tiny_fold(("image", "series", "table"), n=60, absent=0.25), tmp_path)
    curves = student.curves.state()
    assert student.select_on == "image+series+table" and curves["score"] == curves["score:image+series+table"]
    samples = tiny_samples(("image", "table"), 40)
    row = samples.modalities["table"].row.clone()
    row[20:30] = -1  # of all validation samples
    lacking = samples.with_modality("table", replace(samples.modalities["table"], row=row))
    assert make_classifier("vanilla_3h", tiny_fold(samples=lacking)).select_on == "available"


def test_no_complete_row_is_refused_with_the_way_out():
    fold = tiny_fold(n=24, available=dict.fromkeys(tiny_fold(n=24).training, (False, True)))
    with pytest.raises(NnmissError, match="student_rows=all"):
        make_classifier("mind", fold, "student")
    assert make_classifier("mind", fold, "student", student_rows="all", omega="image:0").training == fold.training


@pytest.mark.parametrize("settings", [{"tau": "2"}, {"omega": "sound:1"}, {"omega": "-1"}, {"teachers": "4"},
                                      {"teacher_encoders": "lenet"}, {"fusion": "sum"}, {"reduction": "max"}])
def test_wrong_settings_are_refused(settings):
    with pytest.raises(NnmissError):
        make_classifier("mind", tiny_fold(task="multilabel"), **settings)


def test_a_killed_student_goes_on_exactly(tmp_path, monkeypatch):
    fold, asked = tiny_fold(("image", "series"), n=32), {"teachers": 1, "num_epochs": 4, "keep": "last"}
    whole = run_stages("mind", fold, tmp_path, **asked)
    for name in ("checkpoint_final.pth", "checkpoint_best.pth"):
        (tmp_path / name).unlink()
    first = make_classifier("mind", fold, "student", tmp_path, teacher_encoders=SMALL, **asked)
    first.recall(checkpoints(tmp_path))
    counted = first.on_epoch_end

    def killed():
        counted()
        if first.current_epoch == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(first, "on_epoch_end", killed)
    with pytest.raises(KeyboardInterrupt):
        first.run_training()
    second = make_classifier("mind", fold, "student", tmp_path, teacher_encoders=SMALL, **asked)
    second.load_checkpoint(tmp_path / "checkpoint_latest.pth")
    second.recall(checkpoints(tmp_path))
    second.run_training()
    assert second.progress.tables == whole.progress.tables and len(whole.progress.tables["utilisation"]["rows"]) == 4
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, second.network.state_dict()[name]), name


# ---- on disk ----------------------------------------------------------------------------------------------------


def test_finished_teachers_are_shared(tiny_data, capsys):  # noqa: F811
    quick = ["-device", "cpu", "--disable_progress_bar", "--no_val"]
    settings = ["--set", "max_epochs=2", "teacher_encoders=image:lenet+lenet+table:mlp8+array:mlp8"]

    def teacher(trainer, tag=""):
        folder = fold_folder(tiny_data, f"nnMissClassifier{trainer}", tag=tag)
        return read_checkpoint(folder / "stage_teacher_image_2" / "checkpoint_final.pth")

    assert train_command([DATASET, "mind", "0", *quick, *settings, "teachers=1"]) == 0
    assert "trained by an earlier run" not in capsys.readouterr().out
    assert train_command([DATASET, "ts", "0", *quick, *settings]) == 0
    assert capsys.readouterr().out.count("trained by an earlier run") == 4
    assert train_command([DATASET, "ume", "0", *quick, *settings, "share_teachers=false"]) == 0
    assert train_command([DATASET, "mind", "0", "--tag", "s1", "--seed", "1", *quick, *settings, "teachers=1"]) == 0
    assert "trained by an earlier run" not in capsys.readouterr().out
    first = teacher("MIND")["network_weights"]
    for name, value in first.items():
        assert torch.equal(value, teacher("TS")["network_weights"][name])
        assert torch.equal(value, teacher("UME")["network_weights"][name])  # trained anew, to the same weights
    assert any((value != teacher("MIND", "s1")["network_weights"][name]).any() for name, value in first.items())


def test_only_teachers_trained_alike_are_shared(tmp_path):
    record = {"data_sha256": "a", "configuration_sha256": "b", "splits_sha256": "c", "fold": 0, "seed": 0,
              "missing": {"table": "x", "sha256": "d"}, "versions": {"nnmiss": "1"}}

    def place(changed, stage="teacher_table_1", **settings):
        trainer = make_classifier("mind", tiny_fold(), stage, tmp_path, initialize=False, **settings)
        write_json(tmp_path / "run.json", {**record, **changed})
        return shared_teacher(trainer)

    others = [{"data_sha256": "e"}, {"configuration_sha256": "e"}, {"splits_sha256": "e"}, {"fold": 1}, {"seed": 1},
              {"missing": None}, {"missing": {"table": "x", "sha256": "e"}}, {"versions": {"nnmiss": "2"}}]
    apart = {place({}), *map(place, others), place({}, initial_lr=0.5), place({}, "teacher_table_2")}
    assert len(apart) == 3 + len(others)
    same = {"missing": {"table": "other name", "sha256": "d"}, "preset": "clinical", "method": "ts"}
    assert place(same) == place({}) == place({}, omega="5")


def test_a_damaged_shared_teacher_is_trained_again(tiny_data, capsys):  # noqa: F811
    asked = [DATASET, "mke", "0", "-device", "cpu", "--disable_progress_bar", "--no_val", "--set", "max_epochs=1",
             "teacher_encoders=image:lenet"]
    assert train_command(asked) == 0
    (shared,) = (fold_folder(tiny_data).parents[1] / "shared_teachers").iterdir()
    shared.unlink()
    shared.write_bytes(b"half")
    assert train_command([*asked, "max_epochs=1", "gamma=0", "--tag", "b"]) == 0
    assert "trained again" in capsys.readouterr().out and shared.stat().st_size > 1000
