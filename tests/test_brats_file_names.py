"""BraTS converters on file and folder names as they lie on people's disks: which case, which modality, which part."""
from __future__ import annotations

import gzip
import re
import shutil
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from brats_folders import content, convert, files, make_brats_folder, run_converter, save

from nnmiss.brats_years import FILE_KINDS
from nnmiss.dataset_conversion.brats_files import stated_year
from nnmiss.errors import NnmissError

FOUR = ["flair", "t1", "t1ce", "t2"]
REFERENCE = Path(__file__).parents[1] / "documentation" / "reference" / "brats_conversion.md"


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs the command in this process: run(arguments) -> exit code, stdout, stderr."""
    return partial(run_converter, monkeypatch, capsys)


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
    (("contest", "latest"), 0), (("my_test/train", "my_test/rest"), 2), (("train_and_validation/x", "valid"), 2)])
def test_where_cases_without_segmentation_go_is_told_by_folder_names(tmp_path, names, test):
    """The innermost folder that says training or validation decides, an outer one where it is silent; ids say nothing."""
    make_brats_folder(tmp_path / "made", 2021, shape=(6, 6, 6))
    for made, name in zip(sorted((tmp_path / "made").iterdir()), names):
        (tmp_path / "plain" / name).parent.mkdir(parents=True, exist_ok=True)
        made.rename(tmp_path / "plain" / name)
    summary = convert(tmp_path / "plain", tmp_path, 2021)
    assert (len(summary.training), len(summary.test), len(summary.failed)) == (3, test, 2 - test)


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


def test_downloads_of_another_year_or_challenge_are_told(tmp_path, run):
    make_brats_folder(tmp_path / "in" / "new", 2021, shape=(6, 6, 6))
    refused = run("brats2020", "-i", tmp_path / "in", "-o", tmp_path / "raw")
    assert refused.returncode == 1 and "BraTS20_Training_001" in refused.stderr
    assert "5 cases have an id of another year" in refused.stderr and "convert with brats2021" in refused.stderr
    make_brats_folder(tmp_path / "in" / "old", 2020, shape=(6, 6, 6))
    mixed = run("brats2020", "-i", tmp_path / "in", "-o", tmp_path / "raw")
    assert mixed.returncode == 1 and "training cases: 3" in mixed.stdout
    assert ("error: 5 cases have an id of another year or challenge than BraTS 2020 GLI (BraTS2021_00000, BraTS2021_00001, "
            "BraTS2021_00002 and 2 more): convert with brats2021\n") in mixed.stderr
    assert "was not converted" not in mixed.stderr and not convert(tmp_path / "in", tmp_path, 2020).failed
    make_brats_folder(tmp_path / "met", 2023, "MET", shape=(6, 6, 6))
    with pytest.raises(NnmissError, match=r"convert with brats2023 --challenge MET$"):
        convert(tmp_path / "met", tmp_path, 2023)
    make_brats_folder(tmp_path / "other", 2024, "PED", shape=(6, 6, 6))
    for year in (2020, 2023):  # the year that the folder states, not the converter's
        with pytest.raises(NnmissError, match=r"convert with brats2024 --challenge PED$"):
            convert(tmp_path / "other", tmp_path, year)
    (tmp_path / "other" / "BraTS2024-BraTS-PED-TrainingData").rename(tmp_path / "plain")
    with pytest.raises(NnmissError, match=r"convert with brats2023 --challenge PED or brats2024 --challenge PED or "
                                          r"brats2025 --challenge PED: their ids do not tell the year$"):
        convert(tmp_path / "plain", tmp_path, 2023)


def test_pediatric_cases_of_2023_given_to_2024_are_pointed_out(tmp_path):
    """The ids are alike, but 1 was necrosis and became enhancing tumour: only the folder's name can tell."""
    make_brats_folder(tmp_path / "in", 2023, "PED", shape=(6, 6, 6))
    summary = convert(tmp_path / "in", tmp_path, 2024, challenge="PED")
    assert any("say 2023" in note and "right converter" in note for note in summary.notes)
    assert any("its labels were {1: 'ncr'" in note for note in summary.notes)


def test_folders_of_another_year_are_noted_once_where_ids_do_not_tell_it(tmp_path):
    make_brats_folder(tmp_path / "gli", 2023, shape=(6, 6, 6))  # 2024 and 2025 only add a label
    for year in (2024, 2025):
        (note,) = [n for n in convert(tmp_path / "gli", tmp_path / str(year), year).notes if "2023" in n]
        assert "BraTS2023-GLI-Challenge-TrainingData, ASNR-MICCAI-BraTS2023-GLI-Challenge-ValidationData say 2023" in note
        assert f"converted as BraTS {year} GLI" in note and "labels" not in note
    assert not any("2023" in note for note in convert(tmp_path / "gli", tmp_path / "right", 2023).notes)
    make_brats_folder(tmp_path / "BraTS2025", 2020, shape=(6, 6, 6))  # an id that tells the year
    assert not any("2025" in note for note in convert(tmp_path / "BraTS2025", tmp_path / "old", 2020).notes)


def test_years_that_folders_state():
    told = {"ASNR-MICCAI-BraTS2023-GLI": 2023, "MICCAI_BraTS_2018_Data_Training": 2018, "BraTS-PEDs-v1": None, "2024": None,
            "BraTS-MEN-RT-2024-1": None, "BraTS2021_00000": None, "BraTS20_Training_001": None, "brats20231": None}
    assert {folder: stated_year(folder) for folder in told} == told


@pytest.mark.parametrize("leave, message", [
    (lambda folder: [p.unlink() for p in folder.iterdir()], r"its folder \S+/Bra\S+ holds no \.nii or \.nii\.gz file"),
    (lambda folder: [p.rename(folder / "README.txt") for p in folder.iterdir()], "holds no"),
    (lambda folder: [p.rename(folder / f"{p.name[:-7]}_brain.nii.gz") for p in folder.iterdir()],
     "none of the NIfTI files in .* has a name that tells a modality")])
@pytest.mark.parametrize("year", [2018, 2020, 2023])
def test_a_case_of_which_only_the_folder_is_there_is_an_error(tmp_path, run, year, leave, message):
    cases = list(make_brats_folder(tmp_path / "in", year, shape=(6, 6, 6)))
    for lost in (cases[1], cases[-1]):
        leave(next((tmp_path / "in").rglob(lost)))
    done = run(f"brats{year}", "-i", tmp_path / "in", "-o", tmp_path / "raw")
    assert done.returncode == 1 and "training cases: 2" in done.stdout and "\ntest cases: 1" in done.stdout
    told = re.findall(r"error: (\S+) was not converted: (.*)", done.stderr)
    assert [case for case, _ in told] == sorted([cases[1], cases[-1]]) and all(re.search(message, why) for _, why in told)


def test_empty_folders_beside_test_cases_alone_and_beside_nothing_and_beside_the_case_elsewhere(tmp_path):
    make_brats_folder(tmp_path / "in", 2020, num_training=0, shape=(6, 6, 6))
    (tmp_path / "in" / "BraTS20_Validation_009").mkdir()
    only_test = convert(tmp_path / "in", tmp_path, 2020)
    assert list(only_test.failed) == ["BraTS20_Validation_009"] and len(only_test.test) == 2
    (tmp_path / "in" / "copy" / "BraTS20_Validation_001").mkdir(parents=True)
    assert list(convert(tmp_path / "in", tmp_path / "2", 2020).failed) == ["BraTS20_Validation_009"]
    (tmp_path / "in" / "BraTS20_Validation_009").rename(tmp_path / "BraTS20_Validation_008")  # itself given as a source
    alone = convert([tmp_path / "in", tmp_path / "BraTS20_Validation_008"], tmp_path / "4", 2020)
    assert list(alone.failed) == ["BraTS20_Validation_008"]
    (tmp_path / "bare" / "BraTS20_Training_001").mkdir(parents=True)
    with pytest.raises(NnmissError, match=r"only folders of cases .*BraTS20_Training_001.*download them again"):
        convert(tmp_path / "bare", tmp_path / "3", 2020)


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


def test_2022_is_told_that_it_is_2021(tmp_path, run):
    done = run("brats2022", "-i", make_one(tmp_path), "-o", tmp_path)
    assert done.returncode == 1 and "convert with brats2021" in done.stderr and "2025" not in done.stderr


@pytest.mark.parametrize("name", ["BraTS19_CBICA_AAB_1_flair", "BraTS20_Training_002_flair", "brats2021_00001-flair"])
def test_a_file_with_another_id_is_never_the_image_of_the_folders_case(tmp_path, name):
    make_brats_folder(tmp_path / "in", 2020, num_validation=0, drop={"BraTS20_Training_001": ["flair"]}, shape=(6, 6, 6))
    case = next((tmp_path / "in").rglob("BraTS20_Training_001"))
    save(case / f"{name}.nii.gz", np.ones((6, 6, 6)))
    summary = convert(tmp_path / "in", tmp_path, 2020)
    assert "lies in the folder of BraTS20_Training_001 but is named" in summary.failed["BraTS20_Training_001"]
    assert "BraTS20_Training_003" in summary.training and not list((summary.folder / "imagesTr").glob("*_001_*"))


def test_the_first_word_of_an_id_may_be_in_any_case_and_is_written_as_officially(tmp_path):
    made = {2018: ("Brats18", "BraTS18"), 2023: ("BraTS-GLI", "BRATS-gli")}
    for year, (official, other) in made.items():
        make_brats_folder(tmp_path / "made", year, shape=(6, 6, 6))
        for path in list((tmp_path / "made").rglob("*.nii.gz")):
            target = tmp_path / str(year) / path.parent.name.replace(official, other) / path.name.replace(official, other)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)
        summary = convert(tmp_path / str(year), tmp_path / f"out{year}", year, name="X")
        assert len(summary.training) == 3 and all(case.startswith(official) for case in summary.training)


def test_a_case_that_lacks_something_is_told_of_its_files_with_an_unknown_word(tmp_path):
    drop = {f"BraTS2021_{k:05d}": ["t2"] for k in range(12)}
    make_brats_folder(tmp_path / "in", 2021, num_training=14, num_validation=0, drop=drop, shape=(6, 6, 6))
    for number in range(13):  # the last one lacks nothing
        case = next((tmp_path / "in").rglob(f"BraTS2021_{number:05d}"))
        save(case / ("t2_brain.nii.gz" if number == 1 else f"{case.name}_t2_brain.nii.gz"), np.ones((6, 6, 6)))
    notes = convert(tmp_path / "in", tmp_path, 2021).notes
    told = [note for note in notes if "no known modality word" in note]
    assert len(told) == 10 and "and 2 more cases that lack something have such files" in notes
    assert told[0].startswith("BraTS2021_00000 lacks something") and "BraTS2021_00000_t2_brain.nii.gz" in told[0]
    assert "BraTS2021_00001/t2_brain.nii.gz" in told[1]
    assert any("1 NIfTI files were not used" in note and "BraTS2021_00012_t2_brain" in note for note in notes)
    for path in (tmp_path / "in").rglob("*.nii.gz"):
        if "brain" not in path.name:
            path.unlink()
    with pytest.raises(NnmissError, match=r"_t2_brain\.nii\.gz was not used: it has no known modality word"):
        convert(tmp_path / "in", tmp_path, 2021)


def test_the_words_of_the_reference_page_are_those_that_are_known():
    rows = re.findall(r"^\| (`\w+`|segmentation) \| (`[^|]+) \|$", REFERENCE.read_text(), re.MULTILINE)
    told = {kind.strip("`").replace("segmentation", "label"): tuple(re.findall(r"`(\w+)`", words)) for kind, words in rows}
    assert told == FILE_KINDS
