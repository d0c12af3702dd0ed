"""Data sets damaged at random through planning and prediction: the right result, or a message naming case and file."""
from __future__ import annotations

import io
import json
import re
import shutil
import signal
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path

import blosc2
import damaged_datasets as damaged
import nibabel
import numpy as np
import pytest
import torch
from damaged_base import CHANNELS, HOLES, TEST, TRAINING, make_dataset
from damaged_base import copy_dataset as copied
from tiny_dataset import set_folders

from nnmiss.cli import plan_and_preprocess, predict
from nnmiss.errors import command
from nnmiss.inference.checkpoints import write_checkpoint
from nnmiss.planners.prepare_dataset import PrepareOptions
from nnmiss.planners.tiny import nnMissPlannerTiny
from nnmiss.trainers import method_class

SECONDS = 600  # a run takes a quarter of one; machines may be busy
ENDINGS = (".nii.gz", ".nii")
ORDINARY = sorted({*range(40), *map(damaged.first_seed, damaged.FOUND)})
SLOW = range(1000, 2000)
NAME = "Dataset820_Twin"


class Hang(BaseException):
    """Not an Exception, so that nothing takes it for the fault of a case."""


@contextmanager
def time_limit():
    def stop(*_):
        raise Hang(f"still running after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def call(run, *arguments) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command; nothing unforeseen may happen in it."""
    out, err = io.StringIO(), io.StringIO()
    handler = signal.getsignal(signal.SIGTERM)
    with time_limit(), redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as end:
        command(lambda: run([str(a) for a in arguments]))()
    signal.signal(signal.SIGTERM, handler)
    out, err = out.getvalue(), err.getvalue()
    assert not re.search(r"Traceback|unforeseen|\b[A-Z]\w+(Error|Exception)\b", out + err), out + err
    return end.value.code, out, err


class Twin:
    """The undamaged data set, planned, with a model whose weights are random."""

    def __init__(self, root: Path, ending: str):
        self.root, self.ending = root, ending
        with pytest.MonkeyPatch.context() as patch:
            set_folders(patch, root)
            self.raw = make_dataset(root / "nnUNet_raw", ending)
            assert plan(self.raw)[0] == 0
            self.preprocessed = root / "nnUNet_preprocessed" / NAME
            self.arrays = arrays(self.preprocessed)
            assert sorted(self.arrays) == sorted(TRAINING)
            self._write_model()
        self.predictions: dict[tuple, dict] = {}

    def _write_model(self) -> None:
        plans = json.loads((self.preprocessed / "nnMissTinyPlans.json").read_text())
        dataset_json = json.loads((self.raw / "dataset.json").read_text())
        trainer = method_class("metakd")
        folder = self.root / "nnUNet_results" / NAME / f"{trainer.__name__}__nnMissTinyPlans__3d_fullres"
        (folder / "fold_0").mkdir(parents=True)
        (folder / "plans.json").write_text(json.dumps(plans))
        (folder / "dataset.json").write_text(json.dumps(dataset_json))
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

        manager = PlansManager(plans)
        torch.manual_seed(0)
        network = trainer.build_network_architecture(manager, manager.get_configuration("3d_fullres"), len(CHANNELS),
                                                     len(damaged_labels(dataset_json)), enable_deep_supervision=False)
        write_checkpoint(folder / "fold_0" / "checkpoint_final.pth", {
            "network_weights": network.state_dict(), "trainer_name": trainer.__name__,
            "init_args": {"configuration": "3d_fullres"}, "inference_allowed_mirroring_axes": None})

    def predict(self, images: Path, out: Path) -> tuple[int, str, str]:
        """nnmiss_predict of a folder with the model."""
        with pytest.MonkeyPatch.context() as patch:
            set_folders(patch, self.root)
            return call(predict.run, "-i", images, "-o", out, "-d", 820, "-m", "metakd", "-p", "nnMissTinyPlans", "-device",
                        "cpu", "--disable_tta", "--disable_progress_bar", "-step_size", 1)

    def prediction(self, tmp_path: Path, case: str, without: int | None = None) -> np.ndarray:
        """What a case is predicted as, undamaged or without one of its files."""
        if (case, without) not in self.predictions:
            folder = tmp_path / f"expected_{case}_{without}"
            copied(self.raw / "imagesTs", folder)
            if without is not None:
                (folder / f"{case}_{without:04d}{self.ending}").unlink()
            assert self.predict(folder, folder / "out")[0] == 0
            for name, found in segmentations(folder / "out", self.ending).items():
                self.predictions[name, without if name == case else None] = found
        return self.predictions[case, without]


def damaged_labels(dataset_json: dict) -> list[str]:
    return list(dataset_json["labels"])


def plan(raw: Path) -> tuple[int, str, str]:
    """nnmiss_plan_and_preprocess of a data set below the current nnUNet_raw.

    Without the block "nnmiss", which follows from the stock plan alone and takes four fifths of the time.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nnMissPlannerTiny, "add_cost", lambda self, plans: None)
        patch.setattr(plan_and_preprocess, "PrepareOptions", partial(PrepareOptions, num_foreground_voxels=5_000))
        return call(plan_and_preprocess.run, "-d", raw.name, "-c", "3d_fullres", "-pl", "nnMissPlannerTiny", "-np", 1,
                    "--no_pbar")


def arrays(preprocessed: Path) -> dict[str, tuple]:
    """Case -> data, segmentation, of every preprocessed case; also that nothing half-written lies there."""
    assert not [p for p in preprocessed.rglob("*") if ".tmp" in p.name or p.name == ".partial"]
    folder = preprocessed / "nnMissTinyPlans_3d_fullres"
    cases = [p.name[: -len(".b2nd")] for p in folder.glob("*.b2nd") if not p.name.endswith("_seg.b2nd")]
    assert {p.name for p in folder.glob("*")} == {c + e for c in cases for e in (".b2nd", "_seg.b2nd", ".pkl")}
    return {c: tuple(blosc2.open(str(folder / f"{c}{e}"), mode="r")[...] for e in (".b2nd", "_seg.b2nd")) for c in cases}


def segmentations(out: Path, ending: str) -> dict[str, np.ndarray]:
    """Case -> labels, of every prediction; also that each is whole and described, and nothing half-written lies there."""
    assert not [p for p in out.rglob("*") if ".tmp" in p.name]
    found = {p.name[: -len(ending)]: np.asanyarray(nibabel.load(p).dataobj) for p in out.glob(f"*{ending}")}
    described = {p.stem for p in out.glob("*.json")} - {"dataset", "plans", "predict_from_raw_data_args"}
    assert described == set(found)
    return found


def equal(first: tuple, second: tuple) -> bool:
    return all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in zip(first, second))


def is_named(done: damaged.Damaged, text: str) -> bool:
    """Whether a message names the case, and the file where there is one."""
    if done.place is None:
        return "dataset.json" in text
    kind = damaged.TABLE[done.name]
    names = {"file": [done.place.case, done.place.file.name], "label": [done.place.case, done.place.label.name],
             "case": [done.place.case], "nothing": []}[kind.named]
    return any(all(name in line for name in names) for line in text.splitlines())


def touched(done: list[damaged.Damaged], cases: tuple[str, ...]) -> set[str]:
    """Cases whose own result may differ from the twin's."""
    both = [d for d in done if d.place is not None and d.end not in (damaged.SAME, damaged.EITHER)]
    names = {d.place.case for d in both}
    names |= {damaged.TWINS[d.place.case] for d in both if "swapped_with_twin" in d.name or "label_swapped" in d.name}
    names |= {"b0", "t2"} if any("grid" in d.name for d in both) else set()
    return names & set(cases)


def check_plan(twin: Twin, raw: Path, preprocessed: Path, done: list[damaged.Damaged]) -> None:
    code, out, err = plan(raw)
    said = f"{done}\n{out}\n{err}"
    refused = [d for d in done if d.end == damaged.MESSAGE]
    maybe = [d for d in done if d.end == damaged.EITHER]
    assert code in (0, 1), said
    assert code == 1 or not refused, said
    assert code == 0 or refused or maybe, said
    if code == 1:
        assert any(is_named(d, err) for d in refused + maybe), said
        if len(done) == 1:
            assert is_named(done[0], err), said
    made = arrays(preprocessed) if preprocessed.is_dir() else {}
    for case in set(made) - touched(done, TRAINING):
        assert equal(made[case], twin.arrays[case]), f"{case} differs: {said}"
    if code == 0:
        assert set(made) == set(TRAINING), said
        table = json.loads((preprocessed / "availability.json").read_text())["cases"]
        holes = HOLES | {(d.place.case, d.place.channel) for d in done if d.end == damaged.ABSENT}
        assert table == {c: [(c, i) not in holes for i in range(3)] for c in TRAINING}, said
    for d in done:
        if d.end == damaged.WARNING and code == 0:
            assert any("WARNING" in line for line in out.splitlines()) and is_named(d, out), said


def check_predict(twin: Twin, images: Path, tmp_path: Path, done: list[damaged.Damaged]) -> None:
    code, out, err = twin.predict(images, tmp_path / "out")
    said = f"{done}\n{out}\n{err}"
    by_case = {d.place.case: d for d in done}
    if any("grid" in d.name for d in done):
        by_case = {**by_case, "t2": next(d for d in done if "grid" in d.name)}
    found = segmentations(tmp_path / "out", twin.ending) if (tmp_path / "out").is_dir() else {}
    for case in TEST:
        d = by_case.get(case)
        end = damaged.SAME if d is None else d.end
        without = None
        if end == damaged.MESSAGE or (end == damaged.EITHER and case not in found):
            assert case not in found and code == 1, f"{case}: {said}"
            assert is_named(d, err), f"{case}: {said}"
            continue
        if end == damaged.ABSENT:
            without = d.place.channel
        if end == damaged.WARNING:
            assert "warning" in out.lower() and is_named(d, out), said
        if case in touched(done, TEST) and end != damaged.ABSENT:
            continue
        assert case in found, f"{case}: {said}"
        assert np.array_equal(found[case], twin.prediction(tmp_path, case, without)), f"{case} differs: {said}"
    maybe = [d for d in done if d.end == damaged.EITHER and d.place.case not in found]
    assert code == int(any(d.end == damaged.MESSAGE for d in done) or bool(maybe)), said


@pytest.fixture(scope="session")
def twins(tmp_path_factory) -> dict[str, Twin]:
    return {ending: Twin(tmp_path_factory.mktemp("twin"), ending) for ending in ENDINGS}


def run_seed(twins: dict[str, Twin], tmp_path: Path, seed: int) -> None:
    """Damages a data set and sends it through both commands."""
    twin = twins[ENDINGS[seed // 7 % 2]]
    with pytest.MonkeyPatch.context() as patch:
        set_folders(patch, tmp_path)
        raw = tmp_path / "nnUNet_raw" / "Dataset821_Damaged"
        done = damaged.damage(twin.raw, raw, twin.ending, seed)
        training = [d for d in done if d.place is None or d.place.case in TRAINING]
        if training:
            check_plan(twin, raw, tmp_path / "nnUNet_preprocessed" / raw.name, training)
    test = [d for d in done if d.place is not None and d.place.case in TEST]
    if test:
        check_predict(twin, raw / "imagesTs", tmp_path, test)
    shutil.rmtree(tmp_path)  # a thousand of them, in which nothing is to be looked at


@pytest.mark.parametrize("seed", ORDINARY)
def test_damaged(twins, tmp_path, seed):
    run_seed(twins, tmp_path, seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SLOW)
def test_a_thousand(twins, tmp_path, seed):
    run_seed(twins, tmp_path, seed)
