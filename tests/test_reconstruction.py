"""--save_reconstructions: geometry, intensity scale, the figure and refusals; with a perfect and with a trained module."""
from __future__ import annotations

import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from nnunetv2.preprocessing.normalization import default_normalization_schemes
from tiny_dataset import DATASET, PLANS, SHORT, set_folders
from tiny_dataset import test_images as image_folder

from nnmiss.cli import predict, train
from nnmiss.errors import NnmissError
from nnmiss.inference.checkpoints import read_checkpoint, write_checkpoint
from nnmiss.inference.intensities import SCHEMES, scale_and_offset
from nnmiss.inference.predict_cases import Output, predict_cases
from nnmiss.inference.predictor import MissingModalityPredictor
from nnmiss.inference.reconstruction import load_reconstructions, panels
from nnmiss.inference.reconstruction_figure import middle_slice
from nnmiss.inference.wanted import Wanted
from nnmiss.preprocessing.raw_dataset import list_cases
from nnmiss.preprocessing.read_case import CaseImages
from nnmiss.trainers import method_of_trainer

NAMES = ["flair", "t1", "t1ce", "t2"]
ONLY_FLAIR = (True, False, False, False)


class Perfect(torch.nn.Module):
    """A recovery module that gives back the image it is to reconstruct."""

    finest_width = 8

    def forward_subsets(self, x, presents, batch=4):
        return x[:, None].expand(-1, len(presents), *x.shape[1:]).float().clone()


class PerfectTrainer:
    method = "perfect"

    @staticmethod
    def build_recovery(plans_manager, configuration_manager, num_modalities):
        return Perfect()


@pytest.fixture(scope="module")
def trained(session_folders, tmp_path_factory):
    """A results folder with one fold of all_stage and one of modality_dropout, trained for a moment."""
    results = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch:
        set_folders(patch, session_folders)
        patch.setenv("nnUNet_results", str(results))
        for method, settings in (("all_stage", ["num_epochs=4", "prompt=binary"]), ("modality_dropout", ["num_epochs=1"])):
            train.run(["801", method, "0", "-p", PLANS, "-device", "cpu", "--disable_progress_bar", "--no_val", *SHORT,
                       *settings])
    return results


@pytest.fixture
def images(session_folders, trained, monkeypatch, tmp_path):
    """A private copy of the test images."""
    set_folders(monkeypatch, session_folders)
    monkeypatch.setenv("nnUNet_results", str(trained))
    return Path(shutil.copytree(image_folder(), tmp_path / "in"))


def run(images, *arguments, method="all_stage"):
    """(exit code, output folder) of nnmiss_predict."""
    out = images.parent / "out"
    return predict.run(["-i", str(images), "-o", str(out), "-d", "801", "-m", method, "-p", PLANS, "-device", "cpu",
                        "--disable_progress_bar", "--disable_tta", "--save_reconstructions", *arguments]), out


def predictor_of(trained, model="*AllStage*") -> MissingModalityPredictor:
    predictor = MissingModalityPredictor(device=torch.device("cpu"), use_mirroring=False, allow_tqdm=False)
    predictor.initialize_from_folder(next((trained / DATASET).glob(model)), [0], "checkpoint_final.pth", method_of_trainer)
    return predictor


def reconstruct_perfectly(trained, folder: Path, wanted=Wanted(shown=ONLY_FLAIR), transpose=None) -> Path:  # noqa: B008
    """Predicts the cases of `folder` with the perfect module; returns where the reconstructions lie."""
    trained_model = next((trained / DATASET).glob("*AllStage*"))
    model = Path(shutil.copytree(trained_model, folder.parent / "nnMissTrainerAllStage__P__c"))
    file = model / "fold_0" / "checkpoint_final.pth"
    checkpoint = read_checkpoint(file)
    checkpoint["nnmiss"]["state"]["recovery"] = {}
    write_checkpoint(file, checkpoint)
    predictor = MissingModalityPredictor(device=torch.device("cpu"), use_mirroring=False, allow_tqdm=False)
    predictor.initialize_from_folder(model, [0], "checkpoint_final.pth", method_of_trainer)
    if transpose:
        predictor.plans_manager.plans.update(transpose_forward=transpose, transpose_backward=list(np.argsort(transpose)))
    cases, out = list_cases(folder, ".nii.gz"), folder.parent / "perfect"
    reconstructions = load_reconstructions(predictor, PerfectTrainer, cases)
    assert predict_cases(predictor, cases, wanted, Output(out, reconstructions=reconstructions)) == {}
    return out / "reconstructions"


def write_case(folder: Path, spacing=(1.0, 1.0, 1.0), size=(30, 26, 28)) -> dict[int, nibabel.Nifti1Image]:
    """One smooth case with a zero border, another scale per modality, and a rotated, shifted geometry."""
    folder.mkdir()
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in size], indexing="ij"))
    brain = (grid**2).sum(0) < 0.8
    angle = 0.3
    rotation = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = rotation * spacing, (-12.5, 40, 7)
    written = {}
    for channel, scale in enumerate((1.0, 30.0, 900.0, 0.2)):
        values = (2 + np.cos(2 * grid[0] + channel) + grid[1] * grid[2]) * scale
        written[channel] = nibabel.Nifti1Image((values * brain).astype(np.float32), affine)
        nibabel.save(written[channel], folder / f"case_{channel:04d}.nii.gz")
    return written


@pytest.mark.parametrize("transpose", [None, [2, 0, 1]])
def test_a_perfect_reconstruction_is_the_file_itself(images, trained, tmp_path, transpose):
    true = write_case(tmp_path / "made")
    folder = reconstruct_perfectly(trained, tmp_path / "made", transpose=transpose)
    assert {p.name for p in folder.iterdir()} == {"case_0001.nii.gz", "case_0002.nii.gz", "case_0003.nii.gz", "case.png"}
    for channel in (1, 2, 3):
        found = nibabel.load(folder / f"case_{channel:04d}.nii.gz")
        assert np.allclose(found.affine, true[channel].affine, atol=1e-4)
        assert found.get_data_dtype() == np.float32
        expected = true[channel].get_fdata()
        assert np.abs(found.get_fdata() - expected).max() < 1e-5 * expected.max()


def test_resampled_images_come_back_on_their_own_grid(images, trained, tmp_path):
    true = write_case(tmp_path / "made", spacing=(1.5, 1.0, 1.2))
    folder = reconstruct_perfectly(trained, tmp_path / "made")
    for channel in (1, 2, 3):
        found, expected = nibabel.load(folder / f"case_{channel:04d}.nii.gz"), true[channel].get_fdata()
        assert found.shape == expected.shape
        assert np.allclose(found.affine, true[channel].affine, atol=1e-4)
        inner = expected[10:-10, 9:-9, 9:-9]  # away from the edge of the head, which interpolation blurs
        assert np.abs(found.get_fdata()[10:-10, 9:-9, 9:-9] - inner).max() < 0.02 * expected.max()
        assert np.all(found.get_fdata()[expected == 0] == 0)


def test_a_modality_without_a_file_gets_the_data_sets_intensities(images, trained, tmp_path):
    true = write_case(tmp_path / "made")
    (tmp_path / "made" / "case_0002.nii.gz").unlink()
    folder = reconstruct_perfectly(trained, tmp_path / "made", Wanted())  # the module sees, and so gives, zeros
    assert {p.name for p in folder.iterdir()} == {"case_0002.nii.gz", "case.png"}
    plans = predictor_of(trained).plans_manager
    mean = plans.foreground_intensity_properties_per_channel["2"]["mean"]
    found, head = nibabel.load(folder / "case_0002.nii.gz").get_fdata(), true[0].get_fdata() != 0
    assert np.allclose(found[head], mean, rtol=1e-5)
    assert np.all(found[~head] == 0)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("masked", [True, False])
def test_every_scheme_is_undone_as_nnunet_did_it(scheme, masked):
    generator = np.random.default_rng(0)
    image = generator.uniform(3, 200, (5, 6, 7)).astype(np.float32)
    seg = np.where(generator.random(image.shape) > 0.3, 0, -1)
    fingerprint = {"mean": 90.0, "std": 40.0, "percentile_00_5": 0.0, "percentile_99_5": 250.0, "min": 1.0, "max": 220.0}
    normaliser = getattr(default_normalization_schemes, scheme)(masked, fingerprint)
    normalised = normaliser.run(image.copy(), seg)
    inside = seg >= 0 if masked and scheme == "ZScoreNormalization" else np.ones(image.shape, bool)
    scale, offset = scale_and_offset(scheme, image[inside], fingerprint)
    assert np.allclose(normalised[inside] * scale + offset, image[inside], atol=1e-3)
    assert scale_and_offset(scheme, None, fingerprint) == {
        "ZScoreNormalization": (40, 90), "CTNormalization": (40, 90), "NoNormalization": (1, 0),
        "RescaleTo01Normalization": (219, 1), "RGBTo01Normalization": (255, 0)}[scheme]


def test_a_trained_model_writes_what_is_not_shown(images):
    (images / "test_000_0003.nii.gz").unlink()
    code, out = run(images, "--modalities", "flair", "t1")
    assert code == 0
    assert (out / "test_000.nii.gz").is_file()
    files = {f"{case}{more}" for case in ("test_000", "test_001") for more in ("_0002.nii.gz", "_0003.nii.gz", ".png")}
    assert {p.name for p in (out / "reconstructions").iterdir()} == files
    image, true = (nibabel.load(f / "test_001_0002.nii.gz") for f in (out / "reconstructions", images))
    assert np.allclose(image.affine, true.affine, atol=1e-5)
    assert image.shape == true.shape
    assert np.isfinite(image.get_fdata()).all()


def test_subsets_have_reconstructions_of_their_own_and_the_full_set_none(images):
    code, out = run(images, "--subsets", "t2", "flair+t1+t1ce+t2")
    assert code == 0
    assert (out / "t2" / "reconstructions" / "test_000_0000.nii.gz").is_file()
    assert not (out / "t2" / "reconstructions" / "test_000_0003.nii.gz").exists()
    assert not (out / "flair+t1+t1ce+t2" / "reconstructions").exists()


def test_what_a_module_reconstructs_does_not_depend_on_hidden_modalities(images, trained):
    predictor = predictor_of(trained)
    reconstructions = load_reconstructions(predictor, method_of_trainer(predictor.trainer_name), [])
    data = torch.randn(4, 30, 25, 24)
    found = reconstructions.predict(data, (True, False, True, False))
    assert found.shape == (2, 30, 25, 24)
    data[[1, 3]] = 1e3
    assert np.array_equal(reconstructions.predict(data, (True, False, True, False)), found)
    assert reconstructions.predict(data, (True,) * 4) is None


def test_folds_are_averaged(images, trained):
    def reconstructed():
        torch.manual_seed(0)
        return reconstructions.predict(torch.randn(4, 24, 24, 24), ONLY_FLAIR)

    predictor = predictor_of(trained)
    reconstructions = load_reconstructions(predictor, method_of_trainer(predictor.trainer_name), [])
    first = reconstructions.predictor.list_of_parameters[0]
    other = {name: value + 0.01 for name, value in first.items()}
    single = []
    for parameters in (first, other):
        reconstructions.predictor.list_of_parameters = [parameters]
        reconstructions.predictor.network.load_state_dict(parameters)
        single.append(reconstructed())
    reconstructions.predictor.list_of_parameters = [first, other]
    assert np.abs(reconstructed() - (single[0] + single[1]) / 2).max() < 1e-5


def test_methods_and_checkpoints_without_a_module_are_refused(images, trained, tmp_path):
    with pytest.raises(NnmissError, match=r"modality_dropout reconstructs no modalities, all_stage does"):
        run(images, method="modality_dropout")
    assert not (images.parent / "out").exists()
    predictor = predictor_of(trained)
    predictor.model_folder = Path(shutil.copytree(predictor.model_folder, tmp_path / predictor.model_folder.name))
    file = predictor.model_folder / "fold_0" / "checkpoint_final.pth"
    checkpoint = read_checkpoint(file)
    del checkpoint["nnmiss"]["state"]["recovery"]
    write_checkpoint(file, checkpoint)
    method = method_of_trainer(predictor.trainer_name)
    for stage, why in (("", "holds no recovery module"), ("segment", "segment: .*holds no recovery module"),
                       ("warmup", r"earlier stages: approximate, reconstruct, segment")):
        with pytest.raises(NnmissError, match=why):
            load_reconstructions(predictor, method, [], stage)


def test_an_earlier_stages_module_reconstructs_too(images, trained):
    predictor = predictor_of(trained)
    found = {stage: load_reconstructions(predictor, method_of_trainer(predictor.trainer_name), [], stage)
             for stage in ("", "approximate", "reconstruct")}
    for stage in ("approximate", "reconstruct"):
        expected = read_checkpoint(predictor.model_folder / "fold_0" / f"stage_{stage}" / "checkpoint_final.pth")
        own = found[stage].predictor.network.state_dict()
        assert all(torch.equal(own[name], value) for name, value in expected["network_weights"].items())
    data = torch.randn(4, 24, 24, 24)
    first, second = (found[stage].predict(data, ONLY_FLAIR) for stage in ("reconstruct", "approximate"))
    assert np.abs(first - second).max() > 1e-4
    code, out = run(images, "approximate", "--modalities", "flair")  # the flag's value
    assert code == 0
    assert (out / "reconstructions" / "test_000_0001.nii.gz").is_file()


def test_a_normalisation_that_cannot_be_undone_is_refused_by_name(images, trained):
    predictor = predictor_of(trained)
    predictor.configuration_manager.configuration["normalization_schemes"][2] = "HistogramNormalization"
    with pytest.raises(NnmissError, match=r"t1ce was normalised by HistogramNormalization.*ZScoreNormalization"):
        load_reconstructions(predictor, method_of_trainer(predictor.trainer_name), [])


def test_the_figure_shows_inputs_reconstruction_and_truth_where_there_is_one():
    data = np.stack([np.full((3, 4, 5), value, np.float32) for value in (1, 2, 3)])
    images = CaseImages(data, (True, True, False, True), {}, [])
    rows = panels(images, np.zeros((2, 3, 4, 5)), [1, 2], (True, False, False, True), NAMES)
    assert [[p.title for p in row] for row in rows] == [
        ["input flair", "input t2", "reconstructed t1", "true t1"], ["input flair", "input t2", "reconstructed t1ce"]]
    assert rows[0][2].window is rows[0][3].image  # drawn at the truth's scale
    assert rows[0][1].image[0, 0, 0] == 3


def test_the_middle_slice_is_that_of_the_foreground():
    foreground = np.zeros((9, 4, 4), bool)
    assert middle_slice(foreground) == 4
    foreground[5:8, 1, 1] = True
    assert middle_slice(foreground) == 6
