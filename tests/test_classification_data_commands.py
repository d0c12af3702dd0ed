"""nnmiss_plan_and_preprocess and nnmiss_simulate_missing on classification data, and commands that are not for them."""
from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from raw_samples_folder import MODALITIES, make_raw_folder, write_manifest

from nnmiss.availability import read_availability, read_missing_table
from nnmiss.classification.cache import load_raw_samples
from nnmiss.cli import export_brats, plan_and_preprocess, report, simulate_missing
from nnmiss.errors import NnmissError
from nnmiss.networks.encoders import build_encoder
from nnmiss.preprocessing.dataset_folders import dataset_kind, kind_of_dataset, load_dataset_json

NAME = "Dataset520_Tiny"


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """(raw, preprocessed) folder of the data set; the manifest has splits."""
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (tmp_path / variable).mkdir()
        monkeypatch.setenv(variable, str(tmp_path / variable))
    make_raw_folder(tmp_path / "nnUNet_raw" / NAME, n=24, split=True)
    return tmp_path / "nnUNet_raw" / NAME, tmp_path / "nnUNet_preprocessed" / NAME


@pytest.fixture
def plan(capsys):
    def run(*arguments):
        code = plan_and_preprocess.run(["-d", "520", "--no_pbar", *map(str, arguments)])
        return code, *capsys.readouterr()

    return run


def test_the_whole_flow(folders, plan):
    raw, folder = folders
    assert dataset_kind(raw) == kind_of_dataset(520) == "classification"
    code, out, err = plan("--verify_dataset_integrity")
    assert code == 0 and not err and "every file was read" in out
    assert "Next: nnmiss_train 520 metakd 0" in out and "fold 0 has 12/6/6 samples" in out
    stored = load_raw_samples(folder / "default")
    assert len(stored) == 24 and not list(folder.rglob(".*"))
    available = dict(zip(stored.ids, map(tuple, stored.available.tolist())))
    assert read_availability(folder, list(MODALITIES)) == available
    assert load_dataset_json(folder, kinds=("classification",)) == json.loads((raw / "dataset.json").read_text())
    splits = json.loads((folder / "splits_final.json").read_text())
    assert len(splits) == 6 and [len(splits[0][side]) for side in ("train", "val", "test")] == [12, 6, 6]
    assert len(pd.read_csv(folder / "subsets.csv")) == 4
    content = json.loads((folder / "nnMissPlans.json").read_text())
    assert content["task"] == "multiclass" and content["classes"] == ["CN", "MCI", "AD"] and content["dataset_name"] == NAME
    block = content["configurations"]["default"]
    assert set(block) == {"data_identifier", "batch_size", "feature_dim", "head", "modalities"}
    assert list(block["modalities"]) == list(MODALITIES) and block["batch_size"] == 8
    shapes = {"image": (1, 8, 8), "ehr": (None, 2), "clinical": (3,)}
    for name, entry in block["modalities"].items():
        assert entry["type"] == MODALITIES[name]["type"] and build_encoder(entry["encoder"], shapes[name]).features > 0
        assert f"{name}: {entry['type']}" in out
    before = {path: path.read_bytes() for path in folder.rglob("*.json")}
    assert "Splits: kept" in plan()[1]
    assert {path: path.read_bytes() for path in folder.rglob("*.json")} == before


def test_hints_of_dataset_json_come_first(folders, plan):
    raw, folder = folders
    make_raw_folder(raw, n=24, plan={"batch_size": 32, "feature_dim": 320, "head": {"hidden": [64, 32], "dropout": 0.4}},
                    modalities={**MODALITIES, "image": {"type": "image2d", "encoder": {"name": "resnet3"}}})
    assert plan()[0] == 0
    block = json.loads((folder / "nnMissPlans.json").read_text())["configurations"]["default"]
    assert (block["batch_size"], block["feature_dim"]) == (32, 320)
    assert block["head"] == {"hidden": [64, 32], "dropout": 0.4}
    assert block["modalities"]["image"]["encoder"] == {"name": "resnet3"}


def test_samples_that_cannot_be_read_are_left_out_by_name_or_stop_a_verification(folders, plan):
    raw, folder = folders
    (raw / "image" / "s00.npy").write_bytes(b"damaged")
    np.save(raw / "image" / "s01.npy", np.zeros((5, 5), np.uint8))
    code, _, err = plan("--verify_dataset_integrity")
    assert code == 1 and "has 2 problems" in err and "s00" in err and "s01" in err and not folder.exists()
    code, _, err = plan()
    assert code == 1 and "2 sample(s) failed, the others are done" in err and "s00.npy" in err
    assert load_raw_samples(folder / "default").ids == [f"s{i:02d}" for i in range(2, 24)]
    folds = json.loads((folder / "splits_final.json").read_text())
    named = {name for fold in folds for ids in fold.values() for name in ids}
    assert named == {f"s{i:02d}" for i in range(2, 24)}


def test_bad_cells_stop_everything_before_anything_is_written(folders, plan):
    raw, folder = folders
    manifest = pd.read_csv(raw / "manifest.csv", dtype=str, keep_default_na=False)
    manifest.loc[2, "image"], manifest.loc[5, "label"] = "image/lost.png", "9"
    write_manifest(raw, manifest)
    code, _, err = plan()
    assert code == 1 and "sample s02: column image" in err and "sample s05: column label" in err and not folder.exists()


def test_a_modality_that_nobody_has_is_said_and_planned(folders, plan):
    raw, _ = folders
    manifest = pd.read_csv(raw / "manifest.csv", dtype=str, keep_default_na=False)
    size = {**MODALITIES, "image": {"type": "image2d", "size": [16, 16], "channels": 3}}
    make_raw_folder(raw, n=24, modalities=size)
    write_manifest(raw, manifest.assign(image="", ehr=manifest["ehr"]))
    code, out, err = plan()
    assert code == 0 and "no sample has modality image" in out and "image2d 3 x 16 x 16" in out, err


def test_flags_of_segmentation_are_refused_and_no_pp_stores_nothing(folders, plan):
    for flags in (["-pl", "nnMissPlannerResEncL"], ["-gpu_memory_target", 8], ["--blank_is_missing"], ["-npfp", 2]):
        code, _, err = plan(*flags)
        assert code == 1 and flags[0] in err and "segmentation only" in err
    assert "one configuration default" in plan("-c", "2d")[2]
    assert plan("-c", "default", "--no_pp")[0] == 0
    assert (folders[1] / "nnMissPlans.json").is_file() and not (folders[1] / "default").exists()


def test_splits_by_name(folders, plan):
    raw, folder = folders
    (raw / "splits").mkdir()
    ids = [f"s{i:02d}" for i in range(24)]
    (raw / "splits" / "paper.json").write_text(json.dumps([{"train": ids[:12], "val": ids[12:20], "test": ids[20:]}]))
    assert plan("--splits", "paper")[0] == 0
    assert json.loads((folder / "splits_final.json").read_text())[0]["train"] == ids[:12]
    assert "neither a file nor" in plan("--splits", "papers")[2]


def test_missing_tables(folders, plan, capsys):
    raw, folder = folders
    names = list(MODALITIES)
    command = ["-d", "520", "--seed", "1", "-n"]
    assert simulate_missing.run([*command, "rates", "--protocol", "rates", "--rates", "image=0.5", "ehr=0.3"]) == 0
    assert "18 training samples" in capsys.readouterr().out  # none of those for testing
    kept = read_missing_table(raw / "missing" / "rates.csv", names)
    assert len(kept) == 18 and plan()[0] == 0
    available = read_availability(folder, names)
    assert all(a or not k for name, row in kept.items() for a, k in zip(available[name], row))
    assert sum(row[2] for row in kept.values()) == sum(available[name][2] for name in kept)  # its rate is 0
    assert simulate_missing.run([*command, "half", "--protocol", "full_ratio", "--ratio", "0.1", "--fold", "0"]) == 0
    half = read_missing_table(raw / "missing" / "half.csv", names)
    assert set(half) == set(json.loads((folder / "splits_final.json").read_text())[0]["train"])
    assert sum(map(all, half.values())) == 1
    with pytest.raises(NnmissError, match="brasyn"):
        simulate_missing.run([*command, "b", "--protocol", "brasyn"])
    with pytest.raises(NnmissError, match="fold 9"):
        simulate_missing.run([*command, "c", "--protocol", "rates", "--rates", "image=0.5", "--fold", "9"])


def test_commands_of_segmentation_say_so(folders, tmp_path):
    with pytest.raises(NnmissError, match="nnmiss_export_brats is for segmentation; this is a classification data set"):
        export_brats.run(["-i", str(tmp_path), "-r", str(tmp_path), "-o", str(tmp_path / "x"), "--year", "2020",
                          "-d", "520"])
    with pytest.raises(NnmissError, match="is for segmentation"):
        load_dataset_json(folders[0])
    results = tmp_path / "results.csv"
    results.write_text("subset,label,metric,value,low,high,n,resamples\nimage,all,accuracy,0.5,0.4,0.6,10,1000\n")
    with pytest.raises(NnmissError, match="nnmiss_report is for segmentation"):
        report.run(["-i", str(tmp_path), "-o", str(tmp_path / "r.html")])
