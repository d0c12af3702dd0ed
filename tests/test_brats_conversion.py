"""BraTS converters: the downloads of every year, as they lie on people's disks, become raw data sets with regions."""
from __future__ import annotations

import gzip
import json
import re
import shutil
import sys
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from brats_folders import case_folders, file_name, make_brats_folder, save
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnmiss.brats_years import CHALLENGES, find_challenge
from nnmiss.cli import convert_dataset as convert_command
from nnmiss.dataset_conversion import CONVERTERS
from nnmiss.dataset_conversion.brats import Options
from nnmiss.errors import NnmissError
from nnmiss.export.label_names import label_names
from nnmiss.preprocessing.raw_dataset import list_training_cases

CONVERTED = [(year, name) for year, name in CHALLENGES if year <= 2025]
FOUR = ["flair", "t1", "t1ce", "t2"]


def convert(sources, tmp_path, year, **options):
    sources = sources if isinstance(sources, list) else [sources]
    return CONVERTERS[f"brats{year}"].convert(sources, tmp_path / "raw", 5, Options(**options))


def files(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def content(folder: Path) -> dict:
    return json.loads((folder / "dataset.json").read_text())


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs the command in this process: run(arguments) -> exit code, stdout, stderr."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            convert_command.main()
        out = capsys.readouterr()
        return SimpleNamespace(returncode=stop.value.code, stdout=out.out, stderr=out.err)

    return call


@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
@pytest.mark.parametrize("year, challenge", CONVERTED)
def test_every_year_keeps_images_headers_and_labels_voxel_by_voxel(tmp_path, year, challenge, ending):
    rules = find_challenge(year, challenge)
    truth = make_brats_folder(tmp_path / "in", year, challenge, ending=ending, shape=(12, 10, 8))
    folders = case_folders(tmp_path / "in", rules, 3, 2)
    summary = convert(tmp_path / "in", tmp_path, year, challenge=challenge)
    assert not summary.failed
    assert summary.training == {c: list(rules.modalities) for c, label in truth.items() if label is not None}
    assert summary.test == {c: list(rules.modalities) for c, label in truth.items() if label is None}

    written = content(summary.folder)
    assert list(written["channel_names"].values()) == list(rules.modalities)
    ours = written["brats"]["label_names"]
    assert written["brats"]["year"] == year and written["brats"]["challenge"] == challenge
    assert sorted(ours.values()) == list(range(1, len(rules.labels) + 1)) and set(ours) == set(rules.labels)
    assert label_names(written) == ours
    back = np.zeros(256, np.uint8)
    for name, value in ours.items():
        back[value] = rules.labels[name]
    for case, label in truth.items():
        for channel, modality in enumerate(rules.modalities):
            target = summary.folder / f"images{'Ts' if label is None else 'Tr'}" / f"{case}_{channel:04d}.nii.gz"
            source = (folders[case] / file_name(rules, case, modality, ending)).read_bytes()
            assert gzip.decompress(target.read_bytes()) == (source if ending == ".nii" else gzip.decompress(source))
        if label is not None:
            image = nib.load(summary.folder / "labelsTr" / f"{case}.nii.gz")
            assert image.get_data_dtype() == np.uint8 and int(image.header["sform_code"]) == 1
            assert np.array_equal(back[np.asanyarray(image.dataobj)], label)
            assert np.array_equal(image.get_qform(), nib.load(target).get_qform())


@pytest.mark.parametrize("year, challenge", CONVERTED)
def test_regions_are_those_of_the_year_and_nnunet_reads_them(tmp_path, year, challenge):
    rules = find_challenge(year, challenge)
    make_brats_folder(tmp_path / "in", year, challenge, num_training=1, num_validation=0, shape=(8, 8, 8))
    summary = convert(tmp_path / "in", tmp_path, year, challenge=challenge)
    written = content(summary.folder)
    manager = LabelManager(written["labels"], written.get("regions_class_order"))
    assert manager.all_labels == list(range(len(rules.labels) + 1))
    expected = {region: sorted(rules.labels[m] for m in members) for region, members in rules.regions().items()}
    to_source = {written["brats"]["label_names"][name]: value for name, value in rules.labels.items()}
    for region, members in expected.items():
        ours = written["labels"][region]
        assert sorted(to_source[v] for v in (ours if isinstance(ours, list) else [ours])) == members
    if challenge == "MEN-RT":
        assert not manager.has_regions and any("nnmiss needs two" in note for note in summary.notes)
        return
    # Writing all regions of a label over each other, as nnU-Net does, gives the label back.
    for label in manager.foreground_labels:
        regions = zip(manager.foreground_regions, written["regions_class_order"])
        assert [order for region, order in regions if label in region][-1] == label
    cases = list_training_cases(summary.folder, written)
    assert [sorted(case.files) for case in cases] == [[0, 1, 2, 3]]


def test_pediatric_labels_by_name():
    """Written out by hand: the one year whose integers mean something else."""
    from nnmiss.dataset_conversion.brats import _raw_dataset

    dataset = _raw_dataset(find_challenge(2024, "PED"), None)
    assert dataset.label_map == {0: 0, 1: 4, 2: 2, 3: 3, 4: 1}
    assert dataset.labels == {"background": 0, "whole_tumor": [1, 2, 3, 4], "tumor_core": [2, 3, 4],
                              "cystic_component": [3], "enhancing_tumor": [4]}
    assert dataset.extra["regions_class_order"] == [1, 2, 3, 4] and dataset.name == "BraTS2024_PED"


def test_cases_with_missing_files_are_converted_and_a_missing_segmentation_is_named(tmp_path, run):
    make_brats_folder(tmp_path / "in", 2020, num_training=4, shape=(8, 8, 8), drop={
        "BraTS20_Training_001": ["t1ce", "t1"], "BraTS20_Training_002": ["seg"], "BraTS20_Training_003": FOUR,
        "BraTS20_Validation_001": ["flair"]})
    done = run("brats2020", "-i", tmp_path / "in", "-o", tmp_path / "raw")
    assert done.returncode == 1
    assert "BraTS20_Training_001 lacks t1, t1ce" in done.stdout and "BraTS20_Validation_001 lacks flair" in done.stdout
    assert "error: BraTS20_Training_002 was not converted: no segmentation" in done.stderr
    assert "error: BraTS20_Training_003 was not converted: no channel file at all" in done.stderr
    folder = tmp_path / "raw" / "Dataset820_BraTS2020"
    assert files(folder / "labelsTr") == ["BraTS20_Training_001.nii.gz", "BraTS20_Training_004.nii.gz"]
    assert files(folder / "imagesTr")[:2] == [f"BraTS20_Training_001_000{k}.nii.gz" for k in (0, 3)]
    assert len(files(folder / "imagesTr")) == 2 + 4
    assert len(files(folder / "imagesTs")) == 3 + 4


def test_many_gaps_are_counted_not_listed(tmp_path, run):
    make_brats_folder(tmp_path / "in", 2021, num_training=25, num_validation=0, shape=(6, 6, 6),
                      drop={f"BraTS2021_{k:05d}": ["t2"] for k in range(24)})
    done = run("brats2021", "-i", tmp_path / "in", "-o", tmp_path / "raw")
    assert done.returncode == 0 and done.stdout.count(" lacks ") == 20 and "and 4 more cases lack" in done.stdout
    assert "flair 25, t1 25, t1ce 25, t2 1" in done.stdout


def test_grades_are_counted_and_folders_may_be_given_one_by_one(tmp_path):
    make_brats_folder(tmp_path / "in", 2018, shape=(6, 6, 6))
    apart = sorted((tmp_path / "in").iterdir())
    summary = convert([*apart, apart[0], apart[0] / "HGG"], tmp_path, 2018)  # twice, and a part of one: counted once
    assert not summary.failed and len(summary.training) == 3 and len(summary.test) == 2
    assert summary.notes[0] == "found 5 cases: 3 with segmentation (2 HGG, 1 LGG), 2 without"


def test_kaggle_copies(tmp_path):
    """Flat below a renamed folder, .nii that are folders, the misnamed segmentation, other tokens, .nii that is gzip."""
    make_brats_folder(tmp_path / "made", 2020, num_training=3, num_validation=0, ending=".nii", shape=(6, 6, 6))
    source = tmp_path / "archive"
    for path in (tmp_path / "made").rglob("*.nii"):
        source.mkdir(exist_ok=True)
        path.rename(source / path.name)
    folder = source / "BraTS20_Training_355"
    folder.mkdir()
    for kind in FOUR:
        shutil.copy(source / f"BraTS20_Training_001_{kind}.nii", folder / f"BraTS20_Training_355_{kind}.nii")
    shutil.copy(source / "BraTS20_Training_001_seg.nii", folder / "W39_1998.09.19_Segm.nii")
    inside = source / "BraTS20_Training_002_t1ce.nii"  # a folder of this name holds the file
    inside.rename(source / "waiting")
    inside.mkdir()
    (source / "waiting").rename(inside / "00000057_brain_t1ce.nii")
    (source / "BraTS20_Training_003_t1ce.nii").rename(source / "BraTS20_Training_003_t1Gd.NII")
    zipped = source / "BraTS20_Training_001_t2.nii"
    zipped.write_bytes(gzip.compress(zipped.read_bytes()))
    save(source / "brain_mask.nii.gz", np.ones((6, 6, 6), np.uint8))
    (source / "._BraTS20_Training_001_t1.nii").write_bytes(b"macOS")
    (source / "name_mapping.csv").write_text("Grade")
    summary = convert(source, tmp_path, 2020)
    assert not summary.failed
    assert summary.training == {f"BraTS20_Training_{k}": FOUR for k in ("001", "002", "003", "355")}
    notes = "\n".join(summary.notes)
    assert "W39_1998.09.19_Segm.nii" in notes and "1 NIfTI files were not used" in notes and "brain_mask" in notes
    labels = [nib.load(summary.folder / "labelsTr" / f"BraTS20_Training_{k}.nii.gz").get_fdata() for k in ("001", "355")]
    assert np.array_equal(*labels) and labels[0].any()


@pytest.mark.parametrize("names, test", [
    (("MICCAI_BraTS2020_TrainingData", "MICCAI_BraTS2020_ValidationData"), 2), (("train", "val"), 2), (("a", "b"), 0),
    (("training_data1_v2", "validation_data"), 2), (("BraTS-PEDs-v1/Training", "BraTS-PEDs-v1/Test"), 2),
    (("contest", "latest"), 0), (("my_test/train", "my_test/rest"), 0), (("train_and_validation/x", "valid"), 2)])
def test_where_cases_without_segmentation_go_is_told_by_folder_names(tmp_path, names, test):
    """The innermost folder that says training or validation decides; ids of 2021 say nothing."""
    make_brats_folder(tmp_path / "made", 2021, shape=(6, 6, 6))
    for made, name in zip(sorted((tmp_path / "made").iterdir()), names):
        (tmp_path / "plain" / name).parent.mkdir(parents=True, exist_ok=True)
        made.rename(tmp_path / "plain" / name)
    summary = convert(tmp_path / "plain", tmp_path, 2021)
    assert len(summary.training) == 3
    assert len(summary.test) == test or names[0].startswith("my_test")
    if names[0].startswith("my_test"):  # an outer folder says test, nothing inside contradicts
        assert len(summary.test) == 2
    assert len(summary.failed) == 2 - len(summary.test)


def test_a_source_without_any_segmentation_is_for_testing(tmp_path):
    make_brats_folder(tmp_path / "made", 2023, shape=(6, 6, 6))
    training, validation = sorted((tmp_path / "made").iterdir())
    training.rename(tmp_path / "one")
    validation.rename(tmp_path / "two")
    both = convert([tmp_path / "one", tmp_path / "two"], tmp_path, 2023)
    assert (len(both.training), len(both.test), both.failed) == (3, 2, {})
    alone = convert(tmp_path / "two", tmp_path / "alone", 2023)
    assert (len(alone.training), len(alone.test)) == (0, 2) and content(alone.folder)["numTraining"] == 0
    assert any("not trained on" in note for note in alone.notes)


def test_own_validation_folders_with_segmentations_become_test_cases_with_labels(tmp_path):
    make_brats_folder(tmp_path / "made", 2021, num_validation=0, shape=(6, 6, 6))
    folder = next((tmp_path / "made").iterdir())
    (folder / "val").mkdir()
    (folder / "BraTS2021_00001").rename(folder / "val" / "BraTS2021_00001")
    summary = convert(tmp_path / "made", tmp_path, 2021)
    assert list(summary.test) == ["BraTS2021_00001"] and files(summary.folder / "labelsTs") == ["BraTS2021_00001.nii.gz"]
    assert any("labelsTs: BraTS2021_00001" in note for note in summary.notes)


BAD_CASES = {
    "truncated": (lambda f: (f / "BraTS2021_00001_t1.nii.gz").write_bytes(
        (f / "BraTS2021_00001_t1.nii.gz").read_bytes()[:-30]), "_00001_t1.nii.gz cannot be read as NIfTI"),
    "empty": (lambda f: (f / "BraTS2021_00001_t2.nii.gz").write_bytes(b""), "_t2.nii.gz cannot be read as NIfTI"),
    "two files": (lambda f: shutil.copy(f / "BraTS2021_00001_t1.nii.gz", f / "BraTS2021_00001_t1w.nii.gz"), "two files"),
    "twice": (lambda f: shutil.copytree(f, f.parent / "copy" / f.name), "the case is there twice"),
    "wrong folder": (lambda f: (f / "BraTS2021_00001_t1.nii.gz").rename(
        f / "BraTS2021_00007_t1.nii.gz"), "lies in the folder of BraTS2021_00001"),
    "other label": (lambda f: save(f / "BraTS2021_00001_seg.nii.gz", np.full((6, 6, 6), 3, np.uint8)),
                    r"label values \[3\].*BraTS 2021"),
    "NaN": (lambda f: save(f / "BraTS2021_00001_t1.nii.gz", np.full((6, 6, 6), np.nan)), "NaN"),
    "half a voxel": (lambda f: save(f / "BraTS2021_00001_seg.nii.gz", np.full((6, 6, 6), 0.5)), r"label values \[0.5\]"),
    "other grid": (lambda f: save(f / "BraTS2021_00001_t1.nii.gz", np.ones((6, 6, 6)), np.eye(4)), "affines that differ"),
    "no voxels": (lambda f: save(f / "BraTS2021_00001_t1.nii.gz", np.ones((6, 6, 0))), "shape"),
    "colours": (lambda f: save(f / "BraTS2021_00001_t1.nii.gz", np.zeros(
        (6, 6, 6), [("R", "u1"), ("G", "u1"), ("B", "u1")])), "colours"),
}


@pytest.mark.parametrize("what", BAD_CASES)
def test_a_bad_case_is_named_and_the_others_are_converted(tmp_path, run, what):
    make_brats_folder(tmp_path / "in", 2021, shape=(6, 6, 6))
    spoil, message = BAD_CASES[what]
    spoil(next((tmp_path / "in").rglob("BraTS2021_00001")))
    done = run("brats2021", "-i", tmp_path / "in", "-o", tmp_path / "raw")
    assert done.returncode == 1
    assert "error: BraTS2021_00001 was not converted" in done.stderr
    folder = tmp_path / "raw" / "Dataset821_BraTS2021"
    assert files(folder / "labelsTr") == ["BraTS2021_00000.nii.gz", "BraTS2021_00002.nii.gz"]
    assert len(files(folder / "imagesTr")) == 8 and content(folder)["numTraining"] == 2
    summary = convert(tmp_path / "in", tmp_path / "again", 2021)
    assert re.search(message, summary.failed["BraTS2021_00001"])


def test_downloads_of_another_year_or_challenge_are_told(tmp_path, run):
    make_brats_folder(tmp_path / "in" / "new", 2021, shape=(6, 6, 6))
    refused = run("brats2020", "-i", tmp_path / "in", "-o", tmp_path / "raw")
    assert refused.returncode == 1 and "BraTS20_Training_001" in refused.stderr
    assert "5 cases have an id of another year" in refused.stderr and "convert with brats2021" in refused.stderr
    make_brats_folder(tmp_path / "in" / "old", 2020, shape=(6, 6, 6))
    mixed = run("brats2020", "-i", tmp_path / "in", "-o", tmp_path / "raw")
    assert mixed.returncode == 1 and "training cases: 3" in mixed.stdout
    assert "error: BraTS2021_00000, BraTS2021_00001, BraTS2021_00002 and 2 more was not" in mixed.stderr
    make_brats_folder(tmp_path / "met", 2023, "MET", shape=(6, 6, 6))
    with pytest.raises(NnmissError, match=r"convert with brats2023 --challenge MET$"):
        convert(tmp_path / "met", tmp_path, 2023)
    with pytest.raises(NnmissError, match="convert with brats2023 --challenge MET or brats2024 --challenge MET or"):
        convert(tmp_path / "met", tmp_path, 2021)


def test_pediatric_cases_of_2023_given_to_2024_are_pointed_out(tmp_path):
    """The ids are alike, but 1 was necrosis and became enhancing tumour: only the folder's name can tell."""
    make_brats_folder(tmp_path / "in", 2023, "PED", shape=(6, 6, 6))
    summary = convert(tmp_path / "in", tmp_path, 2024, challenge="PED")
    assert any("says 2023" in note and "right converter" in note for note in summary.notes)
    make_brats_folder(tmp_path / "gli", 2023, shape=(6, 6, 6))  # here 2024 only adds a label
    assert not any("says 2023" in note for note in convert(tmp_path / "gli", tmp_path / "g", 2024).notes)


def test_sources_that_are_no_download(tmp_path, run):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "MICCAI_BraTS2020_TrainingData.zip").write_bytes(b"PK")
    assert "unpack MICCAI_BraTS2020_TrainingData.zip" in run("brats2020", "-i", tmp_path / "in", "-o", tmp_path).stderr
    packed = run("brats2020", "-i", tmp_path / "in" / "MICCAI_BraTS2020_TrainingData.zip", "-o", tmp_path)
    assert "unpack it" in packed.stderr
    save(tmp_path / "in" / "anna" / "anna_t1.nii.gz", np.ones((4, 4, 4)))
    done = run("brats2020", "-i", tmp_path / "in", "-o", tmp_path / "raw")
    assert "anna/anna_t1.nii.gz" in done.stderr and "converter `folder`" in done.stderr and done.returncode == 1
    assert "does not exist" in run("brats2020", "-i", tmp_path / "nowhere", "-o", tmp_path).stderr
    assert run("brats2020", "-i", tmp_path / "in", "-o", tmp_path, "--challenge", "PED").returncode == 2
    assert "number of threads" in run("brats2018", "-i", make_one(tmp_path), "-o", tmp_path, "-np", 0).stderr
    assert not (tmp_path / "raw").exists() or files(tmp_path / "raw") == []


def make_one(tmp_path):
    make_brats_folder(tmp_path / "one", 2018, num_training=1, num_validation=0, shape=(4, 4, 4))
    return tmp_path / "one"


def test_links_and_blank_images(tmp_path):
    make_brats_folder(tmp_path / "in", 2021, shape=(6, 6, 6))
    case = next((tmp_path / "in").rglob("BraTS2021_00001"))
    save(case / "BraTS2021_00001_t2.nii.gz", np.zeros((6, 6, 6), np.int16))
    kept = convert(tmp_path / "in", tmp_path, 2021, copy="link")
    assert any("kept" in note and "BraTS2021_00001 t2" in note for note in kept.notes)
    assert (kept.folder / "imagesTr" / "BraTS2021_00001_0001.nii.gz").stat().st_ino == (
        case / "BraTS2021_00001_t1.nii.gz").stat().st_ino
    assert (kept.folder / "labelsTr" / "BraTS2021_00001.nii.gz").stat().st_nlink == 1
    left = convert(tmp_path / "in", tmp_path, 2021, blank_is_missing=True, overwrite=True)
    assert left.training["BraTS2021_00001"] == ["flair", "t1", "t1ce"]
    assert len(files(left.folder / "imagesTr")) == 11


def test_a_thousand_cases_convert_with_flat_memory(tmp_path):
    """Python's memory, voxels and paths together, stays below what the images of 300 of the 1000 cases would take."""
    make_brats_folder(tmp_path / "in", 2021, num_training=1, num_validation=0, shape=(20, 20, 20))
    made = next((tmp_path / "in").rglob("BraTS2021_00000"))
    for number in range(1, 1000):
        case = made.with_name(f"BraTS2021_{number:05d}")
        case.mkdir()
        for kind in ("flair", "t2", "seg"):
            (case / f"{case.name}_{kind}.nii.gz").hardlink_to(made / f"{made.name}_{kind}.nii.gz")
    tracemalloc.start()
    summary = convert(tmp_path / "in", tmp_path, 2021, copy="link")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(summary.training) == 1000 and len(files(summary.folder / "imagesTr")) == 2002
    one_case = 2 * 2 * 20**3  # bytes of its int16 images
    assert peak < 300 * one_case, f"{peak / one_case:.0f} cases"


def test_a_failing_thread_or_ctrl_c_leaves_nothing_behind(tmp_path, monkeypatch):
    """What is no NnmissError ends the conversion: no folder, and no thread that still writes."""
    from nnmiss.dataset_conversion import case_files

    make_brats_folder(tmp_path / "in", 2021, num_training=12, num_validation=0, shape=(6, 6, 6))
    real = case_files.read_label

    def interrupted(path, *rest):
        if "00003" in path.name:
            raise KeyboardInterrupt
        return real(path, *rest)

    monkeypatch.setattr(case_files, "read_label", interrupted)
    with pytest.raises(KeyboardInterrupt):
        convert(tmp_path / "in", tmp_path, 2021)
    assert files(tmp_path / "raw") == []
