"""A full disk, or a limit on the size of files: one message with file and disk, old files whole, and a rerun completes."""
from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from killed_runs import in_child
from matplotlib.figure import Figure
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from tiny_dataset import DATASET, PLANS, SHORT, fold_folder, test_images

from nnmiss.atomic_files import write_json, write_text
from nnmiss.cli import predict, train
from nnmiss.errors import DiskFullError
from nnmiss.evaluation.figures import save
from nnmiss.inference.checkpoints import read_checkpoint, write_checkpoint
from nnmiss.preprocessing.preprocess_dataset import preprocess_configuration


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 256 KB; skipped where nothing may be mounted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if shutil.which("mount") is None or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)],
                                                       capture_output=True).returncode:
        pytest.skip("mounting a small disk takes root")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(disk: Path) -> Path:
    """Takes all that is left of a disk; returns the file that does."""
    ballast = disk / "ballast"
    with open(ballast, "wb", buffering=0) as file:
        try:
            while file.write(b"\0" * 4096):
                pass
        except OSError:
            return ballast


WRITERS = {
    "run.json": lambda path: write_json(path, ["x" * 50_000]),
    "table.md": lambda path: write_text(path, "x" * 50_000),
    "checkpoint_latest.pth": lambda path: write_checkpoint(path, {"network_weights": {"a": torch.rand(20_000)}}),
    "figure.png": lambda path: save(noisy_figure(), path),
}


def noisy_figure() -> Figure:
    figure = Figure()
    figure.add_subplot().plot(torch.rand(3000).tolist())
    return figure


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_stays_as_it_was_when_the_new_one_does_not_fit(small_disk, name):
    path = small_disk / name
    path.write_bytes(b"old")
    ballast = fill(small_disk)
    with pytest.raises(DiskFullError) as caught:
        WRITERS[name](path)
    assert f"{path} could not be written" in str(caught.value) and f"the disk at {small_disk} has" in str(caught.value)
    assert path.read_bytes() == b"old"
    assert {file.name for file in small_disk.iterdir()} == {name, "ballast"}
    ballast.unlink()
    WRITERS[name](path)
    assert path.stat().st_size > 10_000


def test_preprocessing_on_a_full_disk_names_cases_and_goes_on(tiny, session_folders, small_disk, monkeypatch):
    shutil.copytree(session_folders / "nnUNet_preprocessed" / DATASET, tiny / "nnUNet_preprocessed" / DATASET)
    monkeypatch.setenv("nnUNet_preprocessed", str(tiny / "nnUNet_preprocessed"))
    folder = tiny / "nnUNet_preprocessed" / DATASET / f"{PLANS}_3d_fullres"
    shutil.rmtree(folder)
    folder.symlink_to(small_disk)
    ballast = small_disk / "ballast.txt"
    ballast.write_bytes(b"\0" * 60_000)  # keep_finished would remove it, so it is open and counts all the same
    with open(ballast):
        errors = preprocess_configuration(DATASET, "3d_fullres", PLANS, 1)
    done = set(nnUNetDatasetBlosc2.get_identifiers(str(small_disk)))
    assert done and errors and not done & errors.keys() and len(done) + len(errors) == 8
    for case, reason in errors.items():
        assert f"{case}.b2nd could not be written" in reason and f"the disk at {small_disk}" in reason
    dataset = nnUNetDatasetBlosc2(str(small_disk))
    for case in done:
        assert dataset.load_case(case)[0][:].shape[0] == 4
    kept = {case: (small_disk / f"{case}.b2nd").stat().st_mtime_ns for case in done}
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    assert preprocess_configuration(DATASET, "3d_fullres", PLANS, 1) == {}
    assert len(nnUNetDatasetBlosc2.get_identifiers(str(small_disk))) == 8
    assert {case: (small_disk / f"{case}.b2nd").stat().st_mtime_ns for case in kept} == kept


def limited(kilobytes: int, command, arguments: list[str]) -> int:
    """Runs a command whose files may have this size at most; writing more fails as on a full disk. Its exit code."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (kilobytes << 10, kilobytes << 10))
    sys.argv = ["nnmiss", *arguments]
    try:
        command.main()
    except SystemExit as stop:
        return stop.code
    return 0


TRAINING = ["801", "modality_dropout", "0", "-p", PLANS, "-device", "cpu", "--disable_progress_bar", *SHORT,
            "num_iterations_per_epoch=1", "num_val_iterations_per_epoch=1"]
PREDICTION = ["-d", "801", "-m", "modality_dropout", "-p", PLANS, "-f", "0", "-device", "cpu", "--disable_progress_bar",
              "--disable_tta"]


def test_training_and_prediction_stop_with_a_message_and_go_on_later(tiny):
    """One training, of which the disk takes only the first checkpoint, then its predictions."""
    arguments = [*TRAINING, "num_epochs=2", "--no_val"]
    fold = fold_folder(tiny, "nnMissTrainerModalityDropout")
    small = in_child(lambda: limited(100, train, arguments), tiny)
    assert small.code == 1, small.printed
    assert "checkpoint_best.pth could not be written (File too large): the disk at /" in small.printed
    assert "Traceback" not in small.printed
    assert not [file for file in fold.rglob("*") if file.suffix == ".pth" or ".tmp" in file.name]
    assert in_child(lambda: train.run(arguments), tiny).code == 0
    before = (fold / "checkpoint_final.pth").read_bytes()

    out = tiny / "predictions"
    arguments = ["-i", str(test_images()), "-o", str(out), *PREDICTION, "--save_probabilities"]
    small = in_child(lambda: limited(20, predict, arguments), tiny)
    assert small.code == 1, small.printed
    assert small.printed.count(".nii.gz could not be written (File too large): the disk at /") >= 2
    assert not [file for file in out.rglob("*") if file.name.endswith((".nii.gz", ".npz")) or ".tmp" in file.name]
    assert in_child(lambda: predict.run([*arguments, "--continue_prediction"]), tiny).code == 0
    made = {file: file.stat().st_mtime_ns for file in out.glob("test_*")}
    assert len(made) == 8  # two cases: .nii.gz, .json, .npz, .pkl
    assert in_child(lambda: predict.run([*arguments, "--continue_prediction"]), tiny).code == 0
    assert {file: file.stat().st_mtime_ns for file in made} == made
    small = in_child(lambda: limited(20, predict, arguments), tiny)  # of what is there nothing is lost
    assert small.code == 1 and {file: file.stat().st_mtime_ns for file in made} == made
    assert (fold / "checkpoint_final.pth").read_bytes() == before
    assert read_checkpoint(fold / "checkpoint_final.pth")["current_epoch"] == 2


def test_tables_of_a_training_stay_whole(tiny, monkeypatch):
    """A table that pandas writes piece by piece."""
    from nnmiss.trainers.progress import Progress

    log = Progress()
    for row in range(5):
        log.add_row("weights", ["a", "b"], row, [0.5, 0.5])
    log.write_tables(tiny, draw=False)
    old = (tiny / "weights.csv").read_text()
    monkeypatch.setattr(pd.DataFrame, "to_csv", lambda frame, path, **_: Path(path).write_text("half") and fail())
    with pytest.raises(DiskFullError, match=r"weights\.csv could not be written"):
        log.write_tables(tiny, draw=False)
    assert (tiny / "weights.csv").read_text() == old and not list(tiny.glob(".*"))


def fail() -> None:
    raise OSError(28, os.strerror(28))
