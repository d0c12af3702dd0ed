"""The command nnmiss_plan_and_preprocess: its files, its messages and its exit codes."""
from __future__ import annotations

import json
import os
import shutil
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from skimage import io as skimage_io

import nnmiss.cli.plan_and_preprocess as command

CHANNELS = ("flair", "t1", "t2")
SHAPE = (20, 22, 24)


def write_image(path, array, spacing=(1.0, 1.0, 1.0)):
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    sitk.WriteImage(image, str(path), True)


def write_dataset(root, identifier=310, cases=4, holes=(), name="Test", shape=SHAPE, **changes):
    """Noise with a bright box that is labelled; `holes` are (case, channel) pairs left out. Returns the folder."""
    folder = Path(root) / f"Dataset{identifier:03d}_{name}"
    rng = np.random.default_rng(0)
    for sub in ("imagesTr", "labelsTr"):
        (folder / sub).mkdir(parents=True)
    content = {"channel_names": dict(zip("012", CHANNELS)), "numTraining": cases, "file_ending": ".nii.gz",
               "labels": {"background": 0, "rim": 1, "core": 2}, **changes}
    for number in range(cases):
        seg = np.zeros(shape, dtype=np.uint8)
        seg[5:15, 6:16, 7:17] = 1
        seg[8:12, 8:12, 8:12] = 2
        write_image(folder / "labelsTr" / f"c{number}.nii.gz", seg)
        for channel in range(len(content["channel_names"])):
            image = (rng.normal(100, 10, shape) + 50 * seg).astype(np.float32)
            if (number, channel) not in holes:
                write_image(folder / "imagesTr" / f"c{number}_{channel:04d}.nii.gz", image)
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """nnU-Net's folders, and a fingerprint that draws few voxels; returns (raw, preprocessed)."""
    for name in ("raw", "preprocessed", "results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    monkeypatch.setattr(command, "PrepareOptions", partial(command.PrepareOptions, num_foreground_voxels=10_000))
    return tmp_path / "raw", tmp_path / "preprocessed"


@pytest.fixture
def run(monkeypatch, capsys):
    """Calls the command; returns exit code, stdout and stderr."""
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["nnmiss_plan_and_preprocess", *map(str, arguments), "-np", "1", "--no_pbar"])
        with pytest.raises(SystemExit) as end:
            command.main()
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err + captured.out
        return end.value.code, captured.out, captured.err
    return call


def listed(folder, name):
    return sorted(nnUNetDatasetBlosc2.get_identifiers(str(folder / name)))


def test_main_job_with_holes(folders, run):
    write_dataset(folders[0], holes=[(0, 1), (1, 0), (1, 2)])
    code, out, err = run("-d", 310, "--verify_dataset_integrity")
    assert (code, err) == (0, "")
    folder = folders[1] / "Dataset310_Test"
    for configuration in ("2d", "3d_fullres"):
        assert listed(folder, f"nnMissPlans_{configuration}") == ["c0", "c1", "c2", "c3"]
    for file in ("availability.json", "nnMissPlans.json", "dataset.json", "dataset_fingerprint.json", "subsets.csv",
                 "subsets.md", "subsets.png", "gt_segmentations/c3.nii.gz"):
        assert (folder / file).is_file()
    assert json.loads((folder / "availability.json").read_text()) == {
        "modalities": list(CHANNELS), "blank": {}, "blank_is_missing": False,
        "cases": {"c0": [True, False, True], "c1": [False, True, False], "c2": [True] * 3, "c3": [True] * 3}}
    assert "3d_lowres for this data set, skipped" in out and "every image and label was read" in out
    assert out.rstrip().endswith("Next: nnmiss_train 310 metakd 0")
    assert not [p for p in folder.rglob("*") if ".tmp" in p.name or p.name == ".partial"]


def spoil_json(folder, **changes):
    path = folder / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def truncate(path):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def nan(path):
    write_image(path, np.full(SHAPE, np.nan, dtype=np.float32))


BAD_DATA = {
    "no channel at all": (lambda f: [p.unlink() for p in (f / "imagesTr").glob("c1_*")],
                          ["case c1 has no channel file at all"]),
    "channel beyond names": (lambda f: shutil.copy(f / "imagesTr" / "c1_0000.nii.gz", f / "imagesTr" / "c1_0007.nii.gz"),
                             ["case c1", "c1_0007.nii.gz is channel 7", "0 to 2"]),
    "no label": (lambda f: (f / "labelsTr" / "c1.nii.gz").unlink(), ["case c1 has no label file"]),
    "shapes differ": (lambda f: write_image(f / "imagesTr" / "c1_0001.nii.gz", np.ones((4, 5, 6), dtype=np.float32)),
                      ["case c1", "c1_0001.nii.gz", "shapes differ"]),
    "affines differ": (lambda f: write_image(f / "imagesTr" / "c1_0001.nii.gz", np.ones(SHAPE, dtype=np.float32),
                                             (1, 1, 3)), ["case c1", "c1_0001.nii.gz", "affines differ"]),
    "label off the grid": (lambda f: write_image(f / "labelsTr" / "c1.nii.gz", np.ones(SHAPE, dtype=np.uint8), (1, 2, 1)),
                           ["case c1", "labelsTr/c1.nii.gz", "affines differ"]),
    "unknown label": (lambda f: write_image(f / "labelsTr" / "c1.nii.gz", np.full(SHAPE, 7, dtype=np.uint8)),
                      ["case c1", "unknown values: 7"]),
    "nan": (lambda f: nan(f / "imagesTr" / "c1_0001.nii.gz"), ["case c1", "c1_0001.nii.gz", "NaN or Inf"]),
    "truncated gzip": (lambda f: truncate(f / "imagesTr" / "c1_0001.nii.gz"), ["case c1", "c1_0001.nii.gz", "truncated"]),
    "truncated label": (lambda f: truncate(f / "labelsTr" / "c1.nii.gz"), ["case c1", "c1.nii.gz", "truncated"]),
    "first file garbage": (lambda f: (f / "imagesTr" / "c0_0000.nii.gz").write_bytes(b"x" * 99),
                           ["case c0", "c0_0000.nii.gz", "cannot be read"]),
    "numTraining": (lambda f: spoil_json(f, numTraining=9), ['"numTraining": 9', "there are 4 training cases"]),
    "file ending": (lambda f: spoil_json(f, file_ending=".nrrd"), ["no file ending in .nrrd"]),
    "unknown ending": (lambda f: [spoil_json(f, file_ending=".gz"), [p.rename(p.parent / p.name.replace(".nii.gz", ".gz"))
                                  for p in f.rglob("*.nii.gz")]], ["nnU-Net cannot read", ".nii.gz"]),
    "labels": (lambda f: spoil_json(f, labels={"background": 0, "core": 2}), ["consecutive", "[0, 2]"]),
    "no labels key": (lambda f: (f / "dataset.json").write_text('{"channel_names": {}}'),
                      ["lacks labels, numTraining, file_ending"]),
    "not json": (lambda f: (f / "dataset.json").write_text("{"), ["not valid JSON"]),
    "no dataset.json": (lambda f: (f / "dataset.json").unlink(), ["dataset.json not found"]),
    "one channel": (lambda f: spoil_json(f, channel_names={"0": "flair"}), ["at least two modalities"]),
    "modality of no case": (lambda f: spoil_json(f, channel_names=dict(zip("0123", [*CHANNELS, "t1ce"]))),
                            ["no training case has modality t1ce"]),
    "dangling link": (lambda f: [(f / "imagesTr" / "c1_0001.nii.gz").unlink(),
                                 (f / "imagesTr" / "c1_0001.nii.gz").symlink_to(f / "gone")],
                      ["case c1", "c1_0001.nii.gz", "No such file"]),
    "folder as file": (lambda f: [(f / "imagesTr" / "c1_0001.nii.gz").unlink(),
                                  (f / "imagesTr" / "c1_0001.nii.gz").mkdir()],
                       ["case c1", "c1_0001.nii.gz", "directory"]),
    "name that nnU-Net uses": (lambda f: [p.rename(p.parent / p.name.replace("c1", "c0_seg"))
                                          for p in f.rglob("c1*.nii.gz")], ["case c0_seg", "may not end in _seg"]),
    "classification": (lambda f: spoil_json(f, task="multiclass", modalities={}), ["at least two modalities"]),
    "no images folder": (lambda f: shutil.rmtree(f / "imagesTr"), ["imagesTr not found"]),
}


@pytest.mark.parametrize("kind", BAD_DATA)
def test_bad_raw_data_is_named_before_anything_is_planned(folders, run, kind):
    raw = write_dataset(folders[0])
    spoil, messages = BAD_DATA[kind]
    spoil(raw)
    code, _, err = run("-d", 310)
    assert code == 1 and err.startswith("error: ")
    assert all(message in err for message in messages), err
    folder = folders[1] / raw.name
    assert not (folder / "nnMissPlans.json").exists() and not list(folder.glob("nnMissPlans_*"))


def test_all_problems_are_listed_at_once(folders, run):
    raw = write_dataset(folders[0])
    truncate(raw / "imagesTr" / "c1_0001.nii.gz")
    truncate(raw / "imagesTr" / "c3_0000.nii.gz")
    _, _, err = run("-d", 310)
    assert "2 problems" in err and "case c1" in err and "case c3" in err


@pytest.mark.parametrize(("arguments", "message"), [
    (["-d", 310, "-c", "3d_cascade_fullres"], "the cascade 3d_cascade_fullres is not supported"),
    (["-d", 310, "-c", "3d_fulres"], "Did you mean 3d_fullres"),
    (["-d", 310, "-c", "3d_lowres"], "no configuration '3d_lowres'"),
    (["-d", 310, "-pl", "nnMissPlannerResEnc"], "unknown planner"),
    (["-d", 310, "--splits", "official"], "neither a file nor a preset"),
    (["-d", 311], "no data set has id 311"),
    (["-d", "Dataset310_Tset"], "Did you mean Dataset310_Test"),
    (["-d", 310, "-overwrite_target_spacing", 1, 0, 1], "must be positive"),
])
def test_bad_options(folders, run, arguments, message):
    write_dataset(folders[0])
    code, _, err = run(*arguments)
    assert code == 1 and message in err


@pytest.mark.parametrize("variable", ["nnUNet_raw", "nnUNet_preprocessed"])
def test_missing_environment_variable(folders, run, monkeypatch, variable):
    monkeypatch.delenv(variable)
    code, _, err = run("-d", 310)
    assert code == 1 and f"{variable} is not set" in err


def test_unwritable_output_folder(folders, run, monkeypatch, tmp_path):
    write_dataset(folders[0])
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "file"))
    code, _, err = run("-d", 310)
    assert code == 1 and "cannot write to folder" in err


def test_several_data_sets_with_one_id_and_one_bad_data_set_among_good_ones(folders, run):
    write_dataset(folders[0], 310)
    write_dataset(folders[0], 310, name="Other")
    write_dataset(folders[0], 311)
    code, out, err = run("-d", 310, 311, "--no_pp")
    assert code == 1 and "several data sets have id 310: Dataset310_Other, Dataset310_Test" in err
    assert (folders[1] / "Dataset311_Test" / "nnMissPlans.json").is_file()
    assert "Dataset311_Test" in out


def test_a_case_that_fails_in_preprocessing_is_named_and_the_others_finish(folders, run):
    raw = write_dataset(folders[0])
    for file in [*(raw / "imagesTr").glob("c1*"), raw / "labelsTr" / "c1.nii.gz"]:
        image = sitk.ReadImage(str(file))
        image.SetSpacing((1000.0, 1000.0, 1000.0))  # micrometres: nothing is wrong with it until it is to be resampled
        sitk.WriteImage(image, str(file))
    code, _, err = run("-d", 310, "-c", "3d_fullres")
    assert code == 1 and "1 case(s) failed" in err and "case c1" in err and "is the unit in the header not mm?" in err
    assert listed(folders[1] / raw.name, "nnMissPlans_3d_fullres") == ["c0", "c2", "c3"]


def test_an_old_file_moved_into_the_place_of_another_is_noticed(folders, run):
    raw = write_dataset(folders[0])
    assert run("-d", 310, "--no_pp")[0] == 0
    label = raw / "labelsTr" / "c1.nii.gz"
    write_image(label, np.full(SHAPE, 7, dtype=np.uint8))
    os.utime(label, (0, 0))
    code, out, err = run("-d", 310, "--no_pp")
    assert code == 1 and "c1.nii.gz changed" in out and "unknown values: 7" in err


def test_a_changed_file_is_noticed_without_clean(folders, run):
    raw = write_dataset(folders[0])
    assert run("-d", 310, "--no_pp")[0] == 0
    nan(raw / "imagesTr" / "c1_0001.nii.gz")
    code, out, err = run("-d", 310, "--no_pp")
    assert code == 1 and "c1_0001.nii.gz changed" in out and "NaN or Inf" in err


def test_blank_files_with_and_without_the_flag(folders, run):
    raw = write_dataset(folders[0])
    write_image(raw / "imagesTr" / "c1_0001.nii.gz", np.full(SHAPE, 5, dtype=np.float32))
    code, out, _ = run("-d", 310, "--no_pp")
    assert code == 0 and "1 channel file(s) are blank" in out and "c1: t1" in out and "treated as images" in out
    code, out, _ = run("-d", 310, "--no_pp", "--blank_is_missing")
    assert code == 0 and "treated as missing" in out and "extracted anew, because blank files are now missing" in out
    plans = json.loads((folders[1] / raw.name / "nnMissPlans.json").read_text())
    assert plans["configurations"]["2d"]["nnmiss"]["blank_is_missing"] is True


def test_splits_from_a_file(folders, run, tmp_path):
    raw = write_dataset(folders[0])
    splits = tmp_path / "my_splits.json"
    splits.write_text(json.dumps([{"train": ["c0", "c1", "c2"], "val": ["c3", "c9"]}]))
    code, _, err = run("-d", 310, "--no_pp", "--splits", splits)
    assert code == 1 and "unknown cases c9" in err
    splits.write_text(json.dumps([{"train": ["c0", "c1", "c2"], "val": ["c3"]}]))
    assert run("-d", 310, "--no_pp", "--splits", splits)[0] == 0
    installed = folders[1] / raw.name / "splits_final.json"
    assert json.loads(installed.read_text()) == json.loads(splits.read_text())
    (raw / "splits_final.json").write_text(json.dumps([{"train": ["c3"], "val": ["c0"]}]))
    code, _, err = run("-d", 310, "--no_pp")
    assert code == 1 and "differs from the splits shipped" in err
    installed.unlink()
    assert run("-d", 310, "--no_pp")[0] == 0
    assert json.loads(installed.read_text()) == [{"train": ["c3"], "val": ["c0"]}]


def test_residual_encoder_by_nnunets_name_shares_data(folders, run):
    raw = write_dataset(folders[0], holes=[(0, 0)])
    code, out, _ = run("-d", 310, "-pl", "nnUNetPlannerResEncM", "-c", "3d_fullres")
    assert code == 0 and out.rstrip().endswith("Next: nnmiss_train 310 metakd 0 -p nnMissResEncUNetMPlans")
    plans = json.loads((folders[1] / raw.name / "nnMissResEncUNetMPlans.json").read_text())
    assert plans["configurations"]["3d_fullres"]["architecture"]["network_class_name"].endswith("ResidualEncoderUNet")
    assert len(listed(folders[1] / raw.name, "nnMissPlans_3d_fullres")) == 4


def test_low_resolution_is_planned_and_preprocessed(folders, run):
    raw = write_dataset(folders[0], cases=2, holes=[(0, 0)], shape=(64, 64, 64))
    code, out, err = run("-d", 310, "-gpu_memory_target", 0.03, "-c", "3d_lowres", "-overwrite_plans_name", "small")
    assert code == 0, err
    plans = json.loads((folders[1] / raw.name / "small.json").read_text())
    assert "3d_cascade_fullres" in plans["configurations"]
    assert len(listed(folders[1] / raw.name, "small_3d_lowres")) == 2
    assert out.rstrip().endswith("Next: nnmiss_train 310 metakd 0 -c 3d_lowres -p small")


def test_two_dimensional_png_with_holes_and_regions(folders, run):
    raw = folders[0] / "Dataset320_Png"
    for sub in ("imagesTr", "labelsTr"):
        (raw / sub).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(3):
        seg = np.zeros((40, 48), dtype=np.uint8)
        seg[10:20, 10:20], seg[12:15, 12:15] = 1, 2
        save = partial(skimage_io.imsave, check_contrast=False)
        save(raw / "labelsTr" / f"c{number}.png", seg)
        for channel in range(2):
            if (number, channel) != (1, 0):
                save(raw / "imagesTr" / f"c{number}_{channel:04d}.png", rng.integers(0, 200, seg.shape, dtype=np.uint8))
    (raw / "dataset.json").write_text(json.dumps({
        "channel_names": {"0": "red", "1": "green"}, "numTraining": 3, "file_ending": ".png",
        "labels": {"background": 0, "whole": [1, 2], "core": [2]}, "regions_class_order": [1, 2]}))
    code, out, err = run("-d", 320)
    assert code == 0, err
    assert listed(folders[1] / raw.name, "nnMissPlans_2d") == ["c0", "c1", "c2"]
    assert out.rstrip().endswith("Next: nnmiss_train 320 metakd 0 -c 2d")


def test_explicit_dataset_with_null(folders, run):
    raw = write_dataset(folders[0], cases=3)
    images = {f"c{n}": [f"imagesTr/c{n}_{c:04d}.nii.gz" for c in range(3)] for n in range(3)}
    images["c1"][0] = None
    spoil_json(raw, dataset={n: {"images": files, "label": f"labelsTr/{n}.nii.gz"} for n, files in images.items()})
    code, _, err = run("-d", 310, "-c", "3d_fullres")
    assert code == 0, err
    table = json.loads((folders[1] / raw.name / "availability.json").read_text())
    assert table["cases"] == {"c0": [True] * 3, "c1": [False, True, True], "c2": [True] * 3}


def test_ctrl_c(folders, run, monkeypatch):
    write_dataset(folders[0])

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("nnmiss.planners.prepare_dataset.make_plan", interrupt)
    code, _, err = run("-d", 310)
    assert code == 130 and "interrupted" in err
