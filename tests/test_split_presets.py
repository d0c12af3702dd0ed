"""Published splits by case id: the lists themselves, planning with them, and predicting their test cases."""
from __future__ import annotations

import json
import shutil
from functools import partial
from importlib.resources import files
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from tiny_dataset import DATASET, PLANS, SHORT
from tiny_dataset import test_images as image_folder

import nnmiss.cli.plan_and_preprocess as command
from nnmiss.brats_years import find_challenge
from nnmiss.cli import predict, train
from nnmiss.errors import NnmissError
from nnmiss.inference.wanted import wanted_cases
from nnmiss.preprocessing.split_presets import ALIASES, PRESETS, SIDES, fit_preset, load_preset
from nnmiss.preprocessing.splits_file import choose_splits, install_test_cases

COUNTS = {"brats2018-1": (199, 29, 57), "brats2018-2": (199, 29, 57), "brats2018-3": (199, 29, 57),
          "brats2020": (219, 50, 100), "brats2021": (876, 125, 250), "brats2023-gli": (875, 125, 251)}


def write_dataset(root, names, test_images=(), identifier=320):
    """A raw data set of two modalities and 12^3 voxels with cases of these names; returns its folder."""
    folder = root / f"Dataset{identifier}_Split"
    rng = np.random.default_rng(0)
    for sub in ("imagesTr", "labelsTr", "imagesTs"):
        (folder / sub).mkdir(parents=True)
    label = np.zeros((12, 12, 12), dtype=np.uint8)
    label[4:9, 4:9, 4:9] = 1
    for sub, cases in (("imagesTr", names), ("imagesTs", test_images)):
        for name in cases:
            for channel in range(2):
                image = (rng.normal(100, 10, label.shape) + 50 * label).astype(np.float32)
                nib.save(nib.Nifti1Image(image, np.eye(4)), folder / sub / f"{name}_{channel:04d}.nii.gz")
            if sub == "imagesTr":
                nib.save(nib.Nifti1Image(label, np.eye(4)), folder / "labelsTr" / f"{name}.nii.gz")
    (folder / "dataset.json").write_text(json.dumps({
        "channel_names": {"0": "flair", "1": "t1"}, "labels": {"background": 0, "tumor": 1}, "numTraining": len(names),
        "file_ending": ".nii.gz"}))
    return folder


def some(name, train=4, val=2, test=3):
    """Ids of a preset: the first few of each side."""
    ids = load_preset(name).ids
    return [*ids["train"][:train], *ids["val"][:val], *ids["test"][:test]]


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """nnU-Net's folders, and a fingerprint that draws few voxels; returns (raw, preprocessed)."""
    for name in ("raw", "preprocessed", "results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    monkeypatch.setattr(command, "PrepareOptions", partial(command.PrepareOptions, num_foreground_voxels=10_000))
    return tmp_path / "raw", tmp_path / "preprocessed" / "Dataset320_Split"


@pytest.fixture
def plan(capsys, monkeypatch):
    """Calls nnmiss_plan_and_preprocess --no_pp on data set 320; returns exit code, stdout and stderr."""
    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["nnmiss_plan_and_preprocess", "-d", "320", "--no_pp", "-np", "1", "--no_pbar",
                                         *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            command.main()
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err + captured.out
        return end.value.code, captured.out, captured.err
    return call


def read_json(path):
    return json.loads(path.read_text())


# --- the lists

@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_has_the_printed_counts_and_disjoint_sides(name):
    preset = load_preset(name)
    assert tuple(len(preset.ids[side]) for side in SIDES) == COUNTS[name]
    everything = [case for side in SIDES for case in preset.ids[side]]
    assert len(set(everything)) == len(everything) == sum(COUNTS[name])
    assert all(list(preset.ids[side]) == sorted(preset.ids[side]) for side in SIDES)


@pytest.mark.parametrize("name", PRESETS)
def test_every_id_has_the_form_of_its_year(name):
    content = json.loads(files("nnmiss.preprocessing").joinpath("split_presets", f"{name}.json").read_text())
    challenge = find_challenge(content["year"], content["challenge"])
    assert f"brats{content['year']}" in name
    assert all(challenge.is_id(case) for side in SIDES for case in content[side])
    assert content["name"] == name and {"repository", "file", "licence"} <= set(content["source"])
    assert tuple(content["counts"][side] for side in SIDES) == COUNTS[name]


def test_the_three_splits_of_2018_share_their_cases_and_differ():
    presets = [load_preset(f"brats2018-{number}") for number in (1, 2, 3)]
    assert presets[0].known == presets[1].known == presets[2].known and len(presets[0].known) == 285
    assert len({preset.ids["test"] for preset in presets}) == 3


@pytest.mark.parametrize(("name", "total"), [("brats2020", 369), ("brats2021", 1251), ("brats2023-gli", 1251)])
def test_a_preset_covers_the_training_data_of_its_year(name, total):
    known = load_preset(name).known
    assert len(known) == total
    if name == "brats2020":
        assert known == {f"BraTS20_Training_{number:03d}" for number in range(1, 370)}


def test_time_points_of_a_patient_of_2023_are_on_one_side():
    ids = load_preset("brats2023").ids
    patients = [{case.rsplit("-", 1)[0] for case in ids[side]} for side in SIDES]
    assert not patients[0] & patients[1] and not patients[0] & patients[2] and not patients[1] & patients[2]


def test_every_file_is_a_preset_and_names_have_no_case():
    there = {f.name for f in files("nnmiss.preprocessing").joinpath("split_presets").iterdir()}
    assert there == {f"{name}.json" for name in PRESETS}
    assert all(load_preset(alias) == load_preset(name) for alias, name in ALIASES.items())
    assert load_preset("BraTS2018-1").name == "brats2018-1"
    with pytest.raises(NnmissError, match=r"Did you mean brats2018-1(.|\n)*199/29/57"):
        load_preset("brats2018_1")


# --- fitting to a data set

def test_all_cases_fit_without_a_word_of_warning():
    preset = load_preset("brats2018-2")
    fitted = fit_preset("brats2018-2", preset.known)
    assert fitted.folds == [{"train": list(preset.ids["train"]), "val": list(preset.ids["val"])}]
    assert fitted.test_record == {"preset": "brats2018-2", "source": preset.source, "cases": list(preset.ids["test"])}
    assert len(fitted.report()) == 1 and "199 training and 29 validation cases, 57 test cases" in fitted.report()[0]


def test_absent_and_unknown_ids_are_counted_and_named():
    preset = load_preset("brats2020")
    gone = {preset.ids["train"][0], preset.ids["test"][5]}
    fitted = fit_preset("brats2020", (preset.known - gone) | {"own_1", "own_2"})
    assert fitted.absent == {"train": [preset.ids["train"][0]], "val": [], "test": [preset.ids["test"][5]]}
    assert fitted.unknown == ["own_1", "own_2"]
    text = "\n".join(fitted.report())
    assert f"2 of the preset's 369 cases are not in this data set: 1 training ({preset.ids['train'][0]}), 1 test" in text
    assert "2 case(s) of this data set are not in the preset and in no part of fold 0: own_1, own_2" in text


@pytest.mark.parametrize(("asked", "cases", "message"), [
    ("brats2021", some("brats2020"), r"knows 0 of the data set's 9 .*brats2020 knows 9: give --splits brats2020"),
    ("brats2020", some("brats2018-1"), "brats2018-1 and brats2018-2 and brats2018-3 know 9: give --splits brats2018-1"),
    ("brats2021", [*some("brats2020"), *some("brats2021", 1, 1, 1)], "brats2020 knows 9: give --splits brats2020"),
    ("brats2020", ["BraTS19_CBICA_AAB_1"], "knows none .* named as in BraTS 2019 GLI"),
    ("brats2020", ["case_000"], "knows none .* keep their official ids as names"),
    ("brats2020", some("brats2020", val=0), "none of its 50 validation cases"),
    ("brats2020", some("brats2020", train=0), "none of its 219 training cases"),
])
def test_what_does_not_fit_is_refused_with_the_preset_that_would(asked, cases, message):
    with pytest.raises(NnmissError, match=message):
        fit_preset(asked, cases)


def test_own_cases_beside_most_of_a_year_are_welcome():
    preset = load_preset("brats2023")
    fitted = fit_preset("brats2023", [*preset.known, *some("brats2021"), "own"])
    assert len(fitted.unknown) == 10 and not fitted.absent["train"]


# --- planning

def test_planning_writes_fold_and_test_cases(folders, plan):
    raw, folder = folders
    names = some("brats2018-1")
    write_dataset(raw, [*names, "mine"])
    code, out, err = plan("--splits", "BRATS2018-1")
    assert (code, err) == (0, "")
    assert read_json(folder / "splits_final.json") == [{"train": names[:4], "val": names[4:6]}]
    test = read_json(folder / "test_cases.json")
    assert test["preset"] == "brats2018-1" and test["cases"] == names[6:] and "M2FTrans" in test["source"]
    assert "fold 0 has 4 training and 2 validation cases, 3 test cases" in out
    assert "276 of the preset's 285 cases are not in this data set: 195 training (" in out
    assert "1 case(s) of this data set are not in the preset and in no part of fold 0: mine" in out
    assert f"--cases {folder / 'test_cases.json'}" in out and str(raw / "Dataset320_Split" / "imagesTr") in out
    before = {f: (folder / f).read_bytes() for f in ("splits_final.json", "test_cases.json")}
    assert plan()[0] == 0  # planned again without the flag: both stay
    assert before == {f: (folder / f).read_bytes() for f in before}


def test_test_cases_in_images_ts_are_found(folders, plan):
    raw, folder = folders
    names = some("brats2021")
    write_dataset(raw, names[:6], test_images=names[6:])
    code, out, _ = plan("--splits", "brats2021")
    assert code == 0 and read_json(folder / "test_cases.json")["cases"] == names[6:]
    assert "3 of the test cases are in imagesTs" in out and f"-i {raw / 'Dataset320_Split' / 'imagesTs'}" in out


def test_a_file_replaces_a_preset_and_its_test_cases(folders, plan, tmp_path):
    raw, folder = folders
    names = some("brats2020", test=1)
    write_dataset(raw, names)
    assert plan("--splits", "brats2020")[0] == 0
    own = tmp_path / "own.json"
    own.write_text(json.dumps([{"train": names[:6], "val": names[6:]}]))
    code, out, _ = plan("--splits", own)
    assert code == 0 and "removed" in out and "belonged to preset brats2020" in out
    assert read_json(folder / "splits_final.json") == read_json(own) and not (folder / "test_cases.json").exists()
    (folder / "test_cases.json").write_text('{"cases": []}')  # somebody's own
    assert plan("--splits", own)[0] == 0 and (folder / "test_cases.json").exists()


def test_a_preset_that_disagrees_with_shipped_splits_is_refused(folders, plan):
    raw, folder = folders
    names = some("brats2020")
    data = write_dataset(raw, names)
    (data / "splits_final.json").write_text(json.dumps([{"train": names[1:4], "val": names[:1]}]))
    code, _, err = plan("--splits", "brats2020")
    assert code == 1 and "--splits brats2020 differs from" in err
    assert not (folder / "splits_final.json").exists() and not (folder / "test_cases.json").exists()


@pytest.mark.parametrize("value", ["brats2018", "official", "brats2023-ped", "/no/file.json"])
def test_an_unknown_name_lists_the_presets(folders, plan, value):
    write_dataset(folders[0], some("brats2020", 2, 1, 0))
    code, _, err = plan("--splits", value)
    assert code == 1 and "neither a file nor a preset" in err and "875/125/251" in err
    assert ("Did you mean brats" in err) == value.startswith("brats")


def test_help_lists_the_presets_whatever_else_is_given(capsys):
    with pytest.raises(SystemExit) as end:
        command.run(["--splits", "help"])
    out = capsys.readouterr().out
    assert end.value.code == 0
    assert all(name in out and "/".join(map(str, counts)) in out for name, counts in COUNTS.items())


def test_another_year_stops_before_anything_is_written(folders, plan):
    raw, folder = folders
    write_dataset(raw, some("brats2020"))
    code, _, err = plan("--splits", "brats2021")
    assert code == 1 and "give --splits brats2020" in err
    assert not list(folder.glob("*.json"))


def test_presets_are_chosen_by_name_too(tmp_path):
    names = some("brats2020")
    assert choose_splits("brats2020", tmp_path, names) == [{"train": names[:4], "val": names[4:6]}]
    assert install_test_cases(None, tmp_path) == ""


# --- training and predicting

def test_fold_all_does_not_train_on_test_cases_and_they_can_be_predicted(session_folders, tiny, monkeypatch, capsys):
    """The tiny data set with two of its cases kept for testing, as a preset would."""
    preprocessed = Path(shutil.copytree(session_folders / "nnUNet_preprocessed", tiny / "nnUNet_preprocessed"))
    monkeypatch.setenv("nnUNet_preprocessed", str(preprocessed))
    cases = sorted(read_json(preprocessed / DATASET / "availability.json")["cases"])
    (preprocessed / DATASET / "splits_final.json").write_text(json.dumps([{"train": cases[:5], "val": cases[5:6]}]))
    listed = preprocessed / DATASET / "test_cases.json"
    listed.write_text(json.dumps({"preset": "made", "source": "here", "cases": cases[6:]}))
    assert train.run(["801", "modality_dropout", "all", "-p", PLANS, "-device", "cpu", "--disable_progress_bar", *SHORT,
                      "num_epochs=1"]) in (0, None)
    # nnU-Net's log is named by the second, and the validation's trainer may start in the next one
    log = "\n".join(file.read_text() for file in sorted((tiny / "nnUNet_results").rglob("training_log*.txt")))
    training = next(line for line in log.splitlines() if "training [" in line)
    assert all(case in training for case in cases[:6]) and not any(case in training for case in cases[6:])
    validated = next((tiny / "nnUNet_results").rglob("validation"))
    assert {p.name for p in validated.glob("labels_*")} == {"labels_itksnap.txt", "labels_slicer.ctbl"}
    images = image_folder().parent / "imagesTr"
    code = predict.run(["-i", str(images), "-o", str(tiny / "out"), "-d", "801", "-m", "modality_dropout", "-p", PLANS,
                        "-device", "cpu", "--disable_progress_bar", "--disable_tta", "--cases", str(listed), "not_there"])
    assert code == 1
    assert sorted(p.name for p in (tiny / "out").glob("*.nii.gz")) == [f"{case}.nii.gz" for case in cases[6:]]
    said = capsys.readouterr()
    assert said.err.count("case not_there is not in the input folder") == 1 and "not_there" not in said.out
    assert "error: --cases: 1 case(s) are not in" in said.err and "2 of 2 case(s) done" in said.out
    assert "enhancing tumor" in (tiny / "out" / "labels_itksnap.txt").read_text()
    assert (tiny / "out" / "labels_slicer.ctbl").is_file()


# --- --cases

CASES = dict.fromkeys(("a_1", "a_2", "b_1", "c.json"))


def test_cases_by_name_and_from_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.json").write_text('["b_1", "a_1"]')
    (tmp_path / "test_cases.json").write_text('{"preset": "x", "cases": ["a_2", "z_9"]}')
    (tmp_path / "ids.txt").write_text("\ufeff# mine\n a_2 \r\n\nb_1\n", encoding="utf-8")
    (tmp_path / "a_1").write_text("b_1")  # a case comes before a file of its name
    assert wanted_cases(["b_1", "a_1", "b_1"], CASES) == (["a_1", "b_1"], {})
    assert wanted_cases(["list.json"], CASES) == (["a_1", "b_1"], {})
    assert wanted_cases(["ids.txt", "a_1"], CASES) == (["a_1", "a_2", "b_1"], {})
    assert wanted_cases(["c.json"], CASES) == (["c.json"], {})
    assert wanted_cases(["test_cases.json", "y_8"], CASES) == (["a_2"], {
        "z_9": "case z_9 of test_cases.json is not in the input folder", "y_8": "case y_8 is not in the input folder"})


@pytest.mark.parametrize(("content", "message"), [
    ('[{"train": ["a_1"], "val": []}]', "must hold a list of case names"),
    ('{"train": ["a_1"]}', "must hold a list of case names"),
    ("[]", "lists no case"),
    ("[", "is not valid JSON"),
    ('["a_3"]', r"none of the 1 case\(s\).*Did you mean a_"),
])
def test_a_file_that_lists_no_case_is_refused(tmp_path, content, message):
    (tmp_path / "list.json").write_text(content)
    with pytest.raises(NnmissError, match=message):
        wanted_cases([str(tmp_path / "list.json")], CASES)


def test_other_mistakes_of_cases_are_named(tmp_path):
    with pytest.raises(NnmissError, match=r"neither a case nor a file lists/none\.txt"):
        wanted_cases(["lists/none.txt"], CASES)
    (tmp_path / "image.nii.gz").write_bytes(b"\x1f\x8b\xff\xfe")
    with pytest.raises(NnmissError, match="not a readable text file"):
        wanted_cases([str(tmp_path / "image.nii.gz")], CASES)
