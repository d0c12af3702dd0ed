"""Several commands at once on one data set, model or folder: refused with a message, or harmless; nothing is corrupted."""
from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from killed_runs import differences, in_child
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from test_folder_lock import end, holder
from tiny_dataset import DATASET, PLANS, SHORT, fold_folder, set_folders, test_images

from nnmiss.cli import plan_and_preprocess, predict, train
from nnmiss.errors import NnmissError
from nnmiss.inference.checkpoints import read_checkpoint, write_checkpoint

TRAINER = "nnMissTrainerModalityDropout"
QUICK = [*SHORT, "num_iterations_per_epoch=1", "num_val_iterations_per_epoch=1", "num_epochs=2"]


def training(fold: str, *arguments: str) -> int:
    return train.run(["801", "modality_dropout", fold, "-p", PLANS, "-device", "cpu", "--disable_progress_bar", *QUICK,
                      *arguments])


def prediction(out: Path, *arguments: str) -> int:
    return predict.run(["-i", str(test_images()), "-o", str(out), "-d", "801", "-m", "modality_dropout", "-p", PLANS,
                        "-f", "0", "-device", "cpu", "--disable_progress_bar", "--disable_tta", *arguments])


@pytest.fixture(scope="module")
def trained(session_folders, tmp_path_factory) -> Path:
    """A folder whose nnUNet_results hold one trained fold, validated."""
    root = tmp_path_factory.mktemp("trained")
    (root / "nnUNet_results").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        set_folders(patch, session_folders)
        patch.setenv("nnUNet_results", str(root / "nnUNet_results"))
        ended = in_child(lambda: training("0"), root)
        assert ended.code == 0, ended.printed
    return root


@pytest.fixture
def model(tiny, trained, monkeypatch) -> Path:
    """That trained fold, as the test's own copy."""
    shutil.copytree(trained / "nnUNet_results", tiny / "nnUNet_results", dirs_exist_ok=True)
    return tiny


def at_once(root: Path, *functions) -> list[tuple[int, str]]:
    """(exit code, output) of functions that run in processes of their own at the same time."""
    children = []
    for number, function in enumerate(functions):
        child = os.fork()
        if child == 0:
            log = root / f"at_once_{number}"
            log.mkdir()
            ended = in_child(function, log)
            (root / f"printed_{number}.txt").write_text(ended.printed)
            os._exit(ended.code & 255)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    return [(code, (root / f"printed_{number}.txt").read_text()) for number, code in enumerate(codes)]


def weights(folder: Path) -> dict:
    return read_checkpoint(folder / "checkpoint_final.pth")["network_weights"]


def test_two_folds_train_at_once_as_one_after_the_other(model):
    alone = weights(fold_folder(model, TRAINER))
    shutil.rmtree(model / "nnUNet_results" / DATASET)
    for code, printed in at_once(model, lambda: training("0", "--no_val"), lambda: training("1", "--no_val")):
        assert code == 0, printed
    assert not differences(weights(fold_folder(model, TRAINER)), alone)
    folder = fold_folder(model, TRAINER).parent
    assert (folder / "fold_1" / "checkpoint_final.pth").is_file()
    for name in ("plans.json", "dataset.json", "dataset_fingerprint.json"):
        json.loads((folder / name).read_text())
    assert not [file for file in folder.rglob(".*") if ".tmp" in file.name or file.name == ".in_use"]


def test_a_fold_that_is_trained_now_is_not_trained_again(model):
    fold = fold_folder(model, TRAINER)
    child = holder(fold)
    with pytest.raises(NnmissError, match=rf"fold_0: process {child} on .+ trains fold 0, since .+: wait for it"):
        training("0")
    end(child)
    assert training("0") == 0


def test_a_data_set_is_preprocessed_by_one_process_at_a_time(tiny, session_folders, monkeypatch):
    shutil.copytree(session_folders / "nnUNet_preprocessed" / DATASET, tiny / "nnUNet_preprocessed" / DATASET)
    monkeypatch.setenv("nnUNet_preprocessed", str(tiny / "nnUNet_preprocessed"))
    folder = tiny / "nnUNet_preprocessed" / DATASET
    shutil.rmtree(folder / f"{PLANS}_2d")

    def command() -> int:
        return plan_and_preprocess.run(["-d", "801", "-c", "2d", "-np", "1", "-pl", "nnMissPlannerTiny", "--no_pbar"])

    ended = at_once(tiny, command, command)
    assert 0 in [code for code, _ in ended]
    refused = [printed for code, printed in ended if code]
    assert all("plans or preprocesses Dataset801_Tiny, since" in printed for printed in refused)
    dataset = nnUNetDatasetBlosc2(str(folder / f"{PLANS}_2d"))
    assert len(dataset.identifiers) == 8
    assert all(np.isfinite(dataset.load_case(case)[0][:]).all() for case in dataset.identifiers)
    child = holder(folder)
    assert command() == 1
    end(child)
    assert command() == 0


def test_two_predictions_of_one_model_into_one_folder_are_harmless(model):
    assert prediction(model / "alone") == 0
    for code, printed in at_once(model, lambda: prediction(model / "both"), lambda: prediction(model / "both")):
        assert code == 0, printed
    names = sorted(file.name for file in (model / "alone").iterdir())
    assert sorted(file.name for file in (model / "both").iterdir()) == names
    for name in names:
        if name.startswith("test"):
            assert (model / "both" / name).read_bytes() == (model / "alone" / name).read_bytes()
    child = holder(model / "both", shared="another model")
    with pytest.raises(NnmissError, match="wait for it"):
        prediction(model / "both")
    end(child)


def test_a_killed_validation_goes_on_and_repeats_no_prediction(model):
    fold = fold_folder(model, TRAINER)
    expected = {file.relative_to(fold): file.read_bytes() for file in (fold / "validation").rglob("case_*.nii.gz")}
    assert len(expected) >= 15
    shutil.rmtree(fold / "validation")
    events = in_child(lambda: training("0"), model).events
    shutil.rmtree(fold / "validation")
    assert in_child(lambda: training("0"), model, kill_at=events // 2).code == -9
    assert not (fold / "validation" / "summary.json").exists()
    before = {file: file.stat().st_mtime_ns for file in (fold / "validation").rglob("case_*.nii.gz")
              if not file.parent.name.startswith(".")}
    assert before
    litter = fold / "validation" / "flair" / ".case_000.99999999-00000000.tmp.json"  # that another machine left
    litter.parent.mkdir(exist_ok=True)
    litter.write_text('{"half')
    assert training("0") == 0
    assert {file: file.stat().st_mtime_ns for file in before} == before
    assert {file.relative_to(fold): file.read_bytes() for file in (fold / "validation").rglob("case_*.nii.gz")} == expected
    assert (fold / "validation" / "summary.json").exists()
    assert not list(fold.rglob(".*.tmp*"))
    changed = read_checkpoint(fold / "checkpoint_final.pth")
    changed["network_weights"] = {name: value + 0.01 for name, value in changed["network_weights"].items()}
    write_checkpoint(fold / "checkpoint_final.pth", changed)
    assert training("0", "--val") == 0  # of other weights everything is predicted again
    assert not {file for file in before if file.stat().st_mtime_ns == before[file]}


def test_a_killed_prediction_leaves_whole_files_and_is_completed(model):
    out = model / "predictions"
    whole = in_child(lambda: prediction(out, "--save_probabilities"), model)
    assert whole.code == 0, whole.printed
    expected = {file.name: file.read_bytes() for file in out.glob("test_*")}
    for part in (0.5, 0.8, 0.97):
        shutil.rmtree(out)
        assert in_child(lambda: prediction(out, "--save_probabilities"), model, int(whole.events * part)).code == -9
        kept = {file: file.stat().st_mtime_ns for file in out.glob("test_*.nii.gz")}
        assert in_child(lambda: prediction(out, "--save_probabilities", "--continue_prediction"), model).code == 0
        assert {file: file.stat().st_mtime_ns for file in kept} == kept
        assert {file.name: file.read_bytes() for file in out.glob("[!.]*") if file.name.startswith("test")}.keys() \
            == expected.keys()
        assert not list(out.rglob(".*"))
        assert all((out / name).read_bytes() == content for name, content in expected.items() if name.endswith(".nii.gz"))
