"""A tiny raw data set with holes, planned and preprocessed, that tests train and predict on."""
from __future__ import annotations

from pathlib import Path

import pytest
from nnunetv2.paths import nnUNet_raw

from nnmiss.cli import phantom, plan_and_preprocess

DATASET = "Dataset801_Tiny"
PLANS = "nnMissTinyPlans"
SHORT = ["--set", "num_iterations_per_epoch=2", "num_val_iterations_per_epoch=3", "validation_mirroring=false"]


@pytest.fixture(scope="session")
def session_folders(tmp_path_factory) -> Path:
    """Folders raw, preprocessed, results with one phantom data set, planned by the tiny planner."""
    root = tmp_path_factory.mktemp("nnunet")
    with pytest.MonkeyPatch.context() as patch:
        set_folders(patch, root)
        assert phantom.run(["-d", "801", "--name", "Tiny", "--num_training", "8", "--num_test", "2", "--size", "24",
                            "--missing_rate", "0.4"]) == 0
        assert plan_and_preprocess.run(["-d", "801", "-c", "3d_fullres", "2d", "-np", "1", "-pl", "nnMissPlannerTiny"]) == 0
    return root


def set_folders(patch: pytest.MonkeyPatch, root: Path) -> None:
    """Points nnU-Net's environment variables below `root`; one process loads data."""
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (root / variable).mkdir(exist_ok=True)
        patch.setenv(variable, str(root / variable))
    patch.setenv("nnUNet_n_proc_DA", "0")


@pytest.fixture
def tiny(session_folders, monkeypatch, tmp_path) -> Path:
    """The session's raw and preprocessed folders, with a results folder of the test's own."""
    set_folders(monkeypatch, session_folders)
    (tmp_path / "nnUNet_results").mkdir()
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "nnUNet_results"))
    return tmp_path


def test_images() -> Path:
    """Folder of the tiny data set's test images."""
    return Path(nnUNet_raw) / DATASET / "imagesTs"


test_images.__test__ = False


def fold_folder(tiny: Path, trainer: str = "nnMissTrainerMetaKD", plans: str = PLANS, fold: int | str = 0) -> Path:
    """Where a run of the tiny data set lies."""
    return tiny / "nnUNet_results" / DATASET / f"{trainer}__{plans}__3d_fullres" / f"fold_{fold}"
