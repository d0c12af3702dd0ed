"""Reading raw classification data: what dataset.json and manifest.csv may say, and that every bad cell is named."""
from __future__ import annotations

import copy
import json

import numpy as np
import pandas as pd
import pytest
import torch
from raw_samples_folder import LABELS, MODALITIES, make_raw_folder, write_manifest

from nnmiss.availability import is_classification, modality_names
from nnmiss.classification.cache import load_raw_samples, write_raw_samples
from nnmiss.classification.description import parse_description, read_description
from nnmiss.classification.integrity import check_dataset, samples_there_are
from nnmiss.classification.manifest import read_manifest
from nnmiss.classification.raw_samples import find_misfits, read_raw_samples
from nnmiss.errors import NnmissError

CONTENT = {"task": "multiclass", "labels": LABELS["multiclass"], "modalities": MODALITIES}


@pytest.fixture
def raw_folder(tmp_path):
    make_raw_folder(tmp_path)
    return tmp_path


def read(folder, **options):
    return read_raw_samples(folder, read_description(folder), show_progress=False, **options)


def refusal(function, *arguments) -> str:
    with pytest.raises(NnmissError) as error:
        function(*arguments)
    return str(error.value)


def changed(folder, row, column, value):
    """Writes one other cell into manifest.csv."""
    manifest = pd.read_csv(folder / "manifest.csv", dtype=str, keep_default_na=False)
    manifest.loc[row, column] = value
    write_manifest(folder, manifest)


# ---- dataset.json -------------------------------------------------------------------------------------------------


def test_description_has_classes_in_the_order_of_their_values_and_defaults():
    labels = {"10": "ten", "9": "nine", "2": "two"}
    description = parse_description({**CONTENT, "labels": labels, "name": "x", "plan": {"batch_size": 16}}, "dataset.json")
    assert description.classes == ["two", "nine", "ten"] and description.label_values == ["2", "9", "10"]
    assert list(description.modalities) == ["image", "ehr", "clinical"] and description.path_modalities == ["image", "ehr"]
    assert description.modalities["ehr"]["timestep"] == 1.0  # the kind's default
    assert description.id_column == "sample_id" and description.group_column == "subject_id"
    assert description.plan == {"batch_size": 16}
    assert parse_description({**CONTENT, "labels": {"CN": "normal", "AD": "ill"}}, "").classes == ["normal", "ill"]


def test_availability_knows_the_modalities_of_both_kinds_of_data_sets():
    assert modality_names(CONTENT) == ["image", "ehr", "clinical"] and is_classification(CONTENT)
    assert modality_names({"channel_names": {"0": "t1", "1": "t2"}}) == ["t1", "t2"]
    assert not is_classification({"channel_names": {}, "labels": {}})


@pytest.mark.parametrize(("change", "words"), [
    ({"task": "regression"}, "multiclass, binary, multilabel"),
    ({"labels": ["a", "b"]}, "maps the value in the manifest"),
    ({"labels": {"0": "a"}}, "two or more"),
    ({"labels": {"0": "a", "1": "a"}}, "distinct"),
    ({"labels": {"0": "a|b", "1": "c"}}, '"|"'),
    ({"labels": {"0": "prediction", "1": "c"}}, "may not contain"),
    ({"task": "binary"}, "binary task are two"),
    ({"task": "multilabel", "labels": {"0": "a", "1": "b"}}, "list of at least two"),
    ({"label_groups": {"acute": ["CN"]}}, "for multilabel tasks"),
    ({"task": "multilabel", "labels": ["shock", "b"], "label_groups": {"acute": ["shok"]}}, "Did you mean shock"),
    ({"modalities": {"image": {"type": "image2d"}}}, "at least two"),
    ({"modalities": {"image": {"type": "picture"}, "b": {"type": "array"}}}, "'picture'"),
    ({"modalities": {"image": {"type": ["image2d"]}, "b": {"type": "array"}}}, "['image2d']"),
    ({"modalities": {"a": {"type": "array", "encoder": {"name": ["mlp"]}}, "b": {"type": "array"}}}, '"encoder"'),
    ({"modalities": {"a": {"type": "timeseries", "columns": ["x", "x"]}, "b": {"type": "array"}}}, "each once"),
    ({"modalities": {"a+b": {"type": "array"}, "b": {"type": "array"}}}, "'+'"),
    ({"modalities": {"Available": {"type": "array"}, "b": {"type": "array"}}}, "'available'"),
    ({"modalities": {"label": {"type": "array"}, "b": {"type": "array"}}}, "label would name two columns"),
    ({"modalities": {"a": {"type": "array", "file": "../a.npz"}, "b": {"type": "array"}}}, "must lie in"),
    ({"modalities": {"a": {"type": "array", "file": "/a.npz"}, "b": {"type": "array"}}}, "must lie in"),
    ({"modalities": {"a": {"type": "array", "encoder": "mlp"}, "b": {"type": "array"}}}, '"encoder"'),
    ({"modalities": {"a": {"type": "array", "scale": 1}, "b": {"type": "array"}}}, "unknown key 'scale'"),
    ({"plan": {"batchsize": 3}}, "batch_size, feature_dim, head"),
    ({"plan": {"batch_size": 0}}, "whole number from 1"),
    ({"plan": {"head": {"hidden": 64}}}, '"head"'),
    ({"plan": {"head": {"dropout": 1.0}}}, '"head"'),
    ({"id_column": ""}, '"id_column"'),
    ({"id_column": "label"}, "label would name two columns"),
])
def test_description_refuses_what_cannot_be_used(change, words):
    message = refusal(parse_description, {**copy.deepcopy(CONTENT), **change}, "x/dataset.json")
    assert words in message and message.startswith("x/dataset.json: ")


# ---- manifest.csv -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", LABELS)
def test_samples_are_read_and_joined_by_id(tmp_path, task):
    manifest = make_raw_folder(tmp_path, task=task)
    table = pd.read_csv(tmp_path / "tables" / "clinical.csv", dtype=str)
    table.sample(frac=1, random_state=1).to_csv(tmp_path / "tables" / "clinical.csv", index=False)  # another order
    raw, bad = read(tmp_path, num_threads=2)
    assert not bad and raw.ids == manifest["sample_id"].tolist() and raw.groups == manifest["subject_id"].tolist()
    for i, name in enumerate(raw.ids):
        assert raw.available[i].tolist() == [i % 4 != 3, True, i % 5 != 4]
        if i % 4 != 3:
            assert np.array_equal(raw.values["image"][raw.row["image"][i]][0], np.load(tmp_path / "image" / f"{name}.npy"))
        if i % 5 != 4:
            assert raw.values["clinical"][raw.row["clinical"][i]]["age"] == str(40 + i)
    targets = manifest[LABELS[task] if task == "multilabel" else ["label"]].to_numpy(int)
    assert torch.equal(raw.targets.long(), torch.tensor(targets[:, 0] if task == "multiclass" else targets))
    assert raw.split == [""] * len(raw) and raw.labelled.all()


@pytest.mark.parametrize("task", LABELS)
def test_empty_labels_are_unlabelled_and_spreadsheets_may_write_decimals(tmp_path, task):
    manifest = make_raw_folder(tmp_path, task=task)
    columns = LABELS[task] if task == "multilabel" else ["label"]
    manifest[columns] = manifest[columns].astype(float)
    manifest.loc[3, columns] = np.nan
    write_manifest(tmp_path, manifest)  # 1.0 and empty cells
    raw, _ = read(tmp_path)
    assert raw.labelled.tolist() == [i != 3 for i in range(len(raw))]
    known = raw.targets[raw.labelled].reshape(len(raw) - 1, -1).numpy()
    assert np.array_equal(known, manifest.loc[manifest.index != 3, columns].to_numpy())
    assert any("1 of 20 samples have no label" in note for note in check_dataset(tmp_path, read_description(tmp_path)))


def test_ids_stay_text_and_gz_and_byte_order_marks_are_read(tmp_path):
    manifest = make_raw_folder(tmp_path)
    table = pd.read_csv(tmp_path / "tables" / "clinical.csv", dtype=str)
    for frame in (manifest, table):
        frame["sample_id"] = frame["sample_id"].str.replace("s", "00")
    table.to_csv(tmp_path / "tables" / "clinical.csv", index=False)
    (tmp_path / "manifest.csv").unlink()
    manifest.to_csv(tmp_path / "manifest.csv.gz", index=False, encoding="utf-8-sig")
    raw, bad = read(tmp_path)
    assert not bad and raw.ids[:2] == ["0000", "0001"] and raw.available[:, 2].sum() == 16
    write_manifest(tmp_path, manifest)
    assert "exactly one" in refusal(read, tmp_path)


def test_prediction_needs_neither_labels_nor_every_column(tmp_path, capsys):
    manifest = make_raw_folder(tmp_path)
    description = read_description(tmp_path)
    write_manifest(tmp_path, manifest[["sample_id", "image"]][:3])
    (tmp_path / "tables" / "clinical.csv").unlink()
    raw, bad = read_raw_samples(tmp_path, description, show_progress=False)
    assert not bad and raw.available.tolist() == [[True, False, False]] * 3 and raw.groups == raw.ids
    assert not raw.labelled.any()
    assert "ehr (no column" in (out := capsys.readouterr().out) and "clinical (no samples" in out
    changed(tmp_path, 1, "image", "")
    raw, bad = read_raw_samples(tmp_path, description, show_progress=False)
    assert raw.ids == ["s00", "s02"] and "none of the modalities" in bad["s01"]
    raw, bad = read_raw_samples(tmp_path, description, ids=["s02", "s00"], show_progress=False)
    assert raw.ids == ["s00", "s02"] and not bad
    assert "has no sample s09" in refusal(lambda: read_raw_samples(tmp_path, description, ids=["s09"], show_progress=False))


def test_wrong_labels_do_not_stop_prediction_but_are_said(raw_folder, capsys):
    changed(raw_folder, 4, "label", "7")
    raw, bad = read(raw_folder)
    assert not bad and not raw.labelled[4] and "sample s04: column label: '7'" in capsys.readouterr().out


def test_samples_that_cannot_be_read_are_named_and_the_others_are_done(raw_folder):
    (raw_folder / "image" / "s00.npy").write_bytes(b"no array")
    (raw_folder / "ehr" / "s02.csv").write_text("")
    (raw_folder / "ehr" / "s05.csv").unlink()
    raw, bad = read(raw_folder)
    assert set(bad) == {"s00", "s02", "s05"} and raw.ids == [f"s{i:02d}" for i in range(20) if i not in (0, 2, 5)]
    assert "s00.npy" in bad["s00"] and "s02.csv" in bad["s02"] and "is not there" in bad["s05"]
    assert raw.values["image"][raw.row["image"][1]].shape == (1, 8, 8)
    np.save(raw_folder / "image" / "s01.npy", np.zeros((9, 8), np.uint8))
    misfits = find_misfits(read(raw_folder)[0])
    assert list(misfits) == ["s01"] and "9" in misfits["s01"]
    for path in raw_folder.glob("e*/*.csv"):
        path.write_text("")
    assert "no sample can be used" in (message := refusal(read, raw_folder)) and "... and" not in message.split("\n")[1]


# ---- the integrity check names every bad cell ----------------------------------------------------------------------


@pytest.mark.parametrize(("row", "column", "value", "words"), [
    (3, "sample_id", "", "column sample_id: empty in row 5"),
    (3, "sample_id", "s01", "id 's01' stands in rows 3, 5"),
    (3, "subject_id", "", "sample s03: column subject_id: empty"),
    (3, "label", "3", "sample s03: column label: '3' is none of the values 0, 1, 2"),
    (2, "image", "image/none.npy", "sample s02: column image: file image/none.npy is not there"),
    (2, "image", 300 * "x" + ".npy", "xxx.npy is not there"),
    (2, "image", "image", "sample s02: column image: file image is not there"),
    (2, "image", "../x.npy", "sample s02: column image: '../x.npy' must lie in the data set's folder"),
    (2, "image", "a/../../x.npy", "must lie in the data set's folder"),
    (2, "image", "/etc/passwd", "must lie in the data set's folder"),
    (2, "image", "C:/x.npy", "must lie in the data set's folder"),
    (2, "image", "image\\s02.npy", "must lie in the data set's folder"),
])
def test_every_bad_cell_is_named(raw_folder, row, column, value, words):
    changed(raw_folder, row, column, value)
    assert words in refusal(check_dataset, raw_folder, read_description(raw_folder))


@pytest.mark.parametrize(("row", "value", "words"), [
    (3, "valid", "sample s03: column split: 'valid' is none of train, val, test"),
    (3, "", "sample s03: column split: empty, while others say train or val"),
    (3, "val", "subject p01 is in train and val"),
])
def test_splits_are_checked(tmp_path, row, value, words):
    make_raw_folder(tmp_path, split=True)
    description = read_description(tmp_path)
    check_dataset(tmp_path, description)
    changed(tmp_path, row, "split", value)
    assert words in refusal(check_dataset, tmp_path, description)


def test_all_bad_cells_are_counted_and_twenty_shown(tmp_path):
    manifest = make_raw_folder(tmp_path, n=60)
    manifest.loc[:24, "label"] = "x"
    manifest.loc[[30, 31], "ehr"] = "gone.csv"
    write_manifest(tmp_path, manifest)
    message = refusal(check_dataset, tmp_path, read_description(tmp_path))
    assert "has 27 problems" in message and message.count("\n  - ") == 20 and "... and 7 more" in message


def test_samples_with_one_modality_are_fine_and_with_none_are_named(raw_folder):
    manifest = pd.read_csv(raw_folder / "manifest.csv", dtype=str, keep_default_na=False)
    manifest.loc[4, ["image", "ehr"]] = ["image/s04.npy", ""]  # no table row either
    write_manifest(raw_folder, manifest)
    check_dataset(raw_folder, read_description(raw_folder))
    assert samples_there_are(raw_folder)[0]["s04"] == (True, False, False)
    changed(raw_folder, 4, "image", "")
    assert "sample s04: has none of the modalities" in refusal(check_dataset, raw_folder, read_description(raw_folder))


def test_columns_and_files_of_all_samples_are_checked(raw_folder):
    manifest = pd.read_csv(raw_folder / "manifest.csv", dtype=str, keep_default_na=False)
    description = read_description(raw_folder)
    write_manifest(raw_folder, manifest.rename(columns={"image": "imagee"}))
    assert "no column 'image'. Did you mean imagee?" in refusal(check_dataset, raw_folder, description)
    write_manifest(raw_folder, manifest.drop(columns="label"))
    assert "no column 'label'" in refusal(check_dataset, raw_folder, description)
    write_manifest(raw_folder, manifest.rename(columns={"ehr": "image"}))
    assert "column names must differ and not be empty, got 'image'" in refusal(check_dataset, raw_folder, description)
    write_manifest(raw_folder, manifest.assign(label=""))
    assert "no sample has a label" in refusal(check_dataset, raw_folder, description)
    write_manifest(raw_folder, manifest.drop(columns="subject_id").assign(note="x"))
    notes = check_dataset(raw_folder, description)
    assert any("not used: note" in note for note in notes)
    named = parse_description({**description.content, "group_column": "subject_id"}, "")
    assert "no column 'subject_id'" in refusal(check_dataset, raw_folder, named)
    (raw_folder / "tables" / "clinical.csv").write_text("sample_id,age\ns00,5\ns99,6\ns98,7\n")
    notes = check_dataset(raw_folder, description)
    assert any("2 id(s) that the manifest lacks, which are not used: s99, s98" in note for note in notes)
    (raw_folder / "tables" / "clinical.csv").unlink()
    assert "clinical.csv" in refusal(check_dataset, raw_folder, description)


@pytest.mark.parametrize(("content", "words"), [
    (b"", "is empty"), (b"\x1f\x8b\xff\xfe", "cannot be"), (b"sample_id,label\n", "no row"),
    (b"label,image\n1,\n", "no column 'sample_id'"), (b"sample_id,label\na,1\nb,1,2\n", "line 3: 3 cells"),
    (b"sample_id,label,image\na,1,x\n\nb,1\n", "line 4: 2 cells"), (b"sample_id\n\xff\n", "cannot be read as csv"),
])
def test_damaged_manifests_are_refused(raw_folder, content, words):
    (raw_folder / "manifest.csv").write_bytes(content)
    assert words in refusal(read_manifest, raw_folder, read_description(raw_folder))


def test_some_label_columns_are_not_enough(tmp_path):
    manifest = make_raw_folder(tmp_path, task="multilabel")
    write_manifest(tmp_path, manifest.drop(columns="sepsis"))
    assert "lacks 'sepsis'" in refusal(read, tmp_path)


# ---- the cache ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", LABELS)
def test_what_is_stored_is_what_was_read(tmp_path, task):
    make_raw_folder(tmp_path / "raw", task=task, split=True)
    raw, _ = read(tmp_path / "raw")
    raw.targets[2] = -1 if task == "multiclass" else torch.nan
    write_raw_samples(raw, tmp_path / "cache")
    again = load_raw_samples(tmp_path / "cache")
    assert again.description == raw.description
    assert (again.ids, again.groups, again.split) == (raw.ids, raw.groups, raw.split)
    assert torch.equal(again.targets.nan_to_num(-1), raw.targets.nan_to_num(-1))
    assert again.targets.dtype == raw.targets.dtype
    for name in raw.modalities:
        assert torch.equal(again.row[name], raw.row[name])
        assert len(again.values[name]) == len(raw.values[name])
        for a, b in zip(again.values[name], raw.values[name]):
            assert a == b if isinstance(a, dict) else np.array_equal(a, b, equal_nan=True) and a.dtype == b.dtype


def test_a_half_written_or_damaged_cache_is_refused(tmp_path, monkeypatch):
    make_raw_folder(tmp_path / "raw")
    raw, _ = read(tmp_path / "raw")
    folder = tmp_path / "cache"
    write_raw_samples(raw, folder)
    with monkeypatch.context() as patched:
        patched.setattr(np, "savez", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            write_raw_samples(raw, folder)
    assert "nnmiss_plan_and_preprocess" in refusal(load_raw_samples, folder)
    write_raw_samples(raw, folder)
    (folder / "modality_0.npz").write_bytes(b"PK damaged")
    assert "modality_0.npz" in refusal(load_raw_samples, folder)
    write_raw_samples(raw.select([0, 1]), tmp_path / "other")
    (tmp_path / "other" / "modality_0.npz").replace(folder / "modality_0.npz")
    assert "does not fit" in refusal(load_raw_samples, folder)
    with open(folder / "modality_0.npz", "wb") as file:
        np.save(file, np.zeros(3))
    assert "modality_0.npz cannot be read" in refusal(load_raw_samples, folder)


def test_selected_samples_keep_their_values(raw_folder):
    raw, _ = read(raw_folder)
    some = raw.select([4, 3, 0])
    assert some.ids == ["s04", "s03", "s00"] and some.available.tolist() == raw.available[[4, 3, 0]].tolist()
    assert len(some.values["image"]) == 2
    assert np.array_equal(some.values["image"][some.row["image"][2]], raw.values["image"][raw.row["image"][0]])
    assert json.dumps(some.rows(["s00"]).tolist()) == "[2]"
