"""The MIMIC converter: cohort, cleaning, episodes, labels, pairing and splits, in every layout, and on the real demo."""
from __future__ import annotations

import csv
import gzip
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mimic_folders import COHORT, EVENTS, EXCLUDED, FORMS, LAB_EVENTS, make_cxr, make_mimic, stay_of

from nnmiss.cli import convert_dataset
from nnmiss.dataset_conversion import mimic
from nnmiss.dataset_conversion import mimic_tables as tables_module
from nnmiss.dataset_conversion.mimic import Options
from nnmiss.dataset_conversion.mimic_cleaning import clean
from nnmiss.dataset_conversion.mimic_definitions import phenotypes, variables
from nnmiss.dataset_conversion.mimic_stays import read_stays
from nnmiss.errors import NnmissError

DATA = Path(os.environ.get("NNMISS_TEST_DATA") or Path(__file__).parents[2] / "shared" / "data")
DEMO = DATA / "mimic3_demo"
needs_demo = pytest.mark.skipif(not DEMO.is_dir(), reason=f"no real data in {DEMO} (set NNMISS_TEST_DATA)")
VARIABLES = {v.name: v for v in variables()}


def convert(sources, tmp_path, **options):
    options = Options(disable_progress_bar=True, **options)
    return mimic.convert(sources, tmp_path / "raw", 856, options)


def manifest_of(summary):
    return pd.read_csv(summary.folder / "manifest.csv", dtype=str, keep_default_na=False).set_index("sample_id")


def episode_of(summary, stay):
    return pd.read_csv(summary.folder / "ehr" / f"{stay}.csv", dtype=str, keep_default_na=False)


@pytest.mark.parametrize(("form", "upper", "packed"), [("III", True, False), ("III", False, True), ("IV 1.0", False, False),
                                                       ("IV 2.2", False, True)])
def test_the_cohort_is_the_same_in_every_layout(tmp_path, form, upper, packed):
    source = make_mimic(tmp_path / "download" / "release", form, upper, packed)
    summary = convert([source.parent], tmp_path)  # the folder above will do
    table = manifest_of(summary)
    assert sorted(table["subject_id"]) == sorted(COHORT)
    assert {p for p, label in zip(table["subject_id"], table["label"]) if label == "1"} == set(COHORT[::3])
    assert set(table["cxr"]) == {""} and not summary.failed
    assert f"MIMIC-{form.split()[0]}" in json.loads((summary.folder / "provenance.json").read_text())["release"]
    notes = " ".join(summary.notes)
    assert "ICU stays in all: 19, without transfer between units: 18, one per admission: 16, of adults: 15" in notes
    assert "stays of at least 48 hours: 14, 4 of them died" in notes
    assert "no diagnosis code: 1" in notes and "none of the 17 variables was measured in the window: 1" in notes


@pytest.mark.parametrize("form", FORMS)
def test_values_come_in_one_unit_and_only_from_the_window(tmp_path, form):
    summary = convert([make_mimic(tmp_path / "mimic", form)], tmp_path)
    episode = episode_of(summary, stay_of(COHORT[0]))
    assert list(episode.columns) == ["Hours", *VARIABLES]
    expected = {(hours, name): value for hours, _, _, _, name, value in EVENTS + LAB_EVENTS if name}
    expected[0.5, "Systolic blood pressure"] = "131"
    found = {(float(row["Hours"]), name): row[name] for row in episode.to_dict("records") for name in VARIABLES
             if row[name]}
    assert found == expected


def test_outliers_stay_when_ranges_are_off(tmp_path):
    summary = convert([make_mimic(tmp_path / "mimic")], tmp_path, ranges=False)
    assert "9999" in set(episode_of(summary, stay_of(COHORT[0]))["Heart Rate"])


def test_values_out_of_the_valid_range_are_clipped_and_outliers_dropped():
    events = pd.DataFrame({"itemid": 220277, "value": ["-1", "0", "101", "151", "1", "x"], "valueuom": None})
    found = clean(events, VARIABLES["Oxygen saturation"])
    assert np.array_equal(found, [np.nan, 0, 100, np.nan, 100, np.nan], equal_nan=True)


def test_phenotypes_need_the_code_in_its_own_version_of_the_icd(tmp_path):
    summary = convert([make_mimic(tmp_path / "mimic", "IV 1.0")], tmp_path, task="phenotyping")
    table = manifest_of(summary)
    content = json.loads((summary.folder / "dataset.json").read_text())
    assert content["task"] == "multilabel" and len(content["labels"]) == 25
    assert {p for p, label in zip(table["subject_id"], table["Shock"]) if label == "1"} == \
        {*COHORT[1::2], EXCLUDED["short"]}
    assert (table[[p.name for p in phenotypes() if p.name != "Shock"]] == "0").all(axis=None)
    assert len(episode_of(summary, stay_of(COHORT[0]))) == len({e[0] for e in EVENTS + LAB_EVENTS if e[4]}) + 1  # hour 50


def test_definitions_give_76_features_and_the_groups_of_the_phenotypes():
    widths = [len(v.values) or 1 for v in variables()]
    assert len(widths) == 17 and sum(widths) + 17 == 76
    groups = [p.group for p in phenotypes()]
    assert {g: groups.count(g) for g in groups} == {"acute": 13, "mixed": 5, "chronic": 7}
    codes = [code for p in phenotypes() for of_version in p.codes.values() for code in of_version]
    assert len(codes) > 1300 and all(code == code.strip() and "." not in code for code in codes)


def test_the_last_ap_image_in_the_window_is_paired_by_text_ids(tmp_path):
    first, second, third = COHORT[:3]
    source = make_mimic(tmp_path / "mimic", "IV 2.2")
    make_cxr(tmp_path / "cxr", [(first, 1, "AP"), (first, 16.8, "AP"), (first, 17, "PA"), (first, 50, "AP"),
                                (first, 80, "AP"), (second, -2, "AP"), (third, 5, "LATERAL"), ("99999", 3, "AP")])
    summary = convert([source, tmp_path / "cxr"], tmp_path)
    table = manifest_of(summary)
    assert {stay: cell for stay, cell in table["cxr"].items() if cell} == {stay_of(first): f"cxr/{stay_of(first)}.png"}
    assert level(summary, stay_of(first)) == 20  # the one at 16.8 hours, 00:48 of the next day
    summary = convert([source, tmp_path / "cxr"], tmp_path, cxr_window="stay", overwrite=True)
    assert level(summary, stay_of(first)) == 40 and "1 of 12 stays have an AP image in the stay" in " ".join(summary.notes)


def level(summary, stay):
    from skimage.io import imread

    image = imread(summary.folder / "cxr" / f"{stay}.png")
    assert image.shape == (224, 224) and image.dtype == np.uint8
    return round(float(image.mean()))


def test_images_are_found_flat_too_and_can_be_copied(tmp_path):
    source = make_mimic(tmp_path / "mimic", "IV 1.0")
    files = make_cxr(tmp_path / "cxr", [(COHORT[0], 1, "AP")], packed=True, flat=True)
    summary = convert([source, tmp_path / "cxr"], tmp_path, image_size=0)
    assert (summary.folder / "cxr" / f"{stay_of(COHORT[0])}.jpg").read_bytes() == files[0].read_bytes()


def test_a_stay_whose_image_is_lost_or_damaged_is_named_and_left_out(tmp_path):
    source = make_mimic(tmp_path / "mimic", "IV 2.2")
    files = make_cxr(tmp_path / "cxr", [(patient, 1, "AP") for patient in COHORT[:3]])
    files[0].unlink()
    files[1].write_bytes(files[1].read_bytes()[:300])
    summary = convert([source, tmp_path / "cxr"], tmp_path)
    assert set(summary.failed) == {stay_of(COHORT[0]), stay_of(COHORT[1])}
    assert "d0.jpg" in summary.failed[stay_of(COHORT[0])] and "cannot be read" in summary.failed[stay_of(COHORT[1])]
    assert set(summary.failed).isdisjoint(manifest_of(summary).index)


def test_the_command_says_what_was_left_out_and_returns_1(tmp_path, capsys):
    source = make_mimic(tmp_path / "mimic", "IV 2.2")
    make_cxr(tmp_path / "cxr", [(patient, 1, "AP") for patient in COHORT[:3]])[1].unlink()
    code = convert_dataset.run(["mimic", "-i", str(source), str(tmp_path / "cxr"), "-o", str(tmp_path / "raw"),
                                "--task", "phenotyping", "--cxr_window", "first48h", "--disable_progress_bar"])
    said = capsys.readouterr()
    assert code == 1 and f"error: {stay_of(COHORT[1])} was not converted: its X-ray is not there" in said.err
    assert "note: 3 of 13 stays have an AP image within 48 hours" in said.out
    assert (tmp_path / "raw" / "Dataset856_MIMICPhenotyping" / "manifest.csv").is_file()


def test_published_statistics_replace_the_fitted_ones(tmp_path):
    from nnmiss.classification.description import read_description

    summary = convert([make_mimic(tmp_path / "mimic")], tmp_path, statistics="published")
    columns = read_description(summary.folder).modalities["ehr"]["columns"]
    assert columns["Heart Rate"]["mean"] == pytest.approx(85.54, abs=0.01) and columns["Heart Rate"]["sd"] > 0
    assert "mean" not in columns["Glascow coma scale total"]


def test_splits_never_cross_patients_and_can_be_given(tmp_path):
    source = make_mimic(tmp_path / "mimic")
    drawn = manifest_of(convert([source], tmp_path))
    assert drawn["split"].value_counts().to_dict() == {"train": 9, "test": 2, "val": 1}
    assert drawn["split"].equals(manifest_of(convert([source], tmp_path, overwrite=True))["split"])
    test, val = tmp_path / "testset.csv", tmp_path / "valset.csv"
    test.write_text("".join(f"{p},{int(p == COHORT[0])}\n" for p in COHORT))
    val.write_text("".join(f"{p},{int(p == COHORT[1])}\n" for p in COHORT[1:]))
    listed = manifest_of(convert([source], tmp_path, splits=[test, val], overwrite=True))
    expected = {COHORT[0]: "test", COHORT[1]: "val"}
    assert dict(zip(listed["subject_id"], listed["split"])) == {p: expected.get(p, "train") for p in COHORT}
    one = tmp_path / "split.csv"
    one.write_text("split,subject_id\n" + "".join(f"{expected.get(p, 'train')},{p}\n" for p in COHORT))
    assert manifest_of(convert([source], tmp_path, splits=[one], overwrite=True))["split"].equals(listed["split"])


@pytest.mark.parametrize(("text", "message"), [
    ("subject_id,split\n10000,holdout\n", "expected one of train, val, test"),
    ("subject_id,split\n10000,train\n10000,test\n", "one is possible"),
    ("subject_id,split\n777,train\n", "another release"), ("10000,1\n", "two lists"), ("", "is empty")])
def test_a_bad_split_file_is_refused(tmp_path, text, message):
    (tmp_path / "split.csv").write_text(text)
    with pytest.raises(NnmissError, match=message):
        convert([make_mimic(tmp_path / "mimic")], tmp_path, splits=[tmp_path / "split.csv"])


def test_what_is_no_release_is_named(tmp_path):
    with pytest.raises(NnmissError, match="does not exist"):
        convert([tmp_path / "nowhere"], tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(NnmissError, match="no icustays"):
        convert([tmp_path / "empty"], tmp_path)
    source = make_mimic(tmp_path / "mimic", packed=True)
    whole = (source / "chartevents.csv.gz").read_bytes()
    (source / "chartevents.csv.gz").write_bytes(whole[:-40])
    with pytest.raises(NnmissError, match=r"chartevents.csv.gz cannot be read"):
        convert([source], tmp_path)
    (source / "chartevents.csv.gz").unlink()
    with pytest.raises(NnmissError, match="lacks the tables chartevents"):
        convert([source], tmp_path)
    assert not list((tmp_path / "raw").iterdir())  # nothing half-written, no events left behind


def test_stay_ids_that_are_no_numbers_cannot_name_files(tmp_path):
    source = make_mimic(tmp_path / "mimic", "IV 2.2")
    for name in ("icustays.csv", "chartevents.csv"):
        path = source / "icu" / name
        path.write_text(path.read_text().replace(stay_of(COHORT[0]), "../../../escaped"))
    with pytest.raises(NnmissError, match=r"icustays.csv: stay id '\.\./\.\./\.\./escaped' .* is no number"):
        mimic.convert([source], tmp_path / "a" / "raw", 856, Options(disable_progress_bar=True))
    assert not list(tmp_path.rglob("escaped*"))


def test_chest_x_rays_do_not_go_with_mimic_iii(tmp_path):
    make_cxr(tmp_path / "cxr", [("55555", 1, "AP")])
    with pytest.raises(NnmissError, match="goes with MIMIC-IV"):
        convert([make_mimic(tmp_path / "mimic"), tmp_path / "cxr"], tmp_path)


def test_small_pieces_give_the_same_as_large_ones(tmp_path, monkeypatch):
    source = make_mimic(tmp_path / "mimic")
    whole = convert([source], tmp_path)
    before = {path.name: path.read_text() for path in (whole.folder / "ehr").iterdir()}
    monkeypatch.setattr(tables_module, "CHUNK_ROWS", 3)
    pieces = convert([source], tmp_path, overwrite=True)
    assert {path.name: path.read_text() for path in (pieces.folder / "ehr").iterdir()} == before


@needs_demo
def test_the_demo_has_114_stays_and_57_of_48_hours_with_17_deaths(tmp_path):
    stays, _ = read_stays(tables_module.find_tables(DEMO))
    assert len(stays) == 114
    summary = convert([DEMO], tmp_path)
    table = manifest_of(summary)
    assert len(table) == 57 and (table["label"] == "1").sum() == 17 and set(table["cxr"]) == {""}
    chosen = stays[stays["stay_id"].isin(table.index[::10])]
    for stay, expected in slow_episodes(chosen).items():
        assert_same_episode(episode_of(summary, stay), expected)


def assert_same_episode(episode, expected):
    found = {(round(float(row["Hours"]), 5), name): row[name] for row in episode.to_dict("records") for name in VARIABLES
             if row[name]}
    assert found.keys() == expected.keys()
    for key, value in found.items():
        assert value == expected[key] or float(value) == pytest.approx(expected[key], rel=1e-4), key


def slow_episodes(stays):
    """Stay -> (hours, variable) -> value, row by row with the csv module: another way to the same rules."""
    of_admission = {stay.hadm_id: stay for stay in stays.itertuples()}
    expected = {stay: {} for stay in stays["stay_id"]}
    for table in ("chartevents", "labevents"):
        items = {str(item): v for v in variables() for item in v.items[table]}
        with gzip.open(DEMO / f"{table}.csv.gz", "rt", newline="") as file:
            for row in csv.DictReader(file):
                variable, stay = items.get(row["itemid"]), of_admission.get(row["hadm_id"])
                if variable is None or stay is None or row.get("icustay_id", "") not in ("", stay.stay_id):
                    continue
                hours = (np.datetime64(row["charttime"]) - stay.intime.to_datetime64()) / np.timedelta64(3600, "s")
                value = slow_value(variable, row["value"], row["itemid"], row["valueuom"])
                if 0 <= hours <= 48 and value is not None:
                    key, own = (round(float(hours), 5), variable.name), expected[stay.stay_id]
                    own[key] = max(value, own.get(key, value))
    return expected


def slow_value(variable, text, item, unit):
    if variable.values:
        text = {"Normal <3 secs": "0.0", "Brisk": "0.0", "Abnormal >3 secs": "1.0", "Delayed": "1.0"}.get(text, text)
        return text if text in variable.values else None
    if "/" in text and "pressure" in variable.name:
        text = text.split("/")[1 if "Diastolic" in variable.name else 0]
    try:
        value = float(text)
    except ValueError:
        return None
    if variable.name == "Fraction inspired oxygen" and value > 1 and "torr" not in unit:
        value /= 100
    if variable.name == "Oxygen saturation" and value <= 1:
        value *= 100
    if variable.name == "Temperature" and value >= 79:
        value = (value - 32) / 1.8
    if variable.name == "Weight":
        value *= {"226531": 0.453592, "3581": 0.453592, "3582": 0.453592 / 16}.get(item, 1)
    if variable.name == "Height" and (item in ("226707", "1394") or "in" in unit.lower()):
        value = float(round(value * 2.54))
    low, high = variable.outlier
    return None if not low <= value <= high else min(max(value, variable.valid[0]), variable.valid[1])


@needs_demo
def test_the_demo_gives_series_of_76_features(tmp_path):
    from nnmiss.classification.description import read_description
    from nnmiss.classification.kinds import KINDS

    summary = convert([DEMO], tmp_path, task="phenotyping")
    assert len(summary.training) + len(summary.test) == 113  # one of 114 has none of the variables
    spec, kind = read_description(summary.folder).modalities["ehr"], KINDS["timeseries"]
    values = [kind.read(summary.folder / "ehr" / f"{stay}.csv", spec) for stay in list(summary.training)[:5]]
    series = kind.transform(values, spec, kind.fit(values, spec))
    assert {s.shape[1] for s in series} == {76} and all(s.isfinite().all() for s in series)
