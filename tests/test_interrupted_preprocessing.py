"""Preprocessing that was interrupted keeps what it finished, while that is whole and made of the same files and plan."""
from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from killed_runs import in_child
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from tiny_dataset import DATASET, PLANS

from nnmiss.cli import plan_and_preprocess
from nnmiss.preprocessing.preprocess_dataset import preprocess_configuration


@pytest.fixture
def own(tiny, session_folders, monkeypatch) -> Path:
    """The data set's preprocessed folder, and its raw one beside, as copies that a test may change."""
    for part in ("nnUNet_raw", "nnUNet_preprocessed"):
        shutil.copytree(session_folders / part / DATASET, tiny / part / DATASET)
        monkeypatch.setenv(part, str(tiny / part))
    return tiny / "nnUNet_preprocessed" / DATASET


def preprocess(anew: bool = False) -> dict[str, str]:
    return preprocess_configuration(DATASET, "2d", PLANS, 1, anew=anew)


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """Both, as a new file may have the number of one that was removed."""
    return {file.name: (file.stat().st_ino, file.stat().st_mtime_ns) for file in folder.iterdir()}


def redone(before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]) -> set[str]:
    assert before.keys() == after.keys()
    return {name.split(".")[0].removesuffix("_seg") for name in before if before[name] != after[name]}


def arrays(folder: Path) -> dict[str, np.ndarray]:
    dataset = nnUNetDatasetBlosc2(str(folder))
    return {case: np.concatenate([np.asarray(part[:], float) for part in dataset.load_case(case)[:2]])
            for case in dataset.identifiers}


def test_a_second_call_redoes_nothing_and_damaged_or_changed_cases_only(own, capsys):
    folder = own / f"{PLANS}_2d"
    whole, before = arrays(folder), stamps(folder)
    assert preprocess() == {}
    assert "2d: kept 8 of 8 cases" in capsys.readouterr().out
    assert stamps(folder) == before
    (folder / "case_000.b2nd").write_bytes((folder / "case_000.b2nd").read_bytes()[:-100])
    (folder / "case_001.pkl").unlink()
    (folder / "case_002_seg.b2nd").write_bytes(b"")
    shutil.copy(folder / "case_003.b2nd", folder / "case_999.b2nd")  # of a case that is no more
    (folder / ".partial").mkdir()
    (folder / ".partial" / "case_004.b2nd").write_bytes(b"half")
    raw = own.parent.parent / "nnUNet_raw" / DATASET
    os.utime(next((raw / "imagesTr").glob("case_005_*")))
    assert preprocess() == {}
    assert redone(before, stamps(folder)) == {"case_000", "case_001", "case_002", "case_005"}
    for case, array in arrays(folder).items():
        np.testing.assert_array_equal(array, whole[case])
    before = stamps(folder)
    assert preprocess(anew=True) == {}
    assert len(redone(before, stamps(folder))) == 8


def test_another_plan_or_other_labels_redo_every_case(own):
    folder = own / f"{PLANS}_2d"
    before = stamps(folder)
    plans = json.loads((own / f"{PLANS}.json").read_text())
    plans["configurations"]["2d"]["normalization_schemes"] = ["NoNormalization"] * 4
    (own / f"{PLANS}.json").write_text(json.dumps(plans))
    assert preprocess() == {}
    assert len(redone(before, stamps(folder))) == 8
    before = stamps(folder)
    description = own.parent.parent / "nnUNet_raw" / DATASET / "dataset.json"
    content = json.loads(description.read_text())
    content["channel_names"]["0"] = "FLAIR"
    description.write_text(json.dumps(content))
    assert preprocess() == {}
    assert len(redone(before, stamps(folder))) == 8


def test_killed_anywhere_it_goes_on_with_what_is_finished(own, tiny):
    folder = own / f"{PLANS}_2d"
    whole = arrays(folder)
    for _ in range(2):  # the first run also makes what the others find, so only the second has their number of events
        shutil.rmtree(folder)
        events = in_child(preprocess_all, tiny).events
    for moment in random.Random("preprocessing").sample(range(1, events + 1), 2):
        shutil.rmtree(folder)
        assert in_child(preprocess_all, tiny, kill_at=moment).code == -9
        finished = {case: folder / f"{case}.b2nd" for case in
                    (nnUNetDatasetBlosc2.get_identifiers(str(folder)) if folder.is_dir() else ())}
        kept = {case: file.stat().st_mtime_ns for case, file in finished.items()}
        resumed = in_child(preprocess_all, tiny)
        assert resumed.code == 0, resumed.printed
        assert {case: finished[case].stat().st_mtime_ns for case in kept} == kept, moment
        assert not [file for file in own.rglob(".*") if "tmp" in file.name or file.name == ".partial"], moment
    now = arrays(folder)
    assert now.keys() == whole.keys()
    for case, array in now.items():
        np.testing.assert_array_equal(array, whole[case])


def preprocess_all() -> int:
    return plan_and_preprocess.run(["-d", "801", "-c", "2d", "-np", "1", "-pl", "nnMissPlannerTiny", "--no_pbar"])
