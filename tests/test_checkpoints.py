"""Checkpoints are whole or not there, and never run code."""
from __future__ import annotations

import os
import pickle

import numpy as np
import pytest
import torch

from nnmiss.atomic_files import replacing
from nnmiss.errors import NnmissError
from nnmiss.inference.checkpoints import plain, read_checkpoint, write_checkpoint
from nnmiss.inference.predictor import MissingModalityPredictor


class Malicious:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_plain_values_survive_the_round_trip(tmp_path):
    content = {"network_weights": {"a": torch.ones(2)}, "dice": [np.float32(0.5), {"n": np.int64(3)}],
               "device": torch.device("cpu"), "axes": (0, 1)}
    write_checkpoint(tmp_path / "c.pth", plain(content))
    back = read_checkpoint(tmp_path / "c.pth")
    assert torch.equal(back["network_weights"]["a"], torch.ones(2))
    assert back["dice"] == [0.5, {"n": 3}]
    assert back["axes"] == (0, 1)


def test_numpy_numbers_of_stock_checkpoints_are_let_in(tmp_path):
    torch.save({"network_weights": {}, "logging": {"dice": [np.float32(0.5), np.float64(0.25)]}}, tmp_path / "c.pth")
    assert float(read_checkpoint(tmp_path / "c.pth")["logging"]["dice"][1]) == 0.25


def test_a_malicious_pickle_is_refused_and_runs_nothing(tmp_path):
    victim = tmp_path / "made_by_the_pickle"
    torch.save({"network_weights": {}, "x": Malicious(victim)}, tmp_path / "c.pth")
    with pytest.raises(NnmissError, match=r"c\.pth was refused"):
        read_checkpoint(tmp_path / "c.pth")
    assert not victim.exists()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", pickle.dumps({"network_weights": {}})[:-3]])
def test_damaged_files_are_refused(tmp_path, content):
    (tmp_path / "c.pth").write_bytes(content)
    with pytest.raises(NnmissError, match="was refused"):
        read_checkpoint(tmp_path / "c.pth")


def test_a_truncated_checkpoint_is_refused(tmp_path):
    write_checkpoint(tmp_path / "c.pth", {"network_weights": {"a": torch.ones(1000)}})
    whole = (tmp_path / "c.pth").read_bytes()
    (tmp_path / "c.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(NnmissError, match="was refused"):
        read_checkpoint(tmp_path / "c.pth")


def test_absent_and_foreign_files_are_named(tmp_path):
    with pytest.raises(NnmissError, match="not found"):
        read_checkpoint(tmp_path / "c.pth")
    torch.save({"weights": 1}, tmp_path / "d.pth")
    with pytest.raises(NnmissError, match="no 'network_weights'"):
        read_checkpoint(tmp_path / "d.pth")


def test_an_interrupted_write_keeps_the_old_file(tmp_path):
    write_checkpoint(tmp_path / "c.pth", {"network_weights": {}, "epoch": 1})
    with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "c.pth") as temporary:
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt
    assert read_checkpoint(tmp_path / "c.pth")["epoch"] == 1
    assert [f.name for f in tmp_path.iterdir()] == ["c.pth"]


def test_a_model_that_is_not_there_is_answered_with_those_that_are(tmp_path):
    predictor = MissingModalityPredictor(device=torch.device("cpu"))
    absent = tmp_path / "Dataset801_X" / "nnMissTrainerMetaKD__nnMissPlans__3d_fullres"
    with pytest.raises(NnmissError, match=f"no trained model in {absent}: nothing was trained for this data set"):
        predictor.initialize_from_folder(absent, None, "checkpoint_final.pth", None)
    for name in ("nnMissTrainerMetaKD__nnMissSmallPlans-a__3d_fullres", "nnMissTrainerLCKD__nnMissPlans__3d_fullres"):
        (absent.parent / name / "fold_0").mkdir(parents=True)
    (absent.parent / "crossval__results__folder").mkdir()
    with pytest.raises(NnmissError, match=r"check -m, -p, --tag and -c.*: nnMissTrainerLCKD__nnMissPlans__3d_fullres, "
                                          r"nnMissTrainerMetaKD__nnMissSmallPlans-a__3d_fullres$"):
        predictor.initialize_from_folder(absent, None, "checkpoint_final.pth", None)
