"""LCKD: who is elected and when, who teaches whom, and that an election leaves everything else alone."""
from __future__ import annotations

import json
import math
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_dataset import DATASET, PLANS, SHORT, fold_folder
from tiny_trainers import make_batch, make_trainer

from nnmiss.cli import train
from nnmiss.errors import NnmissError
from nnmiss.inference.checkpoints import read_checkpoint
from nnmiss.losses.teacher_election import (
    compare_modalities,
    elect_teachers,
    region_weights,
    regional_distillation,
    soft_dice,
)
from nnmiss.networks.base import item_index
from nnmiss.seeding import torch_generator
from nnmiss.trainers.lckd import nnMissTrainerLCKD

NAN = float("nan")
PRESENT = torch.tensor([[True, False, True, True], [False, True, False, False], [True, True, False, False]])
TRAINER = "nnMissTrainerLCKD"


def run(*arguments, epochs=4, method="lckd"):
    return train.run(["801", method, "0", "-p", PLANS, "-device", "cpu", "--disable_progress_bar", *SHORT,
                      f"num_epochs={epochs}", *arguments])


def final(tiny, **kwargs):
    return read_checkpoint(fold_folder(tiny, TRAINER, **kwargs) / "checkpoint_final.pth")


# ---- functions ------------------------------------------------------------------------------------------------------


def test_soft_dice_by_hand():
    probabilities = torch.tensor([[0.5, 1.0, 0.0, 0.5], [0.2, 0.2, 0.2, 0.2]])
    truth = torch.tensor([[True, True, False, False], [False] * 4])
    assert float(soft_dice(probabilities, truth)[0]) == pytest.approx(2 * 1.5 / (2 + 2))
    assert math.isnan(soft_dice(probabilities, truth)[1])  # a case without the region says nothing
    valid = torch.tensor([True, False, True, True])
    assert float(soft_dice(probabilities, truth, valid)[0]) == pytest.approx(2 * 0.5 / (1 + 1))


def test_the_best_modality_of_each_task_is_elected():
    dice = torch.tensor([[0.1, 0.7, 0.5, NAN], [0.3, 0.7, NAN, NAN], [0.2, 0.1, 0.6, NAN]])
    assert elect_teachers(dice, [0, 0, 0, 2]) == [1, 0, 2, 2]  # of equals the first; nobody known: the incumbent
    assert elect_teachers(torch.zeros(3, 2), [2, 2]) == [0, 0]


def test_modalities_are_compared_on_the_cases_that_have_all_of_them():
    table = torch.tensor([[[0.5], [0.6]], [[0.9], [NAN]]])  # (2 cases, 2 modalities, 1 task); the second is easy
    assert compare_modalities(table)[:, 0].tolist() == pytest.approx([0.5, 0.6])
    apart = torch.tensor([[[0.5], [NAN]], [[NAN], [0.4]], [[0.7], [NAN]]])
    assert compare_modalities(apart)[:, 0].tolist() == pytest.approx([0.6, 0.4])
    nowhere = torch.tensor([[[0.5], [NAN], [0.1]], [[0.7], [NAN], [NAN]]])  # the modality nobody has does not count
    assert compare_modalities(nowhere)[:, 0].nan_to_num(9).tolist() == pytest.approx([0.5, 9, 0.1])
    assert compare_modalities(torch.full((2, 3, 1), NAN)).isnan().all()


def test_region_weights_are_the_occupancy_of_each_coarse_voxel():
    truth = torch.zeros(1, 2, 4, 4)
    truth[0, 0, :2, :2] = 1  # all of one coarse voxel
    truth[0, 0, 3, 3] = 1  # a quarter of another
    weights = region_weights(truth, torch.Size([2, 2]))
    assert torch.allclose(weights[0, 0], torch.tensor([[0.8, 0.0], [0.0, 0.2]]))
    assert weights[0, 1].sum() == 0
    assert float(region_weights(torch.rand(2, 3, 8, 8, 8), torch.Size([2, 4, 2])).sum()) == pytest.approx(6, rel=1e-5)


def slow_regional(features, present, teachers, weights, p):
    """The documented sum, voxel by voxel."""
    index, total = item_index(present), 0.0
    for b in range(len(present)):
        for k, teacher in enumerate(teachers):
            for student in range(present.shape[1]):
                if student == teacher or not (present[b, teacher] and present[b, student]):
                    continue
                a, c = features[index[b, teacher]], features[index[b, student]]
                for voxel in np.ndindex(*features.shape[2:]):
                    distance = sum(abs(float(a[(i, *voxel)] - c[(i, *voxel)])) ** p for i in range(len(a))) / len(a)
                    total += float(weights[(b, k, *voxel)]) * distance
    return total / len(present)


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("shape", [(3, 2, 2), (2, 3, 2, 2)])
@pytest.mark.parametrize("teachers", [[0, 2, 0], [1, 1, 1], [3, 0, 1]])
def test_regional_distillation_equals_its_sum(p, shape, teachers):
    features = torch.randn(int(PRESENT.sum()), *shape, generator=torch_generator("features"))
    weights = torch.rand(3, 3, *shape[1:], generator=torch_generator("weights"))
    loss = regional_distillation(features, item_index(PRESENT), teachers, weights, p)
    assert float(loss) == pytest.approx(slow_regional(features, PRESENT, teachers, weights, p), rel=1e-4)


def test_regional_distillation_by_hand():
    features = torch.tensor([[[1.0, 2.0]], [[4.0, 2.5]]], requires_grad=True)  # two modalities, one channel, two voxels
    weights = torch.tensor([[[0.25, 0.75]]])
    loss = regional_distillation(features, torch.tensor([[0, 1]]), [0], weights)
    assert float(loss.detach()) == pytest.approx(0.25 * 3 + 0.75 * 0.5)
    loss.backward()
    assert features.grad[0].abs().sum() == 0  # the teacher
    assert features.grad[1, 0].tolist() == pytest.approx([0.25, 0.75])


def test_an_absent_teacher_teaches_nobody():
    features = torch.randn(2, 3, 2, 2, requires_grad=True)
    loss = regional_distillation(features, torch.tensor([[0, -1, 1]]), [1], torch.ones(1, 1, 2, 2))
    loss.backward()
    assert float(loss.detach()) == 0
    assert features.grad.abs().sum() == 0


# ---- losses of the trainer ------------------------------------------------------------------------------------------


def distillation_gradients(trainer, teachers, present):
    """Gradient of the distillation on each packed bottleneck feature, and the loss itself."""
    trainer.teachers = teachers
    features = torch.randn(int(present.sum()), 3, 2, 2, 2, generator=torch_generator("f"), requires_grad=True)
    batch = make_batch(trainer, len(present))

    def network(x, present, return_features):
        return None, [features]

    trainer.loss = lambda logits, target: torch.zeros(())
    parts = trainer.losses(network, batch["data"], batch["target"], present)
    parts["loss"].backward()
    return features, parts


@pytest.mark.parametrize("per_task", [False, True])
def test_a_teacher_alone_is_never_pulled_and_all_others_are(tmp_path, monkeypatch, per_task):
    trainer = make_trainer(tmp_path, monkeypatch, "lckd", per_task=per_task)
    present = torch.tensor([[True, True, False, True], [False, True, True, True]])
    features, parts = distillation_gradients(trainer, [0, 0], present)
    moved = features.grad.flatten(1).abs().sum(1) > 0
    assert moved.tolist() == [False, True, True, False, False, False]  # the second sample lacks the teacher
    assert float(parts["loss"].detach()) == pytest.approx(0.1 * float(parts["distillation"].detach()))


def test_the_union_of_the_teachers_teaches_as_in_the_official_code(tmp_path, monkeypatch):
    trainer = make_trainer(tmp_path, monkeypatch, "lckd")
    present = torch.tensor([[True, True, False, True], [False, True, True, True]])
    features, parts = distillation_gradients(trainer, [1, 3], present)
    index, expected = item_index(present), 0.0
    for b in range(2):
        for teacher in (1, 3):
            for student in range(4):
                if present[b, student]:
                    difference = features[index[b, teacher]] - features[index[b, student]]
                    expected += float(difference.detach().abs().mean())
    assert float(parts["distillation"].detach()) == pytest.approx(expected / 2, rel=1e-5)
    _, same = distillation_gradients(trainer, [1, 3, 3, 1], present)
    assert torch.equal(same["distillation"], parts["distillation"])  # a modality of two tasks teaches once


@pytest.mark.parametrize("labels", ["regions", "labels", "ignore"])
def test_a_task_teaches_where_its_region_is(tmp_path, monkeypatch, labels):
    trainer = make_trainer(tmp_path, monkeypatch, "lckd", labels=labels, per_task=True)
    assert list(trainer.tasks) == (["whole", "core"] if labels == "regions" else ["a", "b"])
    present = torch.ones(1, 4, dtype=torch.bool)
    batch = make_batch(trainer, 1)
    finest = torch.zeros_like(batch["target"][0])
    finest[:, -1, :8, :8, :8] = True if labels == "regions" else 2  # the last task only, in one corner
    trainer.teachers = [1, 2]
    features = torch.randn(4, 3, 2, 2, 2, generator=torch_generator("f"), requires_grad=True)
    trainer.loss = lambda logits, target: torch.zeros(())
    parts = trainer.losses(lambda *a, **k: (None, [features]), batch["data"], [finest], present)
    parts["loss"].backward()
    expected = sum((features[2] - features[s]).abs()[:, 0, 0, 0].mean() for s in (0, 1, 3))
    assert float(parts["distillation"].detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    touched = features.grad.abs().sum((1,)) > 0  # (4, 2, 2, 2)
    assert touched[:, 0, 0, 0].tolist() == [True, True, False, True]
    assert int(touched.sum()) == 3


def test_distillation_at_every_stage(tmp_path, monkeypatch):
    for places, expected in (("bottleneck", 1), ("every_stage", 3)):
        for name, per_task in (("pairwise_distillation", False), ("regional_distillation", True)):
            trainer = make_trainer(tmp_path, monkeypatch, "lckd", places=places, per_task=per_task)
            x, target = trainer.to_device(make_batch(trainer))
            seen = []
            with monkeypatch.context() as patch:
                patch.setattr(f"nnmiss.trainers.lckd.{name}",
                              lambda f, *rest, seen=seen: seen.append(f.shape) or f.sum() * 0)
                trainer.losses(trainer.network, x, target, torch.ones(2, 4, dtype=torch.bool))
            assert len(set(seen)) == expected


# ---- elections ------------------------------------------------------------------------------------------------------


def test_elections_come_every_5000_of_115000_iterations_and_in_proportion(tmp_path, monkeypatch):
    trainer = make_trainer(tmp_path, monkeypatch, "lckd")
    elected = []
    trainer.elect = lambda: elected.append(trainer.iteration)
    for epochs, iterations, every in ((460, 250, 5000), (1, 3, 1), (4, 60, 11)):
        trainer.total_epochs, trainer.num_iterations_per_epoch = epochs, iterations
        assert trainer.interval == every
    trainer.election_interval = 4
    for trainer.iteration in range(9):
        trainer.before_iteration()
    assert elected == [0, 4, 8]


def test_the_table_decides_and_is_logged(tmp_path, monkeypatch, capsys):
    trainer = make_trainer(tmp_path, monkeypatch, "lckd", m=3)
    assert trainer.teachers == [0, 0]
    table = torch.tensor([[[0.1, 0.2], [0.8, 0.1], [0.3, 0.9]]])
    trainer.scores_of_single_modalities = lambda: table
    trainer.first_iteration, trainer.iteration = 100, 20
    trainer.elect()
    assert trainer.teachers == [1, 2]
    assert trainer.status() == ", teachers whole m1, core m2"
    assert "iteration 120: whole m1 (0.800), core m2 (0.900)" in capsys.readouterr().out
    log = trainer.progress.tables["elections"]
    assert dict(zip(log["columns"], log["rows"][0][1:]))["core:m2"] == pytest.approx(0.9)
    assert log["columns"][:3] == ["whole:m0", "whole:m1", "whole:m2"]


class Held:
    """A data set of held-out cases in memory: one with everything, one without the second task and modality 0."""

    cases = {"case_0": 2, "case_1": 1}
    far = 0  # label of the far end

    def __init__(self, folder, identifiers):
        self.identifiers = identifiers

    def load_case(self, case):
        labels = torch.zeros(1, 20, 16, 18, dtype=torch.int8) - 1
        labels[0, 4:12, 4:12, 4:12] = 1
        labels[0, 6:10, 6:10, 6:10] = self.cases[case]
        labels[0, 14:, :, :] = self.far
        return torch.rand(4, 20, 16, 18, generator=torch_generator(case)).numpy(), labels.numpy(), None, {}


def trainer_with_held_out(tmp_path, monkeypatch, labels="regions", **settings):
    rows = {"case_0": [True] * 4, "case_1": [False, True, True, True], "case_2": [True] * 4}
    trainer = make_trainer(tmp_path, monkeypatch, "lckd", labels=labels, available=rows, **settings)
    trainer.dataset_class, trainer.held_out = Held, ["case_0", "case_1"]
    return trainer


@pytest.mark.parametrize("labels", ["regions", "labels", "ignore"])
def test_an_election_predicts_each_modality_alone(tmp_path, monkeypatch, labels):
    """Against plain passes over the whole image, on a network whose answer does not depend on where a tile is."""
    trainer = trainer_with_held_out(tmp_path, monkeypatch, labels)
    trainer.files = dict.fromkeys(trainer.files, (True,) * 4)  # a table of simulated missingness counts too
    monkeypatch.setattr(Held, "far", 3 if labels == "ignore" else 0)
    factor = torch.tensor([1.0, -1.0, 2.0, 0.5])
    heads = trainer.label_manager.num_segmentation_heads

    def answer(tiles, presents, batch):  # (T, M, *patch), (S, M): a voxel's logit is the modality times its factor
        values = torch.stack([(tiles * (factor * shown).view(4, 1, 1, 1)).sum(1) for shown in presents], 1)
        return torch.stack([values * (head + 1) for head in range(heads)], 2)

    monkeypatch.setattr(trainer.network, "forward_subsets", answer, raising=False)
    table = trainer.scores_of_single_modalities()
    assert table.shape == (2, 4, 2)
    assert table[1, 0].isnan().all()  # case_1 lacks modality 0
    assert table[1, :, 1].isnan().all()  # and has no second task
    image, segmentation, *_ = Held("", []).load_case("case_0")
    for m in range(4):
        logits = np.stack([image[m] * float(factor[m]) * (head + 1) for head in range(heads)])
        odds = np.exp(logits)
        chance = 1 / (1 + np.exp(-logits)) if labels == "regions" else (odds / odds.sum(0))[1:]
        for k, members in enumerate([(1, 2), (2,)] if labels == "regions" else [(1,), (2,)]):
            truth = np.isin(segmentation[0], members)
            expected = 2 * chance[k][truth].sum() / (chance[k][segmentation[0] != 3].sum() + truth.sum())
            assert float(table[0, m, k]) == pytest.approx(expected, rel=1e-4)


def test_ranks_share_the_cases_and_get_the_whole_table(tmp_path, monkeypatch):
    trainer = trainer_with_held_out(tmp_path, monkeypatch)
    alone = trainer.scores_of_single_modalities()
    parts = []
    monkeypatch.setattr("nnmiss.trainers.lckd.dist.get_world_size", lambda: 2)
    monkeypatch.setattr("nnmiss.trainers.lckd.dist.all_reduce", lambda table: parts.append(table.clone()))
    trainer.is_ddp = True
    for trainer.local_rank in (0, 1):
        trainer.scores_of_single_modalities()
    assert parts[0][1].abs().sum() == parts[1][0].abs().sum() == 0  # each case on one rank
    assert torch.equal(sum(parts).nan_to_num(9), alone.nan_to_num(9))


def test_an_election_changes_nothing_but_the_teachers(tmp_path, monkeypatch):
    steps = []
    for elections in (0, 3):
        trainer = trainer_with_held_out(tmp_path, monkeypatch)
        trainer.before_iteration = lambda: None
        state = torch.get_rng_state()
        for _ in range(elections):
            trainer.elect()
        assert torch.equal(torch.get_rng_state(), state)
        assert trainer.network.training
        trainer.teachers = [1, 2]
        trainer.train_step(make_batch(trainer))
        steps.append(torch.cat([p.detach().flatten() for p in trainer.network.parameters()]))
    assert torch.equal(*steps)


def test_a_diverged_network_is_named_as_such(tmp_path, monkeypatch):
    trainer = trainer_with_held_out(tmp_path, monkeypatch)
    for parameter in trainer.network.parameters():
        parameter.data.fill_(NAN)
    with pytest.raises(NnmissError, match=r"election of teachers at iteration 0: .*not finite.*lower --set initial_lr"):
        trainer.elect()


def test_fixed_teachers_teach_all_the_time(tmp_path, monkeypatch):
    trainer = make_trainer(tmp_path, monkeypatch, "lckd", election="fixed", fixed_teachers="M2+m0")
    trainer.elect = lambda: pytest.fail("an election")
    trainer.before_iteration()
    assert set(trainer.teachers) == {0, 2}
    assert trainer.status() == ", teachers m2+m0"
    trainer.load_method_state({"teachers": [1, 1]})
    assert set(trainer.teachers) == {0, 2}
    per_task = make_trainer(tmp_path, monkeypatch, "lckd", election="fixed", fixed_teachers="m3+m3", per_task=True)
    assert per_task.teachers == [3, 3]


@pytest.mark.parametrize("settings, message", [
    ({"election": "fixed", "fixed_teachers": "m0+m7"}, "modality 'm7' is not in this data set"),
    ({"election": "fixed"}, "needs --set fixed_teachers"),
    ({"fixed_teachers": "m0"}, "needs election=fixed"),
    ({"election": "fixed", "fixed_teachers": "m0", "per_task": True}, "in the order whole, core"),
])
def test_teachers_that_make_no_sense_are_refused(tmp_path, monkeypatch, settings, message):
    with pytest.raises(NnmissError, match=message):
        make_trainer(tmp_path, monkeypatch, "lckd", **settings)


# ---- runs -----------------------------------------------------------------------------------------------------------


def test_a_run_elects_on_cases_it_does_not_train_on(tiny, session_folders, capsys):
    assert run() == 0
    fold = fold_folder(tiny, TRAINER)
    table = pd.read_csv(fold / "elections.csv")
    record = json.loads((fold / "run.json").read_text())
    assert record["settings"]["warmup"]["num_epochs"] == 3
    assert list(table["iteration"]) == list(range(8))  # four epochs of two iterations: the shortest interval
    assert table.shape[1] == 1 + 4 * 3  # modalities, tasks
    assert (fold / "elections.png").exists()
    splits = json.loads((session_folders / "nnUNet_preprocessed" / DATASET / "splits_final.json").read_text())
    held = set(record["held_out_cases"])
    assert held
    assert held <= set(splits[0]["train"])
    assert not held & set(record["validation_cases"])
    log = "".join(file.read_text() for file in fold.glob("training_log*.txt"))  # one per stage, one of the validation
    training = log.partition("training [")[2].partition("]")[0]
    assert training
    assert not any(f"'{case}'" in training for case in held)
    out = capsys.readouterr().out
    assert "teachers elected at iteration 0:" in out
    teachers = final(tiny)["nnmiss"]["state"]["teachers"]
    last = table.iloc[-1, 1:].to_numpy(float).reshape(3, 4)
    for k, teacher in enumerate(teachers):
        if np.isfinite(last[k]).any():
            assert teacher == np.nanargmax(last[k])


@pytest.mark.parametrize("stop_at", [3, 6, 7])  # within the warm-up, first and second iteration of the other stage
def test_an_interrupted_run_continues_to_the_same_weights_and_teachers(tiny, monkeypatch, stop_at):
    every = ("--set", "election_interval=3")  # so that it resumes with teachers elected before
    assert run("--no_val", *every) == 0
    straight = final(tiny)
    shutil.rmtree(tiny / "nnUNet_results" / DATASET)
    step, done = nnMissTrainerLCKD.train_step, []

    def interrupted(self, batch):
        done.append(1)
        if len(done) == stop_at + 1:
            raise KeyboardInterrupt
        return step(self, batch)

    monkeypatch.setattr(nnMissTrainerLCKD, "train_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run("--no_val", *every)
    monkeypatch.setattr(nnMissTrainerLCKD, "train_step", step)
    assert run("--no_val", "--c", *every) == 0
    continued = final(tiny)
    a, b = straight["network_weights"], continued["network_weights"]
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert straight["nnmiss"]["state"] == continued["nnmiss"]["state"]
    rows = [c["nnmiss"]["progress"]["tables"]["elections"]["rows"] for c in (straight, continued)]
    assert np.array_equal(*rows, equal_nan=True)


def test_elections_do_not_disturb_what_is_drawn(tiny):
    """With distillation switched off, runs with and without elections are the same run."""
    run("--no_val", "--tag", "elected", "--set", "kd=0", epochs=2)
    run("--no_val", "--tag", "fixed", "--set", "kd=0", "election=fixed", "fixed_teachers=t1ce", epochs=2)
    a, b = (final(tiny, plans=f"{PLANS}-{tag}")["network_weights"] for tag in ("elected", "fixed"))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_the_ablations_run(tiny):
    run("--no_val", "--tag", "task", "--set", "per_task=true", "places=every_stage", epochs=2)
    run("--no_val", "--tag", "few", "--set", "election_interval=3", epochs=2)
    table = pd.read_csv(fold_folder(tiny, TRAINER, plans=f"{PLANS}-few") / "elections.csv")
    assert list(table["iteration"]) == [0, 2]  # the start of each stage of two iterations
    with pytest.raises(NnmissError, match="Did you mean t1ce"):
        run("--no_val", "--tag", "wrong", "--set", "election=fixed", "fixed_teachers=t1cee", epochs=2)
