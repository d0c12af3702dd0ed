"""nnmiss_predict on a tiny model: subsets, geometry, equality with single runs, and bad input."""
from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from tiny_dataset import DATASET, PLANS, SHORT, set_folders
from tiny_dataset import test_images as image_folder

from nnmiss.availability import all_subsets, subset_name
from nnmiss.cli import predict, train
from nnmiss.inference.export import entropy
from nnmiss.inference.predictor import MissingModalityPredictor
from nnmiss.inference.wanted import Wanted
from nnmiss.preprocessing.preprocessor import preprocess_case
from nnmiss.preprocessing.raw_dataset import list_cases
from nnmiss.trainers import method_of_trainer

NAMES = ["flair", "t1", "t1ce", "t2"]


@pytest.fixture(scope="module")
def trained(session_folders, tmp_path_factory):
    """A results folder with two folds of metakd and one of modality_dropout, trained for a moment."""
    results = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch:
        set_folders(patch, session_folders)
        patch.setenv("nnUNet_results", str(results))
        for method, fold in (("metakd", "0"), ("metakd", "1"), ("modality_dropout", "0")):
            more = ["--no_val"] if fold == "1" else []
            train.run(["801", method, fold, "-p", PLANS, "-device", "cpu", "--disable_progress_bar", *more, *SHORT,
                       "num_epochs=2"])
    return results


@pytest.fixture
def images(session_folders, trained, monkeypatch, tmp_path):
    """A private copy of the test images, to be damaged at will."""
    set_folders(monkeypatch, session_folders)
    monkeypatch.setenv("nnUNet_results", str(trained))
    return Path(shutil.copytree(image_folder(), tmp_path / "in"))


def run(images, *arguments, method="metakd", out=None, folds=("0",)):
    """(exit code, output folder) of nnmiss_predict."""
    out = out or images.parent / "out"
    code = predict.run(["-i", str(images), "-o", str(out), "-d", "801", "-m", method, "-p", PLANS, "-device", "cpu",
                        "--disable_progress_bar", "--disable_tta", *(["-f", *folds] if folds else []), *arguments])
    return code, Path(out)


def load(path):
    return np.asanyarray(nibabel.load(path).dataobj)


def read_json(path):
    return json.loads(Path(path).read_text())


def test_a_prediction_has_the_geometry_of_its_image(images):
    code, out = run(images)
    assert code == 0
    for image in images.glob("*_0000.nii.gz"):
        case = image.name[: -len("_0000.nii.gz")]
        a, b = nibabel.load(image), nibabel.load(out / f"{case}.nii.gz")
        assert np.allclose(a.affine, b.affine, atol=1e-5)
        assert a.shape == b.shape
        assert b.get_data_dtype() == np.uint8
        assert set(np.unique(load(out / f"{case}.nii.gz"))) <= {0, 1, 2, 3}


def test_each_case_is_predicted_with_what_it_has(images):
    (images / "test_000_0001.nii.gz").unlink()
    (images / "test_000_0003.nii.gz").unlink()
    code, out = run(images)
    assert code == 0
    said = read_json(out / "test_000.json")
    assert said["modalities_used"] == said["modalities_available"] == ["flair", "t1ce"]
    assert read_json(out / "test_001.json")["subset"] == "flair+t1+t1ce+t2"


def test_files_taken_away_equal_modalities_hidden(images):
    """A missing file and a hidden modality differ only by the nonzero crop, which these phantoms' brains share."""
    hidden = run(images, "--modalities", "T1ce", "FLAIR", out=images.parent / "hidden")[1]
    for case in ("test_000", "test_001"):
        for channel in (1, 3):
            (images / f"{case}_{channel:04d}.nii.gz").unlink()
    taken = run(images, out=images.parent / "taken")[1]
    for case in ("test_000", "test_001"):
        assert np.mean(load(hidden / f"{case}.nii.gz") == load(taken / f"{case}.nii.gz")) > 0.999


@pytest.mark.parametrize("method", ["metakd", "modality_dropout"])
def test_all_subsets_at_once_equal_single_runs_in_the_logits(images, trained, method, monkeypatch):
    model = next((trained / DATASET).glob("*MetaKD*" if method == "metakd" else "*Dropout*"))
    predictor = MissingModalityPredictor(device=torch.device("cpu"), use_mirroring=True, allow_tqdm=False)
    predictor.initialize_from_folder(model, [0], "checkpoint_final.pth", method_of_trainer)
    case = list_cases(images, ".nii.gz")[0]
    data, _, _ = preprocess_case(case, predictor.plans_manager, predictor.configuration_manager, predictor.dataset_json)
    data = torch.from_numpy(data)
    subsets = all_subsets(4)
    at_once = dict(predictor.predict_subsets(data, subsets))
    monkeypatch.setattr("nnmiss.inference.predictor.how_many", lambda *a: 1)  # chunks of one subset, batches of one
    for subset in subsets:
        ((_, single),) = predictor.predict_subsets(data, [subset])
        assert np.abs(single - at_once[subset]).max() < 1e-4
        assert single.dtype == np.float32


def test_tiles_are_fused_as_nnunet_fuses_them(images, trained):
    """Against stock's own sliding window on a complete case.

    Without Gaussian weights, because stock accumulates in half precision, where the weights of a tile's corner vanish.
    """
    model = next((trained / DATASET).glob("*Dropout*"))
    ours = MissingModalityPredictor(device=torch.device("cpu"), use_gaussian=False, use_mirroring=True, allow_tqdm=False)
    ours.initialize_from_folder(model, [0], "checkpoint_final.pth", method_of_trainer)
    data = torch.randn(4, 30, 33, 24)
    ((_, logits),) = ours.predict_subsets(data, [(True,) * 4])
    stock = ours.predict_sliding_window_return_logits(data).float().numpy()
    assert np.abs(logits - stock).max() < 0.005


def test_all_subsets_write_fifteen_folders(images):
    code, out = run(images, "--all_subsets")
    assert code == 0
    folders = {p.name for p in out.iterdir() if p.is_dir()}
    assert folders == {subset_name(s, NAMES) for s in all_subsets(4)}
    assert all((out / f / "test_000.nii.gz").is_file() and (out / f / "test_001.json").is_file() for f in folders)


def test_subsets_a_case_does_not_have_are_left_out_and_said(images, capsys):
    (images / "test_000_0003.nii.gz").unlink()
    code, out = run(images, "--subsets", "t2", "FLAIR+t1ce")
    assert code == 0
    assert not (out / "t2" / "test_000.nii.gz").exists()
    assert (out / "t2" / "test_001.nii.gz").exists()
    assert (out / "flair+t1ce" / "test_000.nii.gz").exists()
    assert "case test_000 has flair+t1+t1ce: 1 of 2 subsets need more" in capsys.readouterr().out


def test_a_named_modality_that_a_case_lacks_is_a_warning_and_none_of_them_an_error(images, capsys):
    (images / "test_000_0003.nii.gz").unlink()
    (images / "test_001_0000.nii.gz").unlink()
    (images / "test_001_0003.nii.gz").unlink()
    code, out = run(images, "--modalities", "flair", "t2")
    assert code == 1
    assert read_json(out / "test_000.json")["modalities_used"] == ["flair"]
    assert not (out / "test_001.nii.gz").exists()
    printed = capsys.readouterr()
    assert "warning: case test_000 lacks part of flair+t2" in printed.out
    assert "case test_001 has t1+t1ce and none of the requested modalities flair+t2" in printed.err


def test_expected_dice_comes_from_the_models_own_validation(images):
    _, out = run(images, "--modalities", "flair")
    expected = read_json(out / "test_000.json")["expected_dice"]
    assert set(expected["adding"]) == {"t1", "t1ce", "t2"}
    assert {"mean", "cases", "whole_tumor"} <= set(expected["with_these"])


def test_folds_are_averaged(images, trained):
    model = next((trained / DATASET).glob("*MetaKD*"))
    logits = {}
    for folds in ((0,), (1,), (0, 1)):
        predictor = MissingModalityPredictor(device=torch.device("cpu"), use_mirroring=False, allow_tqdm=False)
        predictor.initialize_from_folder(model, list(folds), "checkpoint_final.pth", method_of_trainer)
        torch.manual_seed(0)
        ((_, logits[folds]),) = predictor.predict_subsets(torch.randn(4, 24, 24, 24), [(True, False, True, True)])
    assert np.abs((logits[(0,)] + logits[(1,)]) / 2 - logits[(0, 1)]).max() < 1e-5
    assert run(images, folds=())[0] == 0
    assert read_json(images.parent / "out" / "test_000.json")["model"]["folds"] == [0, 1]


def test_probabilities_and_uncertainty(images):
    _, out = run(images, "--save_probabilities", "--save_uncertainty")
    probabilities = np.load(out / "test_000.npz")["probabilities"]
    assert probabilities.shape == (3, *load(images / "test_000_0000.nii.gz").T.shape)
    image = nibabel.load(out / "uncertainty" / "test_000.nii.gz")
    values = image.get_fdata()
    assert np.allclose(image.affine, nibabel.load(images / "test_000_0000.nii.gz").affine, atol=1e-5)
    assert values.min() >= 0
    assert 0.1 < values.max() <= 1
    assert np.allclose(values.T, entropy(probabilities, True), atol=1e-5)


def test_entropy_is_one_where_everything_is_equally_likely_and_zero_where_certain():
    assert entropy(np.full((3, 1), 0.5), True) == pytest.approx(1)
    assert entropy(np.full((4, 1), 0.25), False) == pytest.approx(1)
    assert entropy(np.array([[1.0], [0.0]]), False) == pytest.approx(0, abs=1e-4)
    by_hand = -(0.2 * np.log2(0.2) + 0.8 * np.log2(0.8))
    assert entropy(np.array([[0.2], [0.8]]), True) == pytest.approx(by_hand, rel=1e-4)


def test_existing_predictions_are_kept_and_the_rest_is_made(images):
    _, out = run(images)
    (out / "test_001.nii.gz").unlink()
    before = (out / "test_000.nii.gz").stat().st_mtime_ns
    run(images, "--continue_prediction")
    assert (out / "test_000.nii.gz").stat().st_mtime_ns == before
    assert (out / "test_001.nii.gz").exists()


def test_parts_share_the_cases(images):
    run(images, "-num_parts", "2", "-part_id", "0")
    out = run(images, "-num_parts", "2", "-part_id", "1", out=images.parent / "second")[1]
    assert [p.name for p in sorted(out.glob("*.nii.gz"))] == ["test_001.nii.gz"]
    assert [p.name for p in sorted((images.parent / "out").glob("*.nii.gz"))] == ["test_000.nii.gz"]


def damage_truncate(path):
    path.write_bytes(path.read_bytes()[:2000])


def damage_nan(path):
    image = nibabel.load(path)
    values = image.get_fdata(dtype=np.float32).copy()
    values[3, 3, 3] = np.nan
    nibabel.save(nibabel.Nifti1Image(values, image.affine), path)


def damage_shape(path):
    image = nibabel.load(path)
    nibabel.save(nibabel.Nifti1Image(image.get_fdata(dtype=np.float32)[1:], image.affine), path)


def damage_affine(path):
    image = nibabel.load(path)
    moved = image.affine + 5 * np.eye(4)[:, [3, 0, 1, 2]]
    nibabel.save(nibabel.Nifti1Image(image.get_fdata(dtype=np.float32), moved), path)


@pytest.mark.parametrize("damage", [damage_truncate, damage_nan, damage_shape, damage_affine])
def test_a_bad_case_is_named_and_the_good_one_finishes(images, capsys, damage):
    damage(images / "test_000_0002.nii.gz")
    code, out = run(images)
    assert code == 1
    assert (out / "test_001.nii.gz").exists()
    assert not (out / "test_000.nii.gz").exists()
    assert "test_000" in capsys.readouterr().err


def test_a_channel_beyond_the_data_set_is_named(images, capsys):
    shutil.copy(images / "test_000_0000.nii.gz", images / "test_000_0007.nii.gz")
    code, _ = run(images)
    assert code == 1
    assert "test_000_0007" in capsys.readouterr().err


@pytest.mark.parametrize("arguments, message", [
    (["--modalities", "t1c"], "Did you mean t1ce"),
    (["--subsets", "flair+pet"], "modality 'pet' is not in this data set"),
    (["-f", "7"], "fold_7"),
    (["-chk", "checkpoint_none.pth"], "no fold with checkpoint_none.pth"),
    (["-m", "metakt"], "Did you mean metakd"),
    (["-p", "nnMissPlans"], "no trained model"),
    (["-i", "/no/such/folder"], "input folder"),
    (["-step_size", "0"], "-step_size"),
    (["-part_id", "3"], "-part_id 3"),
    (["-o", "/proc/nothing"], "cannot write to folder"),
])
def test_bad_arguments_end_in_one_message(images, monkeypatch, capsys, arguments, message):
    given = {"-i": [str(images)], "-o": [str(images.parent / "o")], "-d": ["801"], "-m": ["metakd"], "-p": [PLANS],
             "-f": ["0"], "-device": ["cpu"]}
    given[arguments[0]] = arguments[1:]
    monkeypatch.setattr("sys.argv", ["nnmiss_predict", *[word for flag, v in given.items() for word in (flag, *v)]])
    with pytest.raises(SystemExit) as stop:
        predict.main()
    assert stop.value.code == 1
    assert message in capsys.readouterr().err


def test_an_empty_input_folder_is_named(images):
    (images.parent / "empty").mkdir()
    with pytest.raises(Exception, match="has no files named CASE_0000"):
        run(images.parent / "empty")


def test_a_checkpoint_of_another_network_is_refused(images, trained, tmp_path, monkeypatch):
    copy = Path(shutil.copytree(trained, tmp_path / "results"))
    monkeypatch.setenv("nnUNet_results", str(copy))
    model = next((copy / DATASET).glob("*MetaKD*"))
    plans = read_json(model / "plans.json")
    plans["configurations"]["3d_fullres"]["nnmiss"]["width_factor"] = 0.25
    (model / "plans.json").write_text(json.dumps(plans))
    with pytest.raises(Exception, match="does not fit the network of its plans"):
        run(images)
    other = next((copy / DATASET).glob("*Dropout*"))
    shutil.copy(model / "fold_0" / "checkpoint_final.pth", other / "fold_0" / "checkpoint_final.pth")
    with pytest.raises(Exception, match="was trained by nnMissTrainerMetaKD, but"):
        run(images, method="modality_dropout")


def test_an_interrupted_prediction_leaves_no_half_file(images, monkeypatch):
    calls = []

    def interrupt(self, *args, original=MissingModalityPredictor._tile):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(self, *args)

    monkeypatch.setattr(MissingModalityPredictor, "_tile", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(images, "--subsets", "flair", "t1", "t1ce")
    monkeypatch.undo()
    for file in (images.parent / "out").rglob("*.nii.gz"):
        assert not file.name.startswith(".")
        load(file)


def test_wanted_reads_as_the_design_says():
    every = Wanted(subsets=tuple(all_subsets(2)))
    assert every.of_case("x", (True, True), ["a", "b"])[0] == {"a": (True, False), "b": (False, True), "a+b": (True, True)}
    assert every.of_case("x", (True, False), ["a", "b"])[0] == {"a": (True, False)}
    assert Wanted().of_case("x", (True, False), ["a", "b"]) == ({"": (True, False)}, [])


def test_stock_nnunet_predicts_complete_cases_with_our_checkpoints(images, trained):
    probe = subprocess.run([sys.executable, "-c", "import torchvision"], capture_output=True, text=True)
    if probe.returncode:
        pytest.skip(f"nnUNetv2_predict needs a torchvision that fits torch: {probe.stderr.strip().splitlines()[-1]}")
    import nnmiss.nnunet_ext

    environment = {**os.environ, "nnUNet_extTrainer": str(Path(nnmiss.nnunet_ext.__file__).parent)}
    _, ours = run(images)
    stock = images.parent / "stock"
    done = subprocess.run(
        [Path(sys.executable).parent / "nnUNetv2_predict", "-i", images, "-o", stock, "-d", "801", "-c", "3d_fullres",
         "-f", "0", "-tr", "nnMissTrainerMetaKD", "-p", PLANS, "-device", "cpu", "--disable_tta", "-npp", "1", "-nps", "1"],
        env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    for case in ("test_000", "test_001"):
        assert np.mean(load(stock / f"{case}.nii.gz") == load(ours / f"{case}.nii.gz")) > 0.995
