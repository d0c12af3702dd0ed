"""BraTS converters: the downloads of every year become raw data sets with regions; bad cases are named."""
from __future__ import annotations

import errno
import gzip
import re
import shutil
import tracemalloc
from functools import partial

import nibabel as nib
import numpy as np
import pytest
from brats_folders import case_folders, content, convert, file_name, files, make_brats_folder, run_converter, save
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnmiss.brats_years import CHALLENGES, find_challenge
from nnmiss.export.label_names import label_names
from nnmiss.preprocessing.raw_dataset import list_training_cases

CONVERTED = [(year, name) for year, name in CHALLENGES if year <= 2025]
FOUR = ["flair", "t1", "t1ce", "t2"]


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs the command in this process: run(arguments) -> exit code, stdout, stderr."""
    return partial(run_converter, monkeypatch, capsys)


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


BAD_CASES = {
    "truncated": (lambda f: (f / "BraTS2021_00001_t1.nii.gz").write_bytes(
        (f / "BraTS2021_00001_t1.nii.gz").read_bytes()[:-30]), "_00001_t1.nii.gz cannot be read as NIfTI"),
    "empty": (lambda f: (f / "BraTS2021_00001_t2.nii.gz").write_bytes(b""),
              r"_t2.nii.gz is empty \(0 bytes\): download"),
    "two files": (lambda f: shutil.copy(f / "BraTS2021_00001_t1.nii.gz", f / "BraTS2021_00001_t1w.nii.gz"), "two files"),
    "twice": (lambda f: shutil.copytree(f, f.parent / "copy" / f.name), "the case is there twice"),
    "wrong folder": (lambda f: (f / "BraTS2021_00001_t1.nii.gz").rename(
        f / "BraTS2021_00007_t1.nii.gz"), "lies in the folder of BraTS2021_00001"),
    "other label": (lambda f: save(f / "BraTS2021_00001_seg.nii.gz", np.full((6, 6, 6), 3, np.uint8)),
                    r"label values \[3\].*BraTS 2021"),
    "NaN": (lambda f: save(f / "BraTS2021_00001_t1.nii.gz", np.full((6, 6, 6), np.nan)), "NaN"),
    "half a voxel": (lambda f: save(f / "BraTS2021_00001_seg.nii.gz", np.full((6, 6, 6), 0.5)), r"label values \[0.5\]"),
    "other grid": (lambda f: save(f / "BraTS2021_00001_t1.nii.gz", np.ones((6, 6, 6)), np.eye(4)),
                   r"t1.nii.gz is not on the grid of \S+flair.nii.gz, affines differ: .*origin \(0, 0, 0\) against "
                   r"\(0, 239, 0\) mm.*\(\S+t1.nii.gz against \S+flair.nii.gz\)"),
    "NaN affine": (lambda f: save(f / "BraTS2021_00001_t1.nii.gz", np.ones((6, 6, 6)), np.array(
        [[1, 0, 0, np.nan], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])),
                   "_t1.nii.gz has NaN or infinite numbers in the affine"),
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


@pytest.mark.parametrize("number, told", [(errno.EXDEV, "cannot cross file systems"), (errno.EPERM, "were refused (why)")])
def test_links_that_cannot_be_made_are_copies_and_noted_once(tmp_path, monkeypatch, number, told):
    def refuse(*_):
        raise OSError(number, "why")

    make_brats_folder(tmp_path / "in", 2021, num_training=2, num_validation=0, shape=(6, 6, 6))
    monkeypatch.setattr("os.link", refuse)
    summary = convert(tmp_path / "in", tmp_path, 2021, copy="link")
    assert [note for note in summary.notes if "copied" in note] == [f"8 images were copied, as hard links {told}"]
    assert len(files(summary.folder / "imagesTr")) == 8 and not summary.failed
    monkeypatch.undo()
    linked = convert(tmp_path / "in", tmp_path, 2021, copy="link", overwrite=True)
    assert not any("copied" in note for note in linked.notes)


def test_no_progress_bar_when_none_is_wanted(tmp_path, run):
    make_brats_folder(tmp_path / "in", 2021, shape=(6, 6, 6))
    assert "converting" in run("brats2021", "-i", tmp_path / "in", "-o", tmp_path / "a").stderr
    assert run("brats2021", "-i", tmp_path / "in", "-o", tmp_path / "b", "--disable_progress_bar").stderr == ""


def test_memory_does_not_grow_with_the_number_of_images(tmp_path):
    """What each further case adds to Python's memory, its paths and entries, is a fraction of one of its images."""
    make_brats_folder(tmp_path / "in", 2021, num_training=1, num_validation=0, shape=(20, 20, 20))
    made = next((tmp_path / "in").rglob("BraTS2021_00000"))
    peaks, counts = [], (100, 500)
    for count in counts:
        for number in range(count):
            case = made.with_name(f"BraTS2021_{number:05d}")
            case.mkdir(exist_ok=True)
            for kind in () if (case / f"{case.name}_seg.nii.gz").exists() else ("flair", "t2", "seg"):
                (case / f"{case.name}_{kind}.nii.gz").hardlink_to(made / f"{made.name}_{kind}.nii.gz")
        tracemalloc.start()
        summary = convert(tmp_path / "in", tmp_path / str(count), 2021, copy="link")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert len(summary.training) == count and len(files(summary.folder / "imagesTr")) == 2 * count + 2
    one_image = 2 * 20**3  # bytes, int16
    growth = (peaks[1] - peaks[0]) / (counts[1] - counts[0])
    assert growth < one_image / 2, f"{growth:.0f} bytes a case"


def test_images_a_tenth_of_a_voxel_apart_are_on_one_grid_and_further_ones_are_not(tmp_path):
    """The tolerance of preprocessing, evaluation and export, on both sides, for voxels of 2 x 2 x 3 mm."""
    make_brats_folder(tmp_path / "in", 2021, num_training=4, num_validation=0, shape=(6, 8, 21))
    for number, shift_mm in enumerate((0, 0.19, 0.21, -0.21)):
        case = next((tmp_path / "in").rglob(f"BraTS2021_{number:05d}"))
        for path in case.iterdir():
            spacing_z = 3 + (shift_mm / 20 if path.name.endswith("t1.nii.gz") else 0)  # the last slice is off by the shift
            save(path, np.asanyarray(nib.load(path).dataobj), np.diag([2, 2, spacing_z, 1]))
    summary = convert(tmp_path / "in", tmp_path, 2021)
    assert list(summary.training) == ["BraTS2021_00000", "BraTS2021_00001"]
    assert list(summary.failed) == ["BraTS2021_00002", "BraTS2021_00003"]
    assert "_t1.nii.gz is not on the grid of" in summary.failed["BraTS2021_00002"]
    assert "0.21 mm apart" in summary.failed["BraTS2021_00002"]


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
