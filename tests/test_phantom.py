"""The generated data set: deterministic, nested, visible as its table says, and a valid nnU-Net data set."""
from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from scipy.ndimage import distance_transform_edt

from nnmiss.availability import modality_names as channel_names
from nnmiss.cli import phantom as phantom_command
from nnmiss.dataset_conversion.phantom import (
    FIRST_TEST_NUMBER,
    VISIBILITY,
    PhantomSettings,
    make_affine,
    make_case,
    write_dataset,
)
from nnmiss.dataset_conversion.phantom_anatomy import make_anatomy
from nnmiss.dataset_conversion.phantom_contrast import LESION_TISSUES, contrast_row, modality_names
from nnmiss.dataset_conversion.phantom_missing import draw_missing
from nnmiss.errors import NnmissError

SMALL = PhantomSettings(size=24, modalities=3)


def files(folder):
    return sorted(p.name for p in folder.iterdir())


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs the command in this process: run(arguments) -> (exit code, stdout, stderr)."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            phantom_command.main()
        out = capsys.readouterr()
        return SimpleNamespace(returncode=stop.value.code, stdout=out.out, stderr=out.err)

    return call


def test_a_case_is_the_same_every_time_and_differs_by_number_and_seed():
    images, labels = make_case(SMALL, 3)
    again, labels_again = make_case(PhantomSettings(size=(24, 24, 24), modalities=3), 3)
    assert np.array_equal(images, again) and np.array_equal(labels, labels_again)
    assert images.dtype == np.float32 and labels.dtype == np.uint8
    for settings, number in ((SMALL, 4), (PhantomSettings(size=24, modalities=3, seed=1), 3)):
        other, other_labels = make_case(settings, number)
        assert not np.array_equal(labels, other_labels) and not np.array_equal(images, other)


@pytest.mark.parametrize("modalities", [2, 4, 8])
def test_any_number_of_modalities_and_a_channel_does_not_depend_on_it(modalities):
    images, labels = make_case(PhantomSettings(size=(24, 32, 40), modalities=modalities), 0)
    three, labels_of_three = make_case(PhantomSettings(size=(24, 32, 40), modalities=3), 0)
    shared = min(3, modalities)
    assert images.shape == (modalities, 24, 32, 40) and np.isfinite(images).all()
    assert np.array_equal(images[:shared], three[:shared]) and np.array_equal(labels, labels_of_three)


def test_modality_names_are_those_of_the_converters():
    assert modality_names(6) == ("flair", "t1", "t1ce", "t2", "m5", "m6")


def test_background_is_zero_brain_is_positive_and_fills_a_third():
    for number in range(6):
        images, labels = make_case(PhantomSettings(size=40), number)
        brain = images[0] > 0
        assert 0.28 < brain.mean() < 0.42
        assert all(np.array_equal(image > 0, brain) for image in images)
        assert images[:, brain].min() >= 1 and (images[:, ~brain] == 0).all()
        assert brain[labels > 0].all()


@pytest.mark.parametrize("size", [24, 36, (24, 48, 64)])
def test_every_label_occurs_whatever_the_size(size):
    for number in range(8):
        _, labels = make_case(PhantomSettings(size=size, modalities=2), number)
        counts = np.bincount(labels.ravel(), minlength=4)
        assert len(counts) == 4 and counts[1:].min() >= 5
        assert counts[1:].sum() < 0.5 * labels.size


def test_a_ring_of_enhancement_closes_around_necrosis_and_edema_around_the_core():
    for number in range(4):
        labels = make_anatomy((80, 80, 80), 0, number).labels
        assert distance_transform_edt(labels >= 2)[labels == 2].min() > 1  # no face outside the core
        assert (distance_transform_edt(labels >= 1)[labels >= 2] <= 1).mean() < 0.01  # to the whole tumour's


def test_anatomy_is_the_same_at_every_resolution():
    coarse = make_anatomy((40, 40, 40), 0, 1).labels
    fine = make_anatomy((80, 80, 80), 0, 1).labels[::2, ::2, ::2]
    overlap = 2 * ((coarse > 0) & (fine > 0)).sum() / ((coarse > 0).sum() + (fine > 0).sum())
    assert overlap > 0.85


def measured_contrasts(settings, numbers):
    """modality -> tissue -> (contrast, contrast-to-noise) against far healthy brain, averaged over cases."""
    rows = []
    for number in numbers:
        images, labels = make_case(settings, number)
        healthy = (images[0] > 0) & (distance_transform_edt(labels == 0) > 4)
        healthy &= distance_transform_edt(images[0] > 0) > 6  # not the cortex and the fluid around it
        reference = np.median(images[:, healthy], axis=1)
        noise = 1.4826 * np.median(np.abs(images[:, healthy] - reference[:, None]), axis=1)
        inside = [np.median(images[:, labels == value], axis=1) for value in (1, 2, 3)]
        rows.append([((t - reference) / reference, (t - reference) / noise) for t in inside])
    return np.mean(rows, axis=0).transpose(2, 0, 1)  # (M, tissue, contrast | contrast-to-noise)


@pytest.fixture(scope="module")
def contrasts():
    return measured_contrasts(PhantomSettings(size=48, modalities=7), range(8))


def test_measured_contrasts_follow_the_table(contrasts):
    names = modality_names(7)
    table = np.array([[contrast_row(name)[tissue] for tissue in LESION_TISSUES] for name in names])
    assert np.array_equal(table[:4], [[VISIBILITY[n][t] for t in LESION_TISSUES] for n in names[:4]])
    assert np.corrcoef(table.ravel(), contrasts[..., 0].ravel())[0, 1] > 0.97
    assert np.abs(contrasts[..., 0] - 1.15 * table).max() < 0.17
    plain = np.abs(table) >= 0.35
    assert (np.abs(contrasts[..., 1])[plain] > 2).all()
    assert plain[4:].sum() == 3 and plain[4:].any(1).all()  # each further modality shows one tissue plainly


def test_each_region_is_visible_where_brats_shows_it(contrasts):
    flair, t1, t1ce, t2 = contrasts[:4, :, 1]  # contrast-to-noise of edema, necrosis, enhancing
    assert min(flair[0], t2[0]) > 4 and 1 < abs(t1[0]) < 3 and 0.5 < abs(t1ce[0]) < 3
    assert t1ce[2] > 3 and t1ce[1] < -1.5
    enhancing_against_core = abs(contrasts[:4, 2, 0] - contrasts[:4, 1, 0])
    assert enhancing_against_core[2] > 4 * np.delete(enhancing_against_core, 2).max()


def test_difficulty_lowers_contrast_to_noise_and_leaves_labels_alone():
    plain, hard = (PhantomSettings(size=40, difficulty=d) for d in (0.0, 1.0))
    assert np.array_equal(make_case(plain, 0)[1], make_case(hard, 0)[1])
    easy_cnr, hard_cnr = (np.abs(measured_contrasts(s, range(3))[..., 1]) for s in (plain, hard))
    assert easy_cnr[2, 2] > 2.5 * hard_cnr[2, 2] and easy_cnr[0, 0] > 2.5 * hard_cnr[0, 0]


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_no_case_loses_everything_and_no_modality_disappears(rate):
    for seed in range(40):
        for count, modalities in ((1, 4), (2, 2), (3, 3), (12, 4), (5, 8)):
            training, names = [f"case_{i:03d}" for i in range(count)], modality_names(modalities)
            dropped = draw_missing(rate, training, names, seed)
            assert dropped == draw_missing(rate, training, names, seed)
            assert all(1 <= len(set(lost)) < modalities for lost in dropped.values())
            assert all(any(n not in dropped.get(case, ()) for case in training) for n in names)
            most = count if rate == 1 and count > 1 else count - 1
            assert len(dropped) == min(round(rate * count), most)


def test_data_set_has_the_files_the_summary_says(tmp_path):
    missing = {"case_001": ["T1"], "case_002": ["flair", "t1ce"]}
    summary = write_dataset(tmp_path, 7, "Toy", SMALL, 3, 2, missing)
    folder = tmp_path / "Dataset007_Toy"
    assert summary["folder"] == folder and files(tmp_path) == ["Dataset007_Toy"]
    assert files(folder / "imagesTr") == [
        "case_000_0000.nii.gz", "case_000_0001.nii.gz", "case_000_0002.nii.gz",
        "case_001_0000.nii.gz", "case_001_0002.nii.gz", "case_002_0001.nii.gz"]
    assert len(files(folder / "imagesTs")) == 6 and files(folder / "labelsTs") == ["test_000.nii.gz", "test_001.nii.gz"]
    assert summary["cases"]["case_002"] == ["t1"] and summary["test_cases"] == ["test_000", "test_001"]
    assert summary["subsets"] == {"flair+t1+t1ce": 1, "flair+t1ce": 1, "t1": 1}
    content = json.loads((folder / "dataset.json").read_text())
    assert channel_names(content) == ["flair", "t1", "t1ce"] and content["numTraining"] == 3
    assert content["regions_class_order"] == [1, 2, 3]
    assert content["labels"]["tumor_core"] == [2, 3] and content["labels"]["enhancing_tumor"] == [3]


def test_files_hold_the_arrays_and_one_oblique_affine_that_simpleitk_reads(tmp_path):
    settings = PhantomSettings(size=(24, 28, 32), modalities=2, spacing_mm=(1, 1.5, 2))
    write_dataset(tmp_path, 7, "Toy", settings, 1, 1)
    images, labels = make_case(settings, FIRST_TEST_NUMBER)
    affine = make_affine(settings, FIRST_TEST_NUMBER)
    folder = tmp_path / "Dataset007_Toy"
    for path, expected in (("imagesTs/test_000_0001.nii.gz", np.rint(images[1])), ("labelsTs/test_000.nii.gz", labels)):
        image = nib.load(folder / path)
        assert np.array_equal(np.asarray(image.dataobj), expected)
        assert np.allclose(image.affine, affine, atol=1e-4) and abs(affine[0, 1]) > 1e-4
        read = sitk.ReadImage(str(folder / path))
        assert np.allclose(read.GetSpacing(), (1, 1.5, 2), atol=1e-5)
        assert np.array_equal(sitk.GetArrayFromImage(read).T, expected)


def test_nnunet_accepts_a_complete_data_set(tmp_path):
    from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity

    write_dataset(tmp_path, 7, "Toy", SMALL, 2, 1)
    verify_dataset_integrity(str(tmp_path / "Dataset007_Toy"), num_processes=1)


def test_test_cases_do_not_depend_on_the_number_of_training_cases(tmp_path):
    for name, count in (("Few", 1), ("More", 2)):
        write_dataset(tmp_path / name, 7, name, SMALL, count, 1)
    few, more = (nib.load(tmp_path / n / f"Dataset007_{n}/imagesTs/test_000_0000.nii.gz") for n in ("Few", "More"))
    assert np.array_equal(few.get_fdata(), more.get_fdata())


def test_an_existing_folder_is_refused_unless_it_may_be_replaced(tmp_path):
    write_dataset(tmp_path, 7, "Toy", SMALL, 1, 0)
    with pytest.raises(NnmissError, match="exists already"):
        write_dataset(tmp_path, 7, "Toy", SMALL, 2, 0)
    with pytest.raises(NnmissError, match="taken by Dataset007_Toy"):
        write_dataset(tmp_path, 7, "Other", SMALL, 1, 0)
    write_dataset(tmp_path, 7, "Toy", SMALL, 2, 0, overwrite=True)
    assert len(files(tmp_path / "Dataset007_Toy" / "labelsTr")) == 2 and files(tmp_path) == ["Dataset007_Toy"]


def test_an_interrupted_run_leaves_nothing_and_keeps_what_was_there(tmp_path, monkeypatch):
    write_dataset(tmp_path, 7, "Toy", SMALL, 1, 0)
    before = (tmp_path / "Dataset007_Toy" / "imagesTr" / "case_000_0000.nii.gz").read_bytes()

    def interrupted(image, path, saves=[]):  # noqa: B006 (counts calls)
        saves.append(path)
        if len(saves) == 3:
            raise KeyboardInterrupt
        path.write_bytes(b"half")

    monkeypatch.setattr(nib, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_dataset(tmp_path, 7, "Toy", SMALL, 2, 0, overwrite=True)
    assert files(tmp_path) == ["Dataset007_Toy"]
    assert (tmp_path / "Dataset007_Toy" / "imagesTr" / "case_000_0000.nii.gz").read_bytes() == before


@pytest.mark.parametrize("arguments, message", [
    ({"size": 23}, "24 to 160"), ({"size": (40, 40)}, "24 to 160"), ({"modalities": 1}, "at least 2"),
    ({"difficulty": 1.5}, "from 0 to 1"), ({"spacing_mm": 0}, "positive")])
def test_settings_out_of_range_are_refused(arguments, message):
    with pytest.raises(NnmissError, match=message):
        PhantomSettings(**arguments)


@pytest.mark.parametrize("missing, message", [
    ({"case_009": ["t1"]}, "not a training case"), ({"case_000": ["t9"]}, "not in this data set"),
    ({"case_000": ["flair", "t1", "t1ce"]}, "no file at all"),
    ({"case_000": ["t1"], "case_001": ["t1"]}, "no training case would have modality t1"), (1.5, "from 0 to 1")])
def test_impossible_missing_files_are_refused_before_anything_is_written(tmp_path, missing, message):
    with pytest.raises(NnmissError, match=message):
        write_dataset(tmp_path, 7, "Toy", SMALL, 2, 0, missing)
    assert files(tmp_path) == []


def test_the_command_writes_data_and_figure_and_says_which_subsets_occur(tmp_path, run):
    figure = tmp_path / "case.png"
    done = run("-o", tmp_path / "raw", "-d", 9, "--name", "Toy", "--num_training", 4, "--num_test", 1, "--size", 24,
               "--num_modalities", 3, "--missing_rate", 0.5, "--figure", figure)
    assert done.returncode == 0, done.stderr
    assert len(files(tmp_path / "raw" / "Dataset009_Toy" / "labelsTr")) == 4
    assert "2  flair+t1+t1ce\n" in done.stdout
    assert figure.read_bytes()[:4] == b"\x89PNG"


def test_the_command_says_what_is_wrong_without_a_traceback(tmp_path, run):
    for wrong, message in ((("--size", 10), "24 to 160"), (("--size", 30, 30), "one number or three"),
                           (("--figure", "x.xyz"), "must end in"), (("-d", 0), "from 1 to 999"),
                           (("--name", "a/b"), "letters")):
        done = run("-o", tmp_path, *wrong)
        assert done.returncode == 1 and message in done.stderr
    assert files(tmp_path) == []
