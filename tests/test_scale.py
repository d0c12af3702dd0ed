"""Many cases: parts of a prediction share them out once; the most memory of every command does not grow with them."""
from __future__ import annotations

import json
import re
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from tiny_dataset import set_folders

from nnmiss.cli.predict import input_cases

NAME, PLANS, SIZE = "Dataset802_Many", "nnMissTinyPlans", 16
MOST = (1000, 800)  # MB; imports take 430, the fingerprint's draws of one channel 400
WATCHED = """import sys
from importlib import import_module
code = import_module(f"nnmiss.cli.{sys.argv[1]}").run(sys.argv[2:])
print(open("/proc/self/status").read())
sys.exit(code)
"""


def write_cases(folder: Path, count: int, labels: Path | None = None) -> None:
    """Noise of 16^3 voxels with a bright cube; a case has flair and some of the other three modalities."""
    generator = np.random.default_rng(0)
    for path in (folder, labels):
        if path is not None:
            path.mkdir(parents=True)
    for number in range(count):
        label = np.zeros((SIZE,) * 3, np.uint8)
        corner = generator.integers(2, 8, 3)
        label[tuple(slice(c, c + 6) for c in corner)] = 1 + number % 2
        for channel in range(4):
            if channel == 0 or generator.random() < 0.6:
                image = generator.normal(100, 20, label.shape) + 60 * (label > 0)
                file = folder / f"case{number:04d}_{channel:04d}.nii.gz"
                sitk.WriteImage(sitk.GetImageFromArray(image.astype(np.int16)), file)
        if labels is not None:
            sitk.WriteImage(sitk.GetImageFromArray(label), labels / f"case{number:04d}.nii.gz")


def make_dataset(root: Path, count: int) -> Path:
    """The raw data set with `count` training cases."""
    raw = root / "nnUNet_raw" / NAME
    write_cases(raw / "imagesTr", count, raw / "labelsTr")
    (raw / "dataset.json").write_text(json.dumps({
        "channel_names": {str(i): name for i, name in enumerate(("flair", "t1", "t1ce", "t2"))}, "file_ending": ".nii.gz",
        "labels": {"background": 0, "whole": [1, 2], "core": 2}, "regions_class_order": [1, 2], "numTraining": count}))
    return raw


def run(command: str, *arguments: str) -> float:
    """Runs a command in a process of its own. Returns the most memory (MB) that it ever held, which Linux notes."""
    process = subprocess.run([sys.executable, "-c", WATCHED, command, *arguments], capture_output=True, text=True)
    assert process.returncode == 0, process.stdout + process.stderr
    return int(re.findall(r"VmHWM:\s+(\d+)", process.stdout)[-1]) / 1024


@pytest.mark.parametrize("count, parts", [(41, 6), (3, 5), (40, 1)])
def test_parts_share_every_case_once(tmp_path, count, parts):
    for number in range(count):
        (tmp_path / f"case{number:04d}_0000.nii.gz").touch()
    shares = [[case.name for case in input_cases(Namespace(i=str(tmp_path), cases=None, num_parts=parts, part_id=part),
                                                 ".nii.gz")[0]] for part in range(parts)]
    together = [name for share in shares for name in share]
    assert sorted(together) == [f"case{number:04d}" for number in range(count)]
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def many(root: Path, monkeypatch, count: int) -> tuple[float, float]:
    """Plans, preprocesses, trains two iterations and predicts `count` cases in three parts.

    Returns:
        The most memory (MB) of planning with preprocessing, and of a part's prediction.
    """
    root.mkdir(exist_ok=True)
    set_folders(monkeypatch, root)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    make_dataset(root, count)
    preparing = run("plan_and_preprocess", "-d", "802", "-c", "3d_fullres", "-np", "1", "-pl", "nnMissPlannerTiny",
                    "-gpu_memory_target", "0.25", "--verify_dataset_integrity")  # a batch of hundreds plans for minutes
    assert len(list((root / "nnUNet_preprocessed" / NAME / f"{PLANS}_3d_fullres").glob("*.pkl"))) == count
    run("train", "802", "modality_dropout", "0", "-p", PLANS, "-device", "cpu", "--no_val", "--disable_progress_bar",
        "--set", "num_epochs=1", "num_iterations_per_epoch=2", "num_val_iterations_per_epoch=1")
    images, out = root / "nnUNet_raw" / NAME / "imagesTr", root / "out"

    def part(number: int, *more: str) -> float:
        return run("predict", "-i", str(images), "-o", str(out), "-d", "802", "-m", "modality_dropout", "-p", PLANS,
                   "-device", "cpu", "--disable_tta", "--disable_progress_bar", "-num_parts", "3", "-part_id",
                   str(number), *more)

    predicting = max(part(0), part(2))
    names = [f"case{number:04d}" for number in range(count)]
    done = {file.name.removesuffix(".nii.gz"): file for file in out.glob("*.nii.gz")}
    assert sorted(done) == sorted(names[0::3] + names[2::3])
    times = {name: file.stat().st_mtime_ns for name, file in done.items()}
    done[names[2]].unlink()  # as if part 2 had been stopped
    part(1)
    part(2, "--continue_prediction")
    assert sorted(file.name.removesuffix(".nii.gz") for file in out.glob("*.nii.gz")) == names
    assert all(done[name].stat().st_mtime_ns == made for name, made in times.items() if name != names[2])
    print(f"{count} cases: planning and preprocessing hold {preparing:.0f} MB at most, prediction {predicting:.0f} MB")
    return preparing, predicting


@pytest.mark.slow
def test_a_thousand_cases_keep_their_memory(tmp_path, monkeypatch):
    few, all_of_them = (many(tmp_path / str(count), monkeypatch, count) for count in (250, 1000))
    for name, bound, first, last in zip(("planning", "prediction"), MOST, few, all_of_them):
        assert last < bound, name
        assert last - first < 40, name


@pytest.mark.slow
def test_forty_cases_go_through_every_step(tmp_path, monkeypatch):
    many(tmp_path, monkeypatch, 40)
