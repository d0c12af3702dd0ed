"""Many cases: parts of a prediction share them out once; planning, preprocessing and prediction keep their memory."""
from __future__ import annotations

import json
import os
import threading
import time
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from tiny_dataset import set_folders

from nnmiss.cli import plan_and_preprocess, predict, train
from nnmiss.cli.predict import input_cases

NAME, PLANS, SIZE = "Dataset802_Many", "nnMissTinyPlans", 16


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


class Memory:
    """Samples what this process keeps in memory while it is open."""

    def __enter__(self):
        self.samples, self.open = [], True
        self.thread = threading.Thread(target=self.sample)
        self.thread.start()
        return self

    def sample(self):
        while self.open:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            self.samples.append(pages * os.sysconf("SC_PAGESIZE") / 2**20)
            time.sleep(0.05)

    def __exit__(self, *_):
        self.open = False
        self.thread.join()

    def growth(self) -> float:
        """MB from the second to the last fifth of the time: the first fifth imports and allocates."""
        fifth = len(self.samples) // 5
        return float(np.median(self.samples[-fifth:]) - np.median(self.samples[fifth : 2 * fifth]))


@pytest.mark.parametrize("count, parts", [(41, 6), (3, 5), (40, 1)])
def test_parts_share_every_case_once(tmp_path, count, parts):
    for number in range(count):
        (tmp_path / f"case{number:04d}_0000.nii.gz").touch()
    shares = [[case.name for case in input_cases(Namespace(i=str(tmp_path), cases=None, num_parts=parts, part_id=part),
                                                 ".nii.gz")[0]] for part in range(parts)]
    together = [name for share in shares for name in share]
    assert sorted(together) == [f"case{number:04d}" for number in range(count)]
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def many(tmp_path: Path, monkeypatch, count: int) -> tuple[Memory, Memory]:
    """Plans, preprocesses, trains two iterations and predicts `count` cases in three parts. Returns the memory of both."""
    set_folders(monkeypatch, tmp_path)
    make_dataset(tmp_path, count)
    with Memory() as preparing:
        assert plan_and_preprocess.run(["-d", "802", "-c", "3d_fullres", "-np", "1", "-pl", "nnMissPlannerTiny",
                                        "--verify_dataset_integrity"]) == 0
    assert train.run(["802", "modality_dropout", "0", "-p", PLANS, "-device", "cpu", "--no_val", "--disable_progress_bar",
                      "--set", "num_epochs=1", "num_iterations_per_epoch=2", "num_val_iterations_per_epoch=1"]) == 0
    images, out = tmp_path / "nnUNet_raw" / NAME / "imagesTr", tmp_path / "out"

    def part(number: int, *more: str) -> int:
        return predict.run(["-i", str(images), "-o", str(out), "-d", "802", "-m", "modality_dropout", "-p", PLANS,
                            "-device", "cpu", "--disable_tta", "--disable_progress_bar", "-num_parts", "3", "-part_id",
                            str(number), *more])

    with Memory() as predicting:
        assert [part(0), part(2)] == [0, 0]
    names = [f"case{number:04d}" for number in range(count)]
    done = {file.name.removesuffix(".nii.gz"): file for file in out.glob("*.nii.gz")}
    assert sorted(done) == sorted(names[0::3] + names[2::3])
    times = {name: file.stat().st_mtime_ns for name, file in done.items()}
    done[names[2]].unlink()  # as if part 2 had been stopped
    assert part(1) == 0
    assert part(2, "--continue_prediction") == 0
    assert sorted(file.name.removesuffix(".nii.gz") for file in out.glob("*.nii.gz")) == names
    assert all(done[name].stat().st_mtime_ns == made for name, made in times.items() if name != names[2])
    return preparing, predicting


@pytest.mark.slow
def test_a_thousand_cases_keep_their_memory(tmp_path, monkeypatch):
    preparing, predicting = many(tmp_path, monkeypatch, 1000)
    assert preparing.growth() < 40
    assert predicting.growth() < 40


@pytest.mark.slow
def test_forty_cases_go_through_every_step(tmp_path, monkeypatch):
    many(tmp_path, monkeypatch, 40)
