"""Converters: the open_ms folder as downloaded, with holes and bad files, becomes an nnU-Net raw data set."""
from __future__ import annotations

import gzip
import json
import os
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from brats_folders import files, run_converter
from scipy.ndimage import gaussian_filter

from nnmiss.dataset_conversion import CONVERTERS, open_ms
from nnmiss.dataset_conversion.open_ms import Options
from nnmiss.dataset_conversion.resample import resample_image, resample_label
from nnmiss.dataset_conversion.source_files import read_nifti
from nnmiss.errors import NnmissError

SUFFIX = "_N4_noneck_reduced_winsor_regtoFLAIR_brain_N4_regtoMNI.nii.gz"
KINDS = {"FLAIR": "flair", "T1": "t1", "T1POST": "t1ce", "T2": "t2"}
PATIENTS = ("patient07", "patient19", "patient26")
AFFINE = np.array([[-1.0, 0, 0, 9], [0, 1, 0, -12], [0, 0, 1, -7], [0, 0, 0, 1]])
SHAPE = (18, 20, 16)
REAL_DATA = Path(os.environ.get("NNMISS_TEST_DATA") or Path(__file__).parents[2] / "shared" / "data") / "open_ms_mni"


def volume(seed):
    """A smooth 'brain' with exactly zero background and a few negative values, float32."""
    rng = np.random.default_rng(seed)
    ball = sum(((np.arange(n) - n / 2 + 0.5) / n * 2) .reshape([-1 if i == k else 1 for i in range(3)]) ** 2
               for k, n in enumerate(SHAPE)) < 0.8
    image = np.where(ball, 100 + 30 * rng.standard_normal(SHAPE), 0).astype(np.float32)
    image[9, 10, 8] = -3
    return image


def save(path, voxels, affine=AFFINE):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, affine), path)
    return path


def lesion(size=3):
    label = np.zeros(SHAPE, np.uint8)
    label[8:8 + size, 8:8 + size, 7:7 + size] = 1
    return label


@pytest.fixture
def source(tmp_path):
    """Three complete patients laid out as in the open_ms snapshot, with its other files."""
    folder = tmp_path / "open_ms"
    for number, patient in enumerate(PATIENTS):
        for index, kind in enumerate(KINDS):
            save(folder / patient / (kind + SUFFIX), volume(10 * number + index))
        save(folder / patient / "GOLD_STANDARD_N4_noneck_reduced_winsor_regtoFLAIR_regtoMNI.nii.gz", lesion())
        save(folder / patient / "patient_brainmask.nii.gz", lesion())
    (folder / "README.md").write_text("not a patient")
    (folder / "scripts").mkdir()
    return folder


def convert(source, tmp_path, **options):
    return open_ms.convert([source], tmp_path / "raw", 5, Options(**options))


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs the command in this process: run(arguments, **environment) -> exit code, stdout, stderr."""
    return partial(run_converter, monkeypatch, capsys)


def test_channels_are_flair_t1_t1ce_t2_byte_by_byte_with_their_negative_values(source, tmp_path):
    summary = convert(source, tmp_path)
    folder = tmp_path / "raw" / "Dataset005_OpenMS"
    assert summary.folder == folder and not summary.failed
    assert summary.training == {p: list(open_ms.MODALITIES) for p in PATIENTS}
    for channel, kind in enumerate(("FLAIR", "T1", "T1POST", "T2")):
        written = folder / "imagesTr" / f"patient07_{channel:04d}.nii.gz"
        assert written.read_bytes() == (source / "patient07" / (kind + SUFFIX)).read_bytes()
    label = nib.load(folder / "labelsTr" / "patient07.nii.gz")
    assert np.array_equal(np.asarray(label.dataobj), lesion()) and label.get_data_dtype() == np.uint8
    assert np.array_equal(label.affine, AFFINE)
    content = json.loads((folder / "dataset.json").read_text())
    assert content["channel_names"] == {"0": "flair", "1": "t1", "2": "t1ce", "3": "t2"}
    assert content["labels"] == {"background": 0, "lesion": 1} and content["numTraining"] == 3
    assert files(folder) == ["dataset.json", "imagesTr", "labelsTr"]


def test_nnunet_accepts_the_converted_data_set(source, tmp_path):
    from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity

    verify_dataset_integrity(str(convert(source, tmp_path, spacing_mm=[2.0]).folder), num_processes=1)


def test_held_out_patient_dropped_files_and_leave_one_out_split(source, tmp_path):
    summary = convert(source, tmp_path, test=["patient26"], demo_split=True,
                      drop=["patient07:T1ce", "patient19:t2", "patient26:t1"])
    assert summary.training == {"patient07": ["flair", "t1", "t2"], "patient19": ["flair", "t1", "t1ce"]}
    assert summary.test == {"patient26": ["flair", "t1ce", "t2"]}
    assert files(summary.folder / "imagesTs") == [f"patient26_000{c}.nii.gz" for c in (0, 2, 3)]
    assert files(summary.folder / "labelsTs") == ["patient26.nii.gz"]
    assert json.loads((summary.folder / "splits_final.json").read_text()) == [
        {"train": ["patient19"], "val": ["patient07"]}, {"train": ["patient07"], "val": ["patient19"]}]
    assert [s.split(",")[0] for s in summary.untrained()] == [
        "fold 0: no training case has t2", "fold 1: no training case has t1ce"]


def test_official_file_names_uncompressed_files_and_source_holes_are_converted(tmp_path):
    source = tmp_path / "official"
    for kind in ("T1W", "T1WKS", "consensus_gt", "brainmask"):
        image = lesion() if kind in ("consensus_gt", "brainmask") else volume(len(kind))
        save(source / "patient01" / f"patient01_{kind}.nii", image)
    summary = convert(source, tmp_path)
    assert summary.training == {"patient01": ["t1", "t1ce"]}
    written = nib.load(summary.folder / "imagesTr" / "patient01_0002.nii.gz")
    assert np.array_equal(written.get_fdata(), volume(len("T1WKS"))) and np.array_equal(written.affine, AFFINE)


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


BAD_PATIENTS = {
    "truncated gzip": (lambda p: truncate(p / f"T1{SUFFIX}"), "T1_N4.*cannot be read as NIfTI"),
    "checksum cut off": (lambda p: (p / f"T1{SUFFIX}").write_bytes((p / f"T1{SUFFIX}").read_bytes()[:-4]), "T1_N4"),
    "junk header": (lambda p: (p / f"T2{SUFFIX}").write_bytes(gzip.compress(b"\xff" * 5000)), "T2_N4.*cannot be read"),
    "not an image": (lambda p: (p / f"T2{SUFFIX}").write_bytes(gzip.compress(b"hello")), "T2_N4.*cannot be read"),
    "other shape": (lambda p: save(p / f"T2{SUFFIX}", np.ones((4, 4, 4), np.float32)), "T2_N4.*shape"),
    "other affine": (lambda p: save(p / f"T2{SUFFIX}", volume(0), AFFINE + np.diag([.01, 0, 0, 0])), "T2_N4.*affine"),
    "4-D": (lambda p: save(p / f"T2{SUFFIX}", np.ones((*SHAPE, 2), np.float32)), "T2_N4.*three-dimensional"),
    "NaN": (lambda p: save(p / f"FLAIR{SUFFIX}", volume(0) * np.nan), "FLAIR_N4.*NaN"),
    "unknown label": (lambda p: save(next(p.glob("GOLD*")), lesion() * 7), "GOLD_STANDARD.*values \\[7\\]"),
    "no label": (lambda p: next(p.glob("GOLD*")).unlink(), "no label file"),
    "no channel": (lambda p: [(p / (k + SUFFIX)).unlink() for k in KINDS], "no channel file at all"),
    "two of a kind": (lambda p: save(p / "T2_again.nii.gz", volume(0)), "both t2"),
}


@pytest.mark.parametrize("what", BAD_PATIENTS)
def test_a_bad_patient_is_named_and_the_others_are_converted(source, tmp_path, run, what):
    spoil, message = BAD_PATIENTS[what]
    spoil(source / "patient19")
    done = run("open_ms", "-i", source, "-o", tmp_path / "raw", "-d", 5)
    assert done.returncode == 1
    assert "error: patient19 was not converted" in done.stderr
    folder = tmp_path / "raw" / "Dataset005_OpenMS"
    assert files(folder / "labelsTr") == ["patient07.nii.gz", "patient26.nii.gz"]
    assert len(files(folder / "imagesTr")) == 8
    assert json.loads((folder / "dataset.json").read_text())["numTraining"] == 2
    with pytest.raises(NnmissError, match=message):  # nothing at all converts: the reason is in the message
        open_ms.convert([source / "patient19"], tmp_path / "alone", 5, Options())
    assert files(tmp_path / "alone") == []


def test_a_test_patient_needs_no_label(source, tmp_path):
    next((source / "patient26").glob("GOLD*")).unlink()
    summary = convert(source, tmp_path, test=["patient26"])
    assert not summary.failed and list(summary.test) == ["patient26"]
    assert "labelsTs" not in files(summary.folder)


@pytest.mark.parametrize("options, message", [
    ({"test": ["patient08"]}, "no patient 'patient08'.*patient07"), ({"drop": ["patient07"]}, "PATIENT:MODALITY"),
    ({"drop": ["patient07:t1c"]}, "Did you mean"), ({"drop": ["patient07:t1", "patient07:t1"]}, "has no t1 file"),
    ({"drop": [f"patient07:{m}" for m in KINDS.values()]}, "no channel file"), ({"spacing_mm": [1, 2]}, "one or three"),
    ({"spacing_mm": [-1]}, "positive"), ({"test": ["patient07", "patient19"], "demo_split": True}, "at least two")])
def test_wrong_options_are_refused_and_nothing_is_written(source, tmp_path, options, message):
    with pytest.raises(NnmissError, match=message):
        convert(source, tmp_path, **options)
    assert not (tmp_path / "raw").exists() or files(tmp_path / "raw") == []


def test_links_share_the_source_and_an_existing_data_set_is_refused(source, tmp_path):
    folder = convert(source, tmp_path, copy="link").folder
    original = source / "patient07" / f"T1{SUFFIX}"
    assert (folder / "imagesTr" / "patient07_0001.nii.gz").stat().st_ino == original.stat().st_ino
    with pytest.raises(NnmissError, match="exists already"):
        convert(source, tmp_path)
    again = convert(source, tmp_path, overwrite=True).folder
    assert (again / "imagesTr" / "patient07_0001.nii.gz").stat().st_ino != original.stat().st_ino and original.exists()


def test_resampled_image_equals_block_means_of_smooth_voxels_and_keeps_background_exactly_zero():
    image = np.zeros((24, 20, 16), np.float32)
    image[4:20, 4:16, 4:12] = 50 + 10 * gaussian_filter(np.random.default_rng(0).standard_normal((16, 12, 8)), 2.5)
    result = resample_image(nib.Nifti1Image(image, AFFINE), (2, 2, 2))
    blocks = image.reshape(12, 2, 10, 2, 8, 2).mean((1, 3, 5))
    voxels = result.get_fdata()
    assert voxels.shape == (12, 10, 8)
    assert np.array_equal(voxels != 0, blocks != 0)
    assert np.abs(voxels - blocks)[2:10, 2:8, 2:6].max() < 0.5
    assert np.allclose(result.affine[:3, 3], AFFINE[:3, :3] @ [0.5, 0.5, 0.5] + AFFINE[:3, 3])  # centre of a block


def test_a_linear_ramp_keeps_its_world_coordinates_at_any_spacing():
    affine = AFFINE @ np.diag([1.0, 1.2, 0.8, 1])
    index = np.indices((30, 25, 28)).reshape(3, -1)
    world = affine[:3, :3] @ index + affine[:3, 3:]
    image = (1000 + world[0] + 2 * world[1] - world[2]).reshape(30, 25, 28).astype(np.float32)
    for spacing in ((2.3, 1.7, 3.1), (0.7, 1.2, 0.5)):
        result = resample_image(nib.Nifti1Image(image, affine), spacing)
        assert np.allclose(nib.affines.voxel_sizes(result.affine), spacing)
        centre = tuple(n // 2 for n in result.shape)
        x, y, z = (result.affine @ [*centre, 1])[:3]
        assert result.get_fdata()[centre] == pytest.approx(1000 + x + 2 * y - z, abs=0.02)


def test_resampled_label_keeps_volume_and_takes_the_value_that_covers_most():
    label = np.zeros((24, 24, 24), np.uint8)
    label[4:14, 4:14, 4:14] = 1
    label[8:14, 8:14, 8:14] = 2
    voxels = resample_label(nib.Nifti1Image(label, AFFINE), (2, 2, 2)).get_fdata()
    assert np.array_equal(voxels, label[::2, ::2, ::2])
    small = np.zeros((24, 24, 24), np.uint8)
    small[5:7, 5:7, 5:8] = 1  # 12 voxels, none of the new ones is covered by half
    assert np.count_nonzero(resample_label(nib.Nifti1Image(small, AFFINE), (3, 3, 3)).get_fdata()) == 1
    assert not resample_label(nib.Nifti1Image(small * 0, AFFINE), (3, 3, 3)).get_fdata().any()


def test_every_converter_has_the_parts_the_command_needs():
    for module in CONVERTERS.values():
        assert module.DESCRIPTION and 1 <= module.DEFAULT_ID <= 999
        assert callable(module.add_arguments) and callable(module.convert) and module.Options().overwrite is False
        assert module.Options().disable_progress_bar is False


def test_the_command_lists_and_names_the_nearest_and_needs_a_folder(source, tmp_path, run):
    assert "open_ms" in run("--list").stdout
    wrong = run("openms", "-i", source)
    assert wrong.returncode == 1 and "Did you mean open_ms?" in wrong.stderr
    nowhere = run("open_ms", "-i", source, nnUNet_raw="")
    assert nowhere.returncode == 1 and "nnUNet_raw" in nowhere.stderr
    absent = run("open_ms", "-i", tmp_path / "nothing", "-o", tmp_path)
    assert absent.returncode == 1 and "does not exist" in absent.stderr
    empty = run("open_ms", "-i", tmp_path / "open_ms" / "scripts", "-o", tmp_path)
    assert empty.returncode == 1 and "no patients in" in empty.stderr


@pytest.mark.parametrize("name", list(CONVERTERS))
def test_a_wrong_flag_shows_the_converters_own_usage(name, run):
    wrong = run(name, "-i", "x", *(["--modality", "t1={case}.nii"] if name == "folder" else []), "--spacings", 2)
    assert wrong.returncode == 2 and f"usage: nnmiss_convert_dataset {name} " in wrong.stderr
    assert "unrecognized arguments: --spacings 2" in wrong.stderr


def test_the_command_says_what_lacks_which_modality(source, tmp_path, run):
    done = run("open_ms", "-i", source, "-d", 5, "--test", "patient26", "--drop", "patient07:t1ce", "--drop",
               "patient07:t1", "--spacing", 2, nnUNet_raw=str(tmp_path / "raw"))
    assert done.returncode == 0, done.stderr
    assert "training cases: 2; flair 2, t1 1, t1ce 1, t2 2" in done.stdout
    assert "patient07 lacks t1, t1ce" in done.stdout
    assert nib.load(tmp_path / "raw/Dataset005_OpenMS/imagesTs/patient26_0000.nii.gz").shape == (9, 10, 8)


@pytest.mark.skipif(not REAL_DATA.is_dir(), reason=f"no real data in {REAL_DATA} (set NNMISS_TEST_DATA)")
def test_real_patients_convert_with_their_lesion_volumes(tmp_path):
    summary = open_ms.convert([REAL_DATA], tmp_path, 5, Options(spacing_mm=[3.0], test=["patient26"]))
    assert not summary.failed and list(summary.training) == ["patient07", "patient19"]
    for case, part, volume_ml in (("patient07", "Tr", 1.3), ("patient19", "Tr", 49.769), ("patient26", "Ts", 8.227)):
        label = nib.load(summary.folder / f"labels{part}" / f"{case}.nii.gz").get_fdata()
        assert label.sum() * 0.027 == pytest.approx(volume_ml, abs=0.02)
        flair = read_nifti(summary.folder / f"images{part}" / f"{case}_0000.nii.gz").get_fdata()
        assert 0.1 < (flair != 0).mean() < 0.2 and flair[label > 0].mean() > flair[flair > 0].mean()
