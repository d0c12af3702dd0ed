"""Converters of 4-D Decathlon tasks and of anybody's own folder."""
from __future__ import annotations

import gzip
import json
from functools import partial

import nibabel as nib
import numpy as np
import pytest
from brats_folders import AFFINE, content, files, make_label, run_converter, save
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnmiss.dataset_conversion import msd, own_folder
from nnmiss.dataset_conversion.file_patterns import parse_pattern
from nnmiss.dataset_conversion.label_choice import parse_labels, parse_regions
from nnmiss.errors import NnmissError
from nnmiss.preprocessing.raw_dataset import list_training_cases

SHAPE = (8, 7, 6)
BRAIN = {"modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}, "name": "BRATS", "licence": "CC-BY-SA 4.0",
         "labels": {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"}}
PROSTATE = {"modality": {"0": "T2", "1": "ADC map"}, "labels": {"0": "background", "1": "PZ", "2": "TZ"}}


def voxels(seed, shape=SHAPE):
    return np.random.default_rng(seed).integers(1, 900, shape).astype(np.int16)


def make_task(folder, content, training=3, test=1, values=(1, 2, 3)):
    """A task folder with 4-D images of as many volumes as modalities."""
    folder.mkdir(parents=True)
    channels = len(content["modality"])
    names = {"training": [], "test": []}
    for k in range(training + test):
        part, name = ("Tr", f"BRATS_{k:03d}") if k < training else ("Ts", f"BRATS_{k:03d}")
        save(folder / f"images{part}" / f"{name}.nii.gz", np.stack([voxels([k, c]) for c in range(channels)], -1))
        if part == "Tr":
            save(folder / "labelsTr" / f"{name}.nii.gz", make_label(SHAPE, values, np.random.default_rng(k)))
            names["training"].append({"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"})
        else:
            names["test"].append(f"./imagesTs/{name}.nii.gz")
    for part in ("imagesTr", "labelsTr"):
        (folder / part / "._BRATS_000.nii.gz").write_bytes(b"macOS")
    (folder / "dataset.json").write_text(json.dumps({**content, **names, "tensorImageSize": "4D"}))
    return folder


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs the command in this process: run(arguments) -> exit code, stdout, stderr."""
    return partial(run_converter, monkeypatch, capsys)


def decathlon(folder, tmp_path, **options):
    return msd.convert([folder], tmp_path / "raw", 5, msd.Options(**options))


def test_brain_tumours_get_the_names_regions_and_labels_of_brats(tmp_path):
    folder = make_task(tmp_path / "Task01_BrainTumour", BRAIN)
    summary = decathlon(folder, tmp_path)
    assert not summary.failed and list(summary.training) == ["BRATS_000", "BRATS_001", "BRATS_002"]
    assert summary.test == {"BRATS_003": ["flair", "t1", "t1ce", "t2"]} and summary.folder.name == "Dataset005_BrainTumour"
    written = content(summary.folder)
    assert written["channel_names"] == {"0": "flair", "1": "t1", "2": "t1ce", "3": "t2"}
    assert written["labels"] == {"background": 0, "whole_tumor": [1, 2, 3], "tumor_core": [2, 3], "enhancing_tumor": [3]}
    assert written["brats"]["label_names"] == {"ed": 1, "ncr": 2, "et": 3} and written["licence"] == "CC-BY-SA 4.0"
    source = nib.load(folder / "imagesTr" / "BRATS_001.nii.gz")
    for channel in range(4):
        image = nib.load(summary.folder / "imagesTr" / f"BRATS_001_{channel:04d}.nii.gz")
        assert image.shape == SHAPE and image.get_data_dtype() == np.int16
        assert np.array_equal(np.asanyarray(image.dataobj), voxels([1, channel]))
        for key in ("qform_code", "sform_code", "xyzt_units", "qoffset_y", "srow_y", "quatern_b", "descrip"):
            assert np.array_equal(image.header[key], source.header[key])
    label = nib.load(summary.folder / "labelsTr" / "BRATS_001.nii.gz")
    assert np.array_equal(np.asanyarray(label.dataobj), nib.load(folder / "labelsTr" / "BRATS_001.nii.gz").dataobj)
    LabelManager(written["labels"], written["regions_class_order"])
    assert len(list_training_cases(summary.folder, written)[0].files) == 4


def test_volumes_in_another_order_and_labels_with_other_integers_are_sorted_by_name(tmp_path):
    other = {"modality": {"0": "T2w", "1": "T1gd", "2": "FLAIR"},
             "labels": {"0": "background", "1": "Enhancing tumour", "2": "Edema", "5": "non-enhancing tumor"}}
    folder = make_task(tmp_path / "Task77_X", other, values=(1, 2, 5))
    summary = decathlon(folder, tmp_path)
    assert summary.modalities == ("flair", "t1ce", "t2")
    assert np.array_equal(nib.load(summary.folder / "imagesTr" / "BRATS_002_0000.nii.gz").get_fdata(), voxels([2, 2]))
    source = nib.load(folder / "labelsTr" / "BRATS_002.nii.gz").get_fdata()
    ours = nib.load(summary.folder / "labelsTr" / "BRATS_002.nii.gz").get_fdata()
    for theirs, mine in ((0, 0), (1, 3), (2, 1), (5, 2)):
        assert np.array_equal(source == theirs, ours == mine)


def test_other_tasks_keep_their_names_and_have_plain_labels(tmp_path):
    summary = decathlon(make_task(tmp_path / "Task05_Prostate", PROSTATE, values=(1, 2)), tmp_path)
    written = content(summary.folder)
    assert written["channel_names"] == {"0": "t2", "1": "adc_map"}
    assert written["labels"] == {"background": 0, "pz": 1, "tz": 2} and "brats" not in written


def test_scaled_voxels_of_a_volume_keep_their_values(tmp_path):
    folder = make_task(tmp_path / "Task05_Prostate", PROSTATE, training=1, test=0, values=(1, 2))
    image = nib.Nifti1Image(np.stack([voxels(0), voxels(1)], -1), AFFINE)
    image.header.set_slope_inter(0.25, 3)
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"an extension moves the voxels"))
    nib.save(image, folder / "imagesTr" / "BRATS_000.nii.gz")
    nib.save(nib.Nifti1Image(np.ones(SHAPE, np.uint8), AFFINE), folder / "labelsTr" / "BRATS_000.nii.gz")
    source = nib.load(folder / "imagesTr" / "BRATS_000.nii.gz").get_fdata()
    summary = decathlon(folder, tmp_path)
    assert np.array_equal(nib.load(summary.folder / "imagesTr" / "BRATS_000_0001.nii.gz").get_fdata(), source[..., 1])


def test_blank_volumes_are_noted_or_left_out(tmp_path):
    folder = make_task(tmp_path / "Task01_BrainTumour", BRAIN)
    image = np.stack([voxels(0), np.zeros(SHAPE, np.int16), voxels(1), np.full(SHAPE, 7, np.int16)], -1)
    save(folder / "imagesTr" / "BRATS_001.nii.gz", image)
    kept = decathlon(folder, tmp_path)
    assert any("BRATS_001 t1, BRATS_001 t2" in note for note in kept.notes) and len(kept.training["BRATS_001"]) == 4
    left = decathlon(folder, tmp_path, blank_is_missing=True, overwrite=True)
    assert left.training["BRATS_001"] == ["flair", "t1ce"] and len(files(left.folder / "imagesTr")) == 10
    save(folder / "imagesTr" / "BRATS_001.nii.gz", np.zeros((*SHAPE, 4), np.int16))
    assert "one value only" in decathlon(folder, tmp_path, blank_is_missing=True, overwrite=True).failed["BRATS_001"]


@pytest.mark.parametrize("spoil, message", [
    (lambda f: (f / "imagesTr/BRATS_001.nii.gz").unlink(), "BRATS_001.nii.gz is not there, though dataset.json lists it"),
    (lambda f: (f / "labelsTr/BRATS_001.nii.gz").unlink(), "labelsTr/BRATS_001.nii.gz is not there"),
    (lambda f: save(f / "imagesTr/BRATS_001.nii.gz", np.ones((*SHAPE, 3))), "expected 4 volumes for 4 modalities"),
    (lambda f: save(f / "imagesTr/BRATS_001.nii.gz", np.ones(SHAPE)), "expected 4 volumes for 4 modalities"),
    (lambda f: (f / "imagesTr/BRATS_001.nii.gz").write_bytes(gzip.compress(b"?" * 400)), "cannot be read"),
    (lambda f: (f / "imagesTr/BRATS_001.nii.gz").write_bytes(gzip.compress(
        gzip.decompress((f / "imagesTr/BRATS_001.nii.gz").read_bytes())[:-9])), "cannot be read"),
    (lambda f: save(f / "labelsTr/BRATS_001.nii.gz", np.full(SHAPE, 4, np.uint8)), r"label values \[4\]")])
def test_a_bad_case_of_a_task_is_named_and_the_others_are_converted(tmp_path, run, spoil, message):
    folder = make_task(tmp_path / "Task01_BrainTumour", BRAIN)
    spoil(folder)
    done = run("msd", "-i", tmp_path, "-o", tmp_path / "raw", "-d", 5)  # the folder around the task will do
    assert done.returncode == 1 and "error: BRATS_001 was not converted" in done.stderr
    assert message.replace("\\", "") in done.stderr
    assert len(files(tmp_path / "raw" / "Dataset005_BrainTumour" / "imagesTr")) == 8


def test_images_that_dataset_json_does_not_list_are_converted_and_noted(tmp_path):
    folder = make_task(tmp_path / "Task01_BrainTumour", BRAIN)
    listing = content(folder)
    listing["training"] = listing["training"][1:]
    (folder / "dataset.json").write_text(json.dumps(listing))
    summary = decathlon(folder, tmp_path)
    assert len(summary.training) == 3 and any("does not list" in note and "BRATS_000" in note for note in summary.notes)


@pytest.mark.parametrize("change, message", [
    ({"modality": ["MRI"]}, '"modality" must map'), ({"modality": {}}, '"modality" must map'),
    ({"labels": []}, '"labels" must map'),
    ({"modality": {"0": "T1", "1": "t1"}}, "must differ"), ({"labels": {"0": "a", "1": "b", "2": "B"}}, "distinct"),
    ({"labels": {"0": "background", "1": "tumor", "2": "tumor"}}, r"distinct.*1: 'tumor', 2: 'tumor'"),
    ({"labels": {"0": "background", "1": "ed", "2": "ed", "3": "ncr", "4": "et"}}, "distinct")])
def test_a_dataset_json_that_is_no_decathlons_is_refused(tmp_path, change, message):
    folder = make_task(tmp_path / "Task09_X", {**PROSTATE})
    (folder / "dataset.json").write_text(json.dumps({**PROSTATE, **change}))
    with pytest.raises(NnmissError, match=message):
        decathlon(folder, tmp_path)


def test_sources_that_are_no_task(tmp_path, run):
    (tmp_path / "empty").mkdir()
    assert "no dataset.json" in run("msd", "-i", tmp_path / "empty", "-o", tmp_path).stderr
    assert "one task folder" in run("msd", "-i", tmp_path, tmp_path, "-o", tmp_path).stderr
    make_task(tmp_path / "two" / "a", BRAIN)
    make_task(tmp_path / "two" / "b", BRAIN)
    assert "several (a, b)" in run("msd", "-i", tmp_path / "two", "-o", tmp_path).stderr


PATTERNS = [
    ("{case}/*FLAIR*.nii.gz", "anna/x_FLAIR_1.nii.gz", "anna"), ("{case}/*FLAIR*.nii.gz", "anna/deep/FLAIR.nii.gz", None),
    ("{case}_t1.nii.gz", "sub-1_a_t1.nii.gz", "sub-1_a"), ("{case}_t1.nii.gz", "anna_t1ce.nii.gz", None),
    ("{case}_t1.nii.gz", "x/anna_t1.nii.gz", None), ("**/{case}_t1.nii", "x/y/anna_t1.nii", "anna"),
    ("**/{case}_t1.nii", "anna_t1.nii", "anna"), ("{case}/{case}_t1.nii", "anna/anna_t1.nii", "anna"),
    ("{case}/{case}_t1.nii", "anna/ben_t1.nii", None),
    ("sub-{case}/anat/*_T1w.nii.gz", "sub-01/anat/sub-01_T1w.nii.gz", "01"),
    ("./{case}_*_t1.nii", "a_b_c_t1.nii", "a"), ("{case}/t[12].nii", "a/t2.nii", "a"),
    ("{case}/t[!1].nii", "a/t1.nii", None),
    ("{case}/t?.nii", "a/t/.nii", None), ("{case}/(x).nii+", "a/(x).nii+", "a"), ("{case}/**/t1.nii", "a/t1.nii", "a"),
]


@pytest.mark.parametrize("pattern, path, case", PATTERNS)
def test_patterns(pattern, path, case):
    match = parse_pattern(pattern).fullmatch(path)
    assert (match and match["case"]) == case


@pytest.mark.parametrize("pattern", ["*.nii", "{case}*.nii", "*{case}.nii", "{case}{case}.nii", "[ab]{case}.nii", "",
                                     "{case}_[b-a].nii"])
def test_patterns_that_nobody_can_read_are_refused(pattern):
    with pytest.raises(NnmissError, match="pattern"):
        parse_pattern(pattern)


def test_regions_are_put_in_an_order_in_which_labels_can_be_told():
    labels = parse_labels(["ncr=1", "ed=2", "et=4", "background=0"])
    assert labels == {"ncr": 1, "ed": 2, "et": 4}
    regions, order = parse_regions(["et=4", "core=ncr,et", "whole=1,2,4"], labels)
    assert list(regions) == ["whole", "core", "et"] and order == ["ed", "ncr", "et"]


@pytest.mark.parametrize("items, message", [
    (["whole=1,2"], "et is in no region"), (["whole=1,2,4"], "whole alone would have to stand for ncr and ed and et"),
    (["whole=1,2,4", "again=1,2,4", "et=4"], "stand for no label"), (["a=1", "b=2", "c=4"], "leave --regions out"),
    (["whole=1,2,7"], "no label '7'"), (["whole"], "NAME=LABEL"),
    (["background=1"], "cannot be called"), (["w=1", "w=2"], "once")])
def test_regions_that_cannot_be_are_refused(items, message):
    with pytest.raises(NnmissError, match=message):
        parse_regions(items, {"ncr": 1, "ed": 2, "et": 4})


@pytest.mark.parametrize("items", [["lesion"], ["lesion=x"], ["lesion=0"], ["background=1"], ["a=1", "a=2"],
                                   ["a=1", "b=1"], ["a=-1"]])
def test_labels_that_cannot_be_are_refused(items):
    with pytest.raises(NnmissError, match="--labels"):
        parse_labels(items)


@pytest.fixture
def hospital(tmp_path):
    """Three patients with names of no standard: .nii and .nii.gz, one without T1, one without label, labels 0, 10, 20."""
    folder = tmp_path / "hospital"
    for k, case in enumerate(("anna", "ben", "carla")):
        save(folder / case / f"{k}_FLAIR_reg.nii.gz", voxels([k, 0]))
        if case != "ben":
            save(folder / f"{case}_t1.nii", voxels([k, 1]))
        if case != "carla":
            save(folder / case / "seg" / "manual.nii.gz", make_label(SHAPE, (10, 20), np.random.default_rng(k)))
    return folder


USUAL = ["--modality", "flair={case}/*FLAIR*.nii.gz", "--modality", "t1={case}_t1.nii", "--label", "{case}/seg/*.nii.gz",
         "--labels", "core=20", "shell=10"]


def test_a_folder_of_ones_own(hospital, tmp_path, run):
    done = run("folder", "-i", hospital, "-o", tmp_path / "raw", *USUAL, "--unlabelled", "test", "--name", "Mine")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "raw" / "Dataset840_Mine"
    assert files(folder / "imagesTr") == ["anna_0000.nii.gz", "anna_0001.nii.gz", "ben_0000.nii.gz"]
    assert files(folder / "imagesTs") == ["carla_0000.nii.gz", "carla_0001.nii.gz"] and "ben lacks t1" in done.stdout
    assert content(folder)["labels"] == {"background": 0, "core": 1, "shell": 2}
    ours = nib.load(folder / "labelsTr" / "ben.nii.gz").get_fdata()
    source = nib.load(hospital / "ben" / "seg" / "manual.nii.gz").get_fdata()
    assert np.array_equal(ours == 1, source == 20) and np.array_equal(ours == 2, source == 10)
    written = gzip.decompress((folder / "imagesTr" / "anna_0001.nii.gz").read_bytes())
    assert written == (hospital / "anna_t1.nii").read_bytes()


def test_empty_folders_where_a_case_is_expected_are_noted(hospital, tmp_path):
    for folder in ("dora", "anna/empty", ".git"):
        (hospital / folder).mkdir()
    options = own_folder.Options(modalities=("flair={case}/*FLAIR*.nii.gz", "t1={case}_t1.nii"), unlabelled="test",
                                 label="{case}/seg/*.nii.gz", labels=("core=20", "shell=10"))
    notes = own_folder.convert([hospital], tmp_path / "raw", 5, options).notes
    assert [note for note in notes if "folders without" in note] == [
        "where the patterns expect a case, there are folders without any of its files: dora"]


def test_a_source_inside_another_counts_once(hospital, tmp_path):
    wanted = {"modalities": ["flair=**/{case}/*FLAIR*.nii.gz", "t1=**/{case}_t1.nii"], "label": "**/{case}/seg/*.nii.gz",
              "labels": ["core=20", "shell=10"], "unlabelled": "test"}
    summary = own_folder.convert([hospital, tmp_path, hospital], tmp_path / "raw", 5, own_folder.Options(**wanted))
    assert not summary.failed and list(summary.training) == ["anna", "ben"]


def test_a_case_without_label_is_an_error_unless_wanted(hospital, tmp_path, run):
    done = run("folder", "-i", hospital, "-o", tmp_path / "raw", *USUAL)
    assert done.returncode == 1 and "error: carla was not converted" in done.stderr and "--unlabelled test" in done.stderr
    unlabelled = run("folder", "-i", hospital, "-o", tmp_path / "raw", "-d", 841, *USUAL[:4], "--unlabelled", "test")
    assert unlabelled.returncode == 0 and "test cases: 3" in unlabelled.stdout


def test_regions_of_ones_own_data_are_brats_when_they_are_called_so(tmp_path, run):
    for k in range(2):
        save(tmp_path / "in" / f"p{k}_flair.nii.gz", voxels(k))
        save(tmp_path / "in" / f"p{k}_t2.nii.gz", voxels(k + 5))
        save(tmp_path / "in" / f"p{k}_seg.nii.gz", make_label(SHAPE, (1, 2, 4), np.random.default_rng(k)))
    done = run("folder", "-i", tmp_path / "in", "-o", tmp_path / "raw", "--modality", "flair={case}_flair.nii.gz",
               "--modality", "t2={case}_t2.nii.gz", "--label", "{case}_seg.nii.gz", "--labels", "edema=2", "NCR=1", "ET=4",
               "--regions", "whole_tumor=1,2,4", "tumor_core=NCR,ET", "enhancing_tumor=4")
    assert done.returncode == 0, done.stderr
    written = content(tmp_path / "raw" / "Dataset840_MyData")
    assert written["labels"] == {"background": 0, "whole_tumor": [1, 2, 3], "tumor_core": [2, 3], "enhancing_tumor": [3]}
    assert written["regions_class_order"] == [1, 2, 3] and written["brats"] == {"label_names": {"ed": 1, "ncr": 2, "et": 3}}
    LabelManager(written["labels"], written["regions_class_order"])


@pytest.mark.parametrize("change, message", [
    ({"flair": "{case}/*.nii.gz"}, None), ({"flair": "{case}/*T2*.nii.gz"}, "finds no file.*7 NIfTI files"),
    ({"t1": "{case}/*FLAIR*.nii.gz"}, "matches the patterns of flair and t1")])
def test_patterns_that_find_nothing_or_too_much(hospital, tmp_path, change, message):
    save(hospital / "anna" / "again_FLAIR.nii.gz", voxels(9)) if message is None else None
    patterns = {"flair": "{case}/*FLAIR*.nii.gz", "t1": "{case}_t1.nii", **change}
    options = own_folder.Options(modalities=[f"{m}={p}" for m, p in patterns.items()], label="{case}/seg/*.nii.gz",
                                 labels=["core=20", "shell=10"])
    if message is None:
        summary = own_folder.convert([hospital], tmp_path / "raw", 5, options)
        assert "2 files match the pattern of flair" in summary.failed["anna"] and list(summary.training) == ["ben"]
        return
    with pytest.raises(NnmissError, match=message):
        own_folder.convert([hospital], tmp_path / "raw", 5, options)


@pytest.mark.parametrize("arguments, message", [
    (["--modality", "flair"], "NAME=PATTERN"), (["--modality", "a+b={case}.nii"], "NAME=PATTERN"),
    (["--modality", "t1={case}.nii", "--modality", "T1={case}.nii"], "given twice"),
    (["--modality", "label={case}.nii"], "cannot be"),
    (["--modality", "t1={case}.nii"], "--label PATTERN is needed"),
    (["--modality", "t1={case}.nii", "--label", "{case}.nii"], "--labels is needed"),
    (["--modality", "t1=*.nii", "--label", "{case}.nii", "--labels", "a=1"], "lacks {case}")])
def test_wrong_flags_of_folder_are_refused(hospital, tmp_path, run, arguments, message):
    done = run("folder", "-i", hospital, "-o", tmp_path / "raw", *arguments)
    assert done.returncode == 1 and message in done.stderr and not (tmp_path / "raw").exists()
