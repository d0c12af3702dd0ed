"""All-stage's trainer: its stages through the commands, what each starts from, and what its gradients move."""
from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
import torch.distributed as dist
from tiny_dataset import DATASET, PLANS, SHORT, fold_folder
from tiny_dataset import test_images as image_folder
from tiny_trainers import make_batch, make_trainer
from torch.nn.parallel import DistributedDataParallel

from nnmiss.cli import predict, train
from nnmiss.errors import NnmissError
from nnmiss.inference.checkpoints import read_checkpoint
from nnmiss.networks import prompts
from nnmiss.networks.codistillation import CoDistillation
from nnmiss.trainers.all_stage import nnMissTrainerAllStage

TRAINER = "nnMissTrainerAllStage"
STAGES = ["reconstruct", "segment", "approximate", "codistil"]
TWO_EPOCHS = ["--set", *(f"{stage}.num_epochs=2" for stage in STAGES)]
MISSING = {"case_0": [True, False, True, False], "case_1": [True] * 4, "case_2": [False, True, False, False]}


@pytest.fixture
def trainer_of(tmp_path, monkeypatch):
    return lambda **settings: make_trainer(tmp_path, monkeypatch, "all_stage", **settings)


def state(module):
    return copy.deepcopy(module.state_dict())


def changed(before, module):
    return [name for name, value in module.state_dict().items() if not torch.equal(before[name], value)]


# ---- one step ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recover, alpha, beta, moves", [
    (True, 1.0, 0.1, True), (True, 0.0, 0.1, False), (False, 1.0, 0.1, False), (True, 1.0, 0.0, True),
    (True, 0.0, 0.0, False)])
def test_what_a_codistillation_step_moves(trainer_of, recover, alpha, beta, moves):
    """Table 5: recovery learns by data refining alone; the teacher never does."""
    trainer = trainer_of(available=MISSING, recover=recover, alpha=alpha, beta=beta)
    network = trainer.network
    assert isinstance(network, CoDistillation)
    recovery, teacher, student = state(network.recovery), state(network.teacher), state(network.student)
    parts = trainer.train_step(make_batch(trainer))
    assert bool(changed(recovery, network.recovery)) == moves
    assert not changed(teacher, network.teacher)
    assert changed(student, network.student)
    assert set(parts) == {"loss", "task", *(["data"] if moves else []), *(["distillation"] if beta else [])}
    expected = parts["task"] + alpha * parts.get("data", 0) + beta * parts.get("distillation", 0)
    assert parts["loss"] == pytest.approx(expected, rel=1e-5)


def test_where_nothing_is_missing_recovery_rests_even_with_momentum(trainer_of):
    trainer = trainer_of(available=MISSING)
    trainer.train_step(make_batch(trainer, keys=["case_0", "case_1"]))
    recovery, student = state(trainer.network.recovery), state(trainer.network.student)
    parts = trainer.train_step(make_batch(trainer, keys=["case_1", "case_1"]))
    assert parts["data"] == 0
    assert not changed(recovery, trainer.network.recovery)
    assert changed(student, trainer.network.student)


def test_the_approximation_is_eq_3_and_leaves_the_judge_alone(trainer_of):
    trainer = trainer_of(available=MISSING, stage="approximate")
    teacher = state(trainer.network.teacher)
    parts = trainer.train_step(make_batch(trainer))
    assert parts["loss"] == pytest.approx(parts["reconstruction"] + 0.1 * parts["segmentation"], rel=1e-5)
    assert not changed(teacher, trainer.network.teacher)
    assert set(trainer_of(stage="approximate", lam=0.0).train_step(make_batch(trainer))) == {"loss", "reconstruction"}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("filling", [float("nan"), 1e6])
def test_what_a_case_lacks_changes_no_weight(trainer_of, stage, filling):
    weights = []
    for fill in (None, filling):
        trainer = trainer_of(available=MISSING, stage=stage)
        batch = make_batch(trainer, size=3, keys=list(MISSING))
        if fill is not None:
            batch["data"][~trainer.available_of(batch["keys"])] = fill
        for _ in range(2):
            trainer.train_step(batch)
        weights.append(trainer.network.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_micro_batches_give_the_reconstruction_gradient_of_the_whole_batch(trainer_of):
    steps = []
    for micro_batch in (1, 2):
        trainer = trainer_of(available=MISSING, stage="reconstruct")
        trainer.micro_batch = micro_batch
        trainer.train_step(make_batch(trainer))
        steps.append({n: p.grad for n, p in trainer.network.named_parameters() if p.grad is not None})
    assert all(torch.allclose(steps[0][n], steps[1][n], atol=1e-5) for n in steps[0])


@pytest.mark.parametrize("stage", STAGES)
def test_mixed_precision_trains(trainer_of, stage):
    """bfloat16 on the CPU casts where float16 on CUDA does."""
    trainer = trainer_of(available=MISSING, stage=stage)
    trainer.autocast = lambda: torch.autocast("cpu", dtype=torch.bfloat16)
    exact = trainer_of(available=MISSING, stage=stage)
    for _ in range(3):
        parts, expected = trainer.train_step(make_batch(trainer)), exact.train_step(make_batch(exact))
    assert parts == pytest.approx(expected, rel=0.1, abs=0.02)


@pytest.mark.parametrize("stage", STAGES)
def test_distributed_training_sees_every_parameter_whether_or_not_something_is_missing(trainer_of, stage, tmp_path):
    """DistributedDataParallel complains in the step after one in which a parameter had no gradient."""
    trainer = trainer_of(available=MISSING, stage=stage)
    alone = trainer_of(available=MISSING, stage=stage)
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1)
    try:
        trainer.is_ddp = alone.is_ddp = True  # nnU-Net's loss then reaches the coarsest output
        trainer.loss, alone.loss = trainer._build_loss(), alone._build_loss()
        trainer.network = DistributedDataParallel(trainer.network)
        for keys in (["case_0", "case_1"], ["case_1", "case_1"], ["case_2", "case_1"], ["case_1", "case_1"]):
            parts = trainer.train_step(make_batch(trainer, keys=keys))
            assert parts == pytest.approx(alone.train_step(make_batch(alone, keys=keys)), rel=1e-3)
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("stage", ["reconstruct", "approximate", "codistil"])
def test_what_is_drawn_is_replayable_and_new_in_every_iteration(trainer_of, stage):
    trainer = trainer_of(stage=stage)
    available = torch.ones(2, 4, dtype=torch.bool)
    name = "positions" if stage == "codistil" else "patches"
    first = trainer.draw(available)
    assert torch.equal(first[name], trainer.draw(available)[name])
    trainer.iteration += 1
    assert not torch.equal(first[name], trainer.draw(available)[name])
    if stage != "codistil":
        assert first["patches"].flatten(1).sum(1).tolist() == [256, 256]  # of 4 * 8^3, whatever was dropped


def test_each_stage_is_as_long_as_published_with_a_cosine_of_its_own(trainer_of):
    for stage, epochs in zip(STAGES, (239, 796, 239, 796)):
        trainer = trainer_of(stage=stage)
        assert trainer.num_epochs == epochs
        group = trainer.optimizer.param_groups[0]
        assert isinstance(trainer.optimizer, torch.optim.Adam)
        assert group["weight_decay"] == 5e-4
        for epoch, share in ((0, 1), (epochs / 2, 0.5), (epochs, 0)):
            trainer.lr_scheduler.step(epoch)
            assert group["lr"] == pytest.approx(3e-4 * share, abs=1e-12)


def test_the_teacher_may_have_another_prompt_than_the_student(trainer_of):
    """Table 5: a student without hyper-network, a hyper-teacher with the binary code."""
    trainer = trainer_of(prompt="none", teacher_prompt="binary")
    assert (trainer.network.student.prompt, trainer.network.teacher.prompt) == ("none", "binary")
    assert trainer_of(stage="segment", prompt="none", teacher_prompt="binary").network.prompt == "binary"
    assert trainer_of(prompt="binary", teacher_prompt="none").network.teacher.prompt == "none"


# ---- through the commands ---------------------------------------------------------------------------------------------


def run(*arguments, epochs=4, prompt="binary"):
    return train.run(["801", "all_stage", "0", "-p", PLANS, "-device", "cpu", "--disable_progress_bar", *SHORT,
                      f"num_epochs={epochs}", f"prompt={prompt}", *arguments])


def folder_of(tiny, stage):
    fold = fold_folder(tiny, TRAINER)
    return fold if stage == STAGES[-1] else fold / f"stage_{stage}"


def final(tiny, stage):
    return read_checkpoint(folder_of(tiny, stage) / "checkpoint_final.pth")


@pytest.fixture
def missing(session_folders):
    """A table that leaves every second case its first modality only."""
    rows = json.loads((session_folders / "nnUNet_preprocessed" / DATASET / "availability.json").read_text())["cases"]
    lines = ["case,flair,t1,t1ce,t2"]
    for i, (case, row) in enumerate(rows.items()):
        kept = [int(have and (i % 2 == 0 or m == row.index(True))) for m, have in enumerate(row)]
        lines.append(",".join([case, *map(str, kept)]))
    folder = session_folders / "nnUNet_raw" / DATASET / "missing"
    folder.mkdir(exist_ok=True)
    (folder / "every_second.csv").write_text("\n".join(lines))
    return ["--missing", "every_second"]


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_one_command_runs_all_stages_and_the_student_alone_is_kept(tiny, missing, monkeypatch, capsys):
    started, recall = {}, nnMissTrainerAllStage.recall

    def recalled(self, checkpoint_of):
        recall(self, checkpoint_of)
        started[self.stage.name] = state(self.bare_network)

    monkeypatch.setattr(nnMissTrainerAllStage, "recall", recalled)
    assert run(*missing) == 0
    out = capsys.readouterr().out
    assert "tensors taken from stage reconstruct" in out
    assert "tensors taken from stage approximate" in out
    assert "reconstruct epoch 1/1" in out
    first, segmenter, second, last = (final(tiny, stage) for stage in STAGES)
    assert not any("teacher" in name or "recovery" in name for name in last["network_weights"])
    assert set(last["nnmiss"]["state"]) == {"recovery"}

    def part(stage, name):
        return {k.removeprefix(f"{name}."): v for k, v in started[stage].items() if k.startswith(f"{name}.")}

    def encoder(weights):
        return {k: v for k, v in weights.items() if k.startswith("encoder.")}

    assert equal(part("approximate", "autoencoder"), first["network_weights"])
    assert equal(part("approximate", "teacher"), segmenter["network_weights"])
    assert equal(part("codistil", "teacher"), segmenter["network_weights"])
    assert equal(part("codistil", "recovery"), second["network_weights"])
    assert equal(encoder(started["segment"]), encoder(first["network_weights"]))
    assert equal(encoder(part("codistil", "student")), encoder(second["network_weights"]))
    assert not equal(last["nnmiss"]["state"]["recovery"], second["network_weights"])
    assert (fold_folder(tiny, TRAINER) / "validation" / "table.md").is_file()
    record = json.loads((fold_folder(tiny, TRAINER) / "run.json").read_text())
    assert record["missing"]["table"] == "every_second"


def test_a_run_that_is_interrupted_in_every_stage_ends_in_the_same_weights(tiny, monkeypatch):
    assert run("--no_val", *TWO_EPOCHS) == 0
    straight = final(tiny, STAGES[-1])
    shutil.rmtree(tiny / "nnUNet_results" / DATASET)
    step = nnMissTrainerAllStage.train_step
    for stop_in in STAGES:
        done = []

        def interrupted(self, batch, stop_in=stop_in, done=done):
            done.append(self.stage.name)
            if done.count(stop_in) == 4:  # in the second epoch of the stage
                raise KeyboardInterrupt
            return step(self, batch)

        monkeypatch.setattr(nnMissTrainerAllStage, "train_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run("--no_val", "--c", *TWO_EPOCHS)
        assert set(done) == {*STAGES[max(0, STAGES.index(stop_in) - 1) : STAGES.index(stop_in) + 1]}
        assert read_checkpoint(folder_of(tiny, stop_in) / "checkpoint_latest.pth")["current_epoch"] == 1
    monkeypatch.setattr(nnMissTrainerAllStage, "train_step", step)
    assert run("--no_val", "--c", *TWO_EPOCHS) == 0
    continued = final(tiny, STAGES[-1])
    assert equal(straight["network_weights"], continued["network_weights"])
    assert equal(straight["nnmiss"]["state"]["recovery"], continued["nnmiss"]["state"]["recovery"])


def test_one_stage_at_a_time(tiny):
    with pytest.raises(NnmissError, match="stage codistil starts from stage"):
        run("--no_val", "--stage", "codistil")
    for stage in STAGES:
        assert run("--no_val", "--stage", stage) == 0
    assert (fold_folder(tiny, TRAINER) / "checkpoint_final.pth").is_file()


def test_without_approximation_codistillation_starts_from_the_first_autoencoder(tiny, capsys):
    assert run("--no_val", "--set", "approximate=false", "num_epochs=3") == 0
    assert not folder_of(tiny, "approximate").exists()
    assert "stage codistil: " in capsys.readouterr().out
    with pytest.raises(NnmissError, match="all stages share it"):
        run("--no_val", "--tag", "x", "--set", "codistil.approximate=false")


def test_a_model_with_clip_prompts_predicts_from_its_folder_alone(tiny, session_folders, monkeypatch):
    def encoded(texts, encoder):
        return np.random.default_rng(0).normal(size=(len(texts), 24)).astype(np.float32), []

    monkeypatch.setattr(prompts, "encode_texts", encoded)
    assert run("--no_val", prompt="clip") == 0
    stored = list((session_folders / "nnUNet_preprocessed" / DATASET).glob("prompt_embeddings_*"))
    for file in stored:
        file.unlink()
    assert stored
    table = torch.from_numpy(encoded(range(15), None)[0])
    assert torch.equal(final(tiny, "segment")["network_weights"]["prompt_table"], table)
    assert torch.equal(final(tiny, "codistil")["network_weights"]["prompt_table"], table)
    images, out = image_folder(), tiny / "out"
    assert predict.run(["-i", str(images), "-o", str(out), "-d", "801", "-m", "all_stage", "-p", PLANS, "-device", "cpu",
                        "-f", "0", "--disable_progress_bar", "--disable_tta"]) == 0
    cases = {file.name[: -len("_0000.nii.gz")] for file in Path(images).glob("*.nii.gz")}
    assert any(np.asanyarray(nibabel.load(file).dataobj).ndim == 3 for file in out.glob("*.nii.gz"))
    assert len(list(out.glob("*.nii.gz"))) == len(cases)


def test_2d_trains(tiny):
    assert run("--no_val", "-c", "2d", "--set", "prompt=none") == 0
    assert (tiny / f"nnUNet_results/{DATASET}/{TRAINER}__{PLANS}__2d/fold_0/checkpoint_final.pth").is_file()
