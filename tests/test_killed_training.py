"""Training that SIGKILL ends anywhere goes on to the weights, to the last bit, of a run that nobody disturbed."""
from __future__ import annotations

import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest
from killed_runs import differences, in_child
from nnunetv2.paths import nnUNet_preprocessed
from tiny_dataset import DATASET, PLANS, fold_folder

from nnmiss.atomic_files import _writer
from nnmiss.cli import train
from nnmiss.inference.checkpoints import read_checkpoint
from nnmiss.trainers import method_class

# method, with a preset where its default has fewer stages -> epochs over all its stages
METHODS = {"metakd paper": 4, "metakd": 3, "lckd": 4, "all_stage": 5, "simmlm": 6, "modality_dropout": 3}
SETTINGS = {"modality_dropout": ["ema_decay=0.9", "subset_sampling=weakest"]}  # what a run may keep beside the weights
SHORT = ["--set", "num_iterations_per_epoch=2", "num_val_iterations_per_epoch=1", "validation_mirroring=false"]
TIMES = ("epoch_start_timestamps", "epoch_end_timestamps")


def command(method: str, *arguments: str):
    """The training of a method as a function without arguments."""
    name, _, preset = method.partition(" ")
    return lambda: train.run(["801", name, "0", "-p", PLANS, "-device", "cpu", "--disable_progress_bar", "--no_val",
                              *(["--preset", preset] if preset else []), *SHORT, f"num_epochs={METHODS[method]}",
                              *SETTINGS.get(method, []), *arguments])


def result(tiny, method: str) -> dict:
    """Everything that a finished run keeps, but times: checkpoints by name, and the method's tables."""
    fold = fold_folder(tiny, method_class(method.split()[0]).__name__)
    kept = {}
    for file in sorted(fold.rglob("checkpoint_*.pth")):
        checkpoint = read_checkpoint(file)
        for name in TIMES:
            del checkpoint["logging"][name]
        kept[str(file.relative_to(fold))] = checkpoint
    return {**kept, **{file.name: file.read_text() for file in sorted(fold.glob("*.csv"))}}


def kill_and_compare(tiny, method: str, points: int, seed: int, iterations: int = 2) -> None:
    """One run to compare with, then one that is killed at `points` random moments, one after the other, and resumed."""
    run = command(method, f"num_iterations_per_epoch={iterations}")
    whole = in_child(run, tiny)
    assert whole.code == 0, whole.printed
    expected = result(tiny, method)
    assert "checkpoint_final.pth" in expected and "checkpoint_latest.pth" not in expected
    for moment in random.Random(f"{method} {seed}").sample(range(1, whole.events + 1), points):
        shutil.rmtree(tiny / "nnUNet_results" / DATASET)
        killed = in_child(run, tiny, kill_at=moment)
        assert killed.code == -9, (moment, killed.printed)
        resumed = in_child(run, tiny)
        assert resumed.code == 0, (moment, resumed.printed)
        assert not differences(result(tiny, method), expected), (moment, killed.printed)
        assert not [file for file in (tiny / "nnUNet_results").rglob(".*") if file.is_file()], moment


@pytest.mark.parametrize("method", METHODS)
def test_a_killed_training_resumes_to_the_same_bits(tiny, method, monkeypatch):
    """Without figures, which take most of the time of so short a run; the slow test has them."""
    monkeypatch.setattr("nnmiss.trainers.progress.ProgressLogger.plot_progress_png", lambda self, folder: None)
    monkeypatch.setattr("nnmiss.trainers.progress._draw_table", lambda frame, name, path: None)
    kill_and_compare(tiny, method, points=1, seed=1, iterations=1)


def test_what_a_killed_training_left_in_shared_folders_goes(tiny, monkeypatch):
    """Found by the fifty kills: one came while a file of the model's folder, which folds share, was written."""
    model = fold_folder(tiny, method_class("modality_dropout").__name__).parent
    model.mkdir(parents=True)
    ended = subprocess.Popen(["true"])
    ended.wait()
    host = _writer().partition("-")[2]
    left = [folder / f".plans.{ended.pid}-{host}.tmp.json" for folder in (model, Path(str(nnUNet_preprocessed)) / DATASET)]
    written_now = model / f".other.{os.getpid()}-{host}.tmp.json"
    for file in (*left, written_now):
        file.touch()
    assert command("modality_dropout", "num_epochs=1", "num_iterations_per_epoch=1")() == 0
    assert not any(file.exists() for file in left)
    assert written_now.exists()


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_fifty_killed_trainings_resume_to_the_same_bits(tiny, method):
    kill_and_compare(tiny, method, points=10, seed=2)
