"""Files of anybody: none runs code, none writes outside its folder, none takes more memory than it is long."""
from __future__ import annotations

import gzip
import json
import os
import pickle
import resource
import struct
import subprocess
import sys
import tracemalloc
import zipfile

import nibabel
import numpy as np
import pytest
import torch
from tiny_models import DATASET, DATASET_JSON, MODEL, write_model

from nnmiss import array_files
from nnmiss.atomic_files import read_json
from nnmiss.availability import modality_names, read_availability, read_missing_table
from nnmiss.case_lists import read_case_list
from nnmiss.classification.cache import _read
from nnmiss.classification.kinds import csv_files
from nnmiss.classification.kinds.base import read_npz
from nnmiss.classification.kinds.csv_files import read_cells
from nnmiss.classification.kinds.npy_files import read_npy
from nnmiss.classification.kinds.volume import read_nifti
from nnmiss.errors import NnmissError
from nnmiss.evaluation.label_maps import read_label_map
from nnmiss.inference.checkpoints import content_fault, read_checkpoint
from nnmiss.inference.predictor import MissingModalityPredictor
from nnmiss.nifti_header import claim_fault, header_fault, read_claim
from nnmiss.plain_names import name_fault
from nnmiss.preprocessing.availability_table import read_table
from nnmiss.preprocessing.dataset_folders import load_dataset_json
from nnmiss.preprocessing.plan_checks import check_plans
from nnmiss.preprocessing.preprocess_dataset import preprocess_configuration
from nnmiss.preprocessing.raw_dataset import list_training_cases
from nnmiss.preprocessing.splits_file import read_splits
from nnmiss.preprocessing.whole_file import why_not_whole
from nnmiss.trainers import method_of_trainer
from nnmiss.trainers.load_classifier import load_classifier
from nnmiss.trainers.splits import load_or_make_splits

MB = 2**20


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, victim):
        self.victim = victim

    def __reduce__(self):
        return os.system, (f"touch {self.victim}",)


def refusal(call, *arguments, at_most_mb: int = 40) -> str:
    """The message of the NnmissError; Python may have used no more memory than so many MB meanwhile."""
    tracemalloc.start()
    try:
        with pytest.raises(NnmissError) as error:
            call(*arguments)
        used = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert used < at_most_mb * MB
    return str(error.value)


# ---- checkpoints -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("old_format", [False, True])
def test_a_pickle_runs_nothing(tmp_path, old_format):
    torch.save({"network_weights": {}, "x": Evil(tmp_path / "victim")}, tmp_path / "c.pth",
               _use_new_zipfile_serialization=not old_format)
    (tmp_path / "p.pth").write_bytes(pickle.dumps(Evil(tmp_path / "victim")))
    for name in ("c.pth", "p.pth"):
        assert f"{name} was refused" in refusal(read_checkpoint, tmp_path / name)
    assert not (tmp_path / "victim").exists()


@pytest.mark.parametrize("content, message", [
    ([1, 2], "no 'network_weights'"), ({"network_weights": [torch.ones(1)]}, "no 'network_weights'"),
    ({"network_weights": {"a": 1}}, "must hold tensors by name"),
    ({"network_weights": {3: torch.ones(1)}}, "must hold tensors"),
    ({"network_weights": {"a": torch.ones(1).expand(10**12)}}, r"a tensor of shape \(1000000000000,\) in 4 bytes"),
    ({"network_weights": {"a": torch.empty(10**12, device="meta")}}, "a tensor of an unusual kind"),
    ({"network_weights": {"a": torch.sparse_coo_tensor(torch.zeros(1, 1, dtype=torch.long), torch.ones(1), (10**9,))}},
     "was refused")])
def test_wrong_contents_are_named(tmp_path, content, message):
    torch.save(content, tmp_path / "c.pth")
    with pytest.raises(NnmissError, match=message):
        read_checkpoint(tmp_path / "c.pth")


def test_content_is_walked_without_recursion_and_once():
    deep, wide = [], []
    for _ in range(100_000):
        deep = [deep]
    for _ in range(200):  # 2^200 ways through it
        wide = [wide, wide]
    circle: list = []
    circle.append(circle)
    assert content_fault({"a": deep, "b": wide, "c": circle}) is None
    assert content_fault({"a": object()}) == "an object of type object"


def repacked(path, target, compression=zipfile.ZIP_STORED, change=lambda name, content: content):
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w", compression) as new:
        for info in old.infolist():
            new.writestr(info.filename, change(info.filename, old.read(info)))
    return target


def test_sizes_that_the_file_does_not_have_are_refused(tmp_path):
    torch.save({"network_weights": {"a": torch.zeros(20 * MB // 4)}}, tmp_path / "c.pth")
    packed = repacked(tmp_path / "c.pth", tmp_path / "bomb.pth", zipfile.ZIP_DEFLATED)
    assert packed.stat().st_size < MB and "are compressed" in refusal(read_checkpoint, packed, at_most_mb=5)
    big = repacked(tmp_path / "c.pth", tmp_path / "big.pth", change=lambda n, c: c[:0] if n.endswith("/0") else c)
    assert "was refused" in refusal(read_checkpoint, big, at_most_mb=5)
    content = bytearray((tmp_path / "c.pth").read_bytes())
    place = content.find(b"PK\x01\x02")
    content[place + 24:place + 28] = struct.pack("<I", 2**31)
    (tmp_path / "lies.pth").write_bytes(content)
    assert "was refused" in refusal(read_checkpoint, tmp_path / "lies.pth", at_most_mb=5)


def test_numbers_of_numpy_are_let_in_but_no_large_ones(tmp_path):
    class Large:
        def __reduce__(self):
            return np.dtype, ("V2000000000",)

    torch.save({"network_weights": {}, "log": [np.float32(0.5), np.int64(3), np.bool_(True)]}, tmp_path / "good.pth")
    assert [float(x) for x in read_checkpoint(tmp_path / "good.pth")["log"]] == [0.5, 3, 1]
    torch.save({"network_weights": {}, "x": Large()}, tmp_path / "bad.pth")
    assert "was refused" in refusal(read_checkpoint, tmp_path / "bad.pth")


# ---- models ----------------------------------------------------------------------------------------------------------


def load(folder):
    predictor = MissingModalityPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_folder(folder, None, "checkpoint_final.pth", method_of_trainer)
    return predictor


def test_a_model_of_a_plan_that_asks_for_terabytes_is_refused_without_them(tmp_path):
    folder = write_model(tmp_path)
    assert load(folder).network is not None
    plans = json.loads((folder / "plans.json").read_text())
    arch = plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
    arch["features_per_stage"] = [4000, 4000, 4000]  # 5 GB of weights for each of 3 convolutions and more
    (folder / "plans.json").write_text(json.dumps(plans))
    assert "does not fit the network of its plans" in refusal(load, folder)
    arch.update(features_per_stage=[6, 8, 10], n_conv_per_stage=[1])
    (folder / "plans.json").write_text(json.dumps(plans))
    assert "describes no network that can be built" in refusal(load, folder)


@pytest.mark.parametrize("change, message", [
    (lambda p, c: c["architecture"].update(network_class_name="os.system"), "network_class_name is 'os.system'"),
    (lambda p, c: c["architecture"]["arch_kwargs"].update(conv_op="os.system"), "conv_op is 'os.system'"),
    (lambda p, c: c["architecture"]["arch_kwargs"].update(nonlin="torch.hub.load"), "nonlin is"),
    (lambda p, c: c["architecture"]["arch_kwargs"].update(norm_op=["x"]), "norm_op is"),
    (lambda p, c: c["architecture"].update(_kw_requires_import=["norm_op_kwargs"]), "_kw_requires_import is"),
    (lambda p, c: c["architecture"].update(_kw_requires_import="conv_op"), "architecture is"),
    (lambda p, c: c["architecture"]["arch_kwargs"].update(features_per_stage=[10**9] * 3), "features_per_stage is"),
    (lambda p, c: c["architecture"]["arch_kwargs"].update(n_stages="3"), "n_stages is"),
    (lambda p, c: c["architecture"]["arch_kwargs"].update(features_per_stage=[16000] * 3), "parameters"),
    (lambda p, c: c["architecture"]["arch_kwargs"].update(n_conv_per_stage=[[2], [2], [2]]), "do not fit each other"),
    (lambda p, c: c["architecture"]["arch_kwargs"].update(n_stages=[3], n_conv_per_stage=1), "do not fit each other"),
    (lambda p, c: c.update(n_conv_per_stage_encoder=[10**7] * 3), "n_conv_per_stage_encoder is"),
    (lambda p, c: c.update(preprocessor_name="Pool"), "preprocessor_name is 'Pool'"),
    (lambda p, c: c.update(normalization_schemes=["np"]), "normalization_schemes is 'np'"),
    (lambda p, c: c.update(resampling_fn_data="recursive_find_python_class"), "resampling_fn_data is"),
    (lambda p, c: c.update(resampling_fn_seg_kwargs={"num_threads": 10**9}), "resampling_fn_seg_kwargs is"),
    (lambda p, c: c.update(data_identifier="../../../home"), "data_identifier is"),
    (lambda p, c: c.update(data_identifier="/home"), "data_identifier is"),
    (lambda p, c: c.update(data_identifier="a\0b"), "data_identifier is"),
    (lambda p, c: c.update(patch_size=[10**6] * 3), "patch_size is"),
    (lambda p, c: c.update(patch_size=[4096] * 3), "patch_size is"),
    (lambda p, c: c.update(spacing=[0, 1, 1]), "spacing is"),
    (lambda p, c: c.update(spacing=[float("nan")] * 3), "spacing is"),
    (lambda p, c: c.update(nnmiss={"width_factor": 1e9}), "width_factor is"),
    (lambda p, c: p["configurations"].update({f"c{i}": c for i in range(100)}), "a plan has at most 64"),
    (lambda p, c: c.update(inherits_from="3d_fullres"), "inherits_from"),
    (lambda p, c: p.update(image_reader_writer="os"), "image_reader_writer is 'os'"),
    (lambda p, c: p.update(label_manager="torch"), "label_manager is 'torch'"),
    (lambda p, c: p.update(dataset_name="../../etc"), "dataset_name is"),
    (lambda p, c: p.update(plans_name="/etc/x"), "plans_name is"),
    (lambda p, c: p.update(transpose_forward=[0, 0, 7]), "transpose_forward is"),
    (lambda p, c: p.update(configurations=[]), "is no plan"),
    (lambda p, c: p["configurations"].update(other=7), "other is 7")])
def test_a_plan_imports_and_writes_only_what_plans_do(tmp_path, change, message):
    plans = json.loads((write_model(tmp_path) / "plans.json").read_text())
    check_plans(plans, "plans.json")
    change(plans, plans["configurations"]["3d_fullres"])
    assert message in refusal(check_plans, plans, "plans.json")


def test_a_plan_cannot_have_another_folder_deleted(tmp_path, monkeypatch):
    """Preprocessing removes its old output, whose folder the plan names."""
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (tmp_path / variable / DATASET).mkdir(parents=True)
        monkeypatch.setenv(variable, str(tmp_path / variable))
    precious = tmp_path / "precious"
    precious.mkdir()
    plans = json.loads((write_model(tmp_path / "m") / "plans.json").read_text())
    for name in (str(precious), "../../precious"):
        plans["configurations"]["3d_fullres"]["data_identifier"] = name
        (tmp_path / "nnUNet_preprocessed" / DATASET / "nnMissPlans.json").write_text(json.dumps(plans))
        assert "data_identifier" in refusal(preprocess_configuration, DATASET, "3d_fullres", "nnMissPlans", 1)
    assert precious.is_dir()


@pytest.mark.parametrize("change", [
    {"init_args": None}, {"init_args": {"classes": ["a"], "configuration": 3}}, {"trainer_name": ["os.system"]},
    {"trainer_name": "os.system"}, {"nnmiss": 5}, {"layers": 10**9}, {"hidden": [10**12]}, {"shapes": {"table": "ab"}}])
def test_a_classifier_is_built_of_bounded_numbers(tmp_path, change):
    encoder = {"name": "lstm", "hidden": 4, "layers": change.pop("layers", 1)} if "layers" in change \
        else {"name": "mlp", "hidden": change.pop("hidden", [4])}
    made = {"configuration": {"feature_dim": 4, "modalities": {"table": {"encoder": encoder}}, "nnmiss": {}}, "fold": 0,
            "task": "binary", "classes": ["no", "yes"], "dataset_json": {}, "shapes": {"table": [7]}}
    made |= {"shapes": change.pop("shapes")} if "shapes" in change else {}
    stored = {"network_weights": {}, "init_args": made, "trainer_name": "nnMissClassifierFusion",
              "nnmiss": {"method": "fusion", "modalities": ["table"]}, **change}
    (tmp_path / "fold_0").mkdir()
    torch.save(stored, tmp_path / "fold_0" / "checkpoint_final.pth")
    assert refusal(load_classifier, tmp_path / "fold_0")


# ---- JSON ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [
    b"[" * 200_000, b'{"a":' * 200_000, b"[" * 150 + b"]" * 150, b"\xff\xfe{\0}\0", b"", b"{",
    b'{"a": ' + b"9" * 5000 + b"}", b"\0\0\0"])
def test_json_that_is_none_is_refused(tmp_path, content):
    (tmp_path / "x.json").write_bytes(content)
    assert "x.json is not valid JSON" in refusal(read_json, tmp_path / "x.json", "plan")


def test_a_json_file_of_any_size_takes_bounded_memory(tmp_path):
    with open(tmp_path / "big.json", "wb") as file:
        file.truncate(100 * MB)  # a hole in the file system
    assert "is larger than 64 MB" in refusal(read_json, tmp_path / "big.json", at_most_mb=70)
    assert "larger than 64 MB" in refusal(read_case_list, tmp_path / "big.json", at_most_mb=70)
    assert refusal(read_json, "/dev/zero", at_most_mb=70)


@pytest.mark.parametrize("change, message", [
    ({"channel_names": {"0": "../../x", "1": "b"}}, "'/'"), ({"channel_names": {"0": "..", "1": "b"}}, "begins with a dot"),
    ({"channel_names": {"0": "a\0", "1": "b"}}, "control"), ({"channel_names": {"0": "x" * 500, "1": "b"}}, "longer"),
    ({"channel_names": {"0": "a\\b", "1": "b"}}, "'/' or"),
    ({"channel_names": {"0": "\ud800", "1": "b"}}, "half a character"),
    ({"channel_names": 5}, "channel_names"), ({"channel_names": [["a"]]}, "channel_names"), ({"labels": []}, "labels"),
    ({"labels": {"background": 0, "a": "b"}}, "labels"), ({"labels": {"background": 0, "a": [[[1]]]}}, "labels"),
    ({"labels": {"background": 0, "a": 10**30}}, "labels|label values"), ({"numTraining": "2"}, "numTraining"),
    ({"file_ending": "/../../x"}, "file_ending"), ({"file_ending": ".nii\0"}, "file_ending"),
    ({"file_ending": {}}, "file_ending"),
    ({"overwrite_image_reader_writer": "os"}, "overwrite_image_reader_writer"),
    ({"labels": {"background": 0, "a": [1, 2], "b": 2}, "regions_class_order": ["a", "b"]}, "regions_class_order"),
    ({"dataset": {"../../evil": {"images": []}}}, "'../../evil'"),
    ({"dataset": {"/etc/evil": {"images": []}}}, "'/etc/evil'"),
    ({"dataset": {"a": {"images": [{}, 5]}}}, "names"), ({"dataset": {"a": {"images": ["x\0y", None]}}}, "do not exist"),
    ({"dataset": {"a": 3}}, "entry of case a"), ({"dataset": ["a"]}, "must map")])
def test_a_dataset_json_with_wrong_names_and_types_is_refused(tmp_path, change, message):
    (tmp_path / "dataset.json").write_text(json.dumps({**DATASET_JSON, **change}))

    def listed():
        return list_training_cases(tmp_path, load_dataset_json(tmp_path))

    why = refusal(listed)
    assert any(part in why for part in message.split("|"))


def test_names_that_lead_elsewhere_or_are_devices_are_no_names():
    good = ["t1ce", "BraTS2021_00001", "Fäll 1", "a.b-c_d", "console", "x" * 200]
    bad = ["", ".", "..", ".hidden", "a/b", "a\\b", "/a", "a\0", "a\nb", "CON", "nul.json", "com1", "x" * 201, "\u202eabc",
           None, 5]
    assert [name for name in good if name_fault(name)] == [] and [name for name in bad if not name_fault(name)] == []
    with pytest.raises(NnmissError, match="begins with a dot"):
        modality_names({"task": "binary", "modalities": {"..": {"type": "table"}, "a": {"type": "table"}}})


@pytest.mark.parametrize("content", [
    {}, "x", [[]], [{"train": "ab", "val": ["c"]}], [{"train": [["a"]], "val": ["b"]}], [{"train": {"a": 1}, "val": ["b"]}],
    [{"train": ["../../a"], "val": ["b"]}], [{"train": [None], "val": ["b"]}], [5]])
def test_splits_of_wrong_types_are_refused(tmp_path, content):
    (tmp_path / "splits_final.json").write_text(json.dumps(content))
    assert refusal(load_or_make_splits, tmp_path, ["a", "b", "c"])
    assert refusal(read_splits, tmp_path / "splits_final.json", ["a", "b", "c"])


@pytest.mark.parametrize("cases", [5, [], {"a": 5}, {"a": [True]}, {"../../a": [True, True]}, {"a": None}])
def test_an_availability_table_of_wrong_types_is_refused(tmp_path, cases):
    (tmp_path / "availability.json").write_text(json.dumps({"modalities": ["x", "y"], "cases": cases}))
    if cases != []:
        assert refusal(read_availability, tmp_path, ["x", "y"])
    (tmp_path / "availability.json").write_text("[" * 100_000)
    assert read_table(tmp_path) is None


# ---- tables ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [
    b"", b"case,a,b\nx,1,0\0\n", b"case,a,b\nx,=cmd|' /C calc'!A0,1\n", b"case,a,b\nx,1\n", b"case,a\nx,1\n",
    b"\xff\xfec\0a\0s\0e\0",
    b"case,a,b\n\xe9,1,1\xff\n", b'case,a,b\n"x,1,1\n', b"case,a,b\nx,1,1,1\n", b"case,a,b\nx," + b"1" * 10**6 + b",1\n"])
def test_tables_of_missingness_hold_zeros_and_ones_only(tmp_path, content):
    (tmp_path / "m.csv").write_bytes(content)
    assert "m.csv" in refusal(read_missing_table, tmp_path / "m.csv", ["a", "b"])


@pytest.mark.parametrize("content, message", [
    (b"id,a\nx,1\0\n", "NUL"), ("id,a\nx,1\n".encode("utf-16"), "cannot be read as csv"),
    (b"id,a\nx,\xff\n", "cannot be read"),
    (b"id,a\nx," + b"9" * 200_000, "field larger than field limit"), (b'id,a\n"x,1\n', "cannot be read"),
    (b"\x1f\x8b\x08\0garbage", "cannot be"), (b"id,a\nx\n", "cells")])
def test_other_tables_are_text(tmp_path, content, message):
    (tmp_path / "t.csv").write_bytes(content)
    assert message in refusal(read_cells, tmp_path / "t.csv")


def test_formulas_stay_text(tmp_path):
    (tmp_path / "t.csv").write_text("id,a\n=cmd|' /C calc'!A0,@SUM(1)\n")
    assert read_cells(tmp_path / "t.csv")[1] == [["=cmd|' /C calc'!A0", "@SUM(1)"]]
    assert csv_files.number("=1+1") is None


def test_a_packed_table_is_not_unpacked_without_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_files, "LITTLE", MB // 16)
    monkeypatch.setattr(csv_files, "LARGEST", MB // 16)
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b"id,a\n" + b"x,1\n" * (4 * MB // 4)))
    assert "larger than any table" in refusal(read_cells, tmp_path / "t.csv.gz", at_most_mb=10)


# ---- images ----------------------------------------------------------------------------------------------------------


def nifti(path, shape=(8, 8, 8), code=64, offset=352.0, extra=b"", bits=64):
    """A file with a header of these claims and 64 bytes of voxels."""
    header = nibabel.Nifti1Header()
    header["dim"][0], header["dim"][1:1 + len(shape)] = len(shape), shape
    raw = bytearray(header.binaryblock)
    struct.pack_into("<hh", raw, 70, code, bits)
    struct.pack_into("<f", raw, 108, offset)
    raw[344:348] = b"n+1\0"
    content = bytes(raw) + (extra or b"\0\0\0\0") + bytes(64)
    path.write_bytes(gzip.compress(content) if path.name.endswith("gz") else content)
    return path


HEADERS = {
    "huge": ({"shape": (32767,) * 3}, "more than the"), "huge7": ({"shape": (32767,) * 7}, "more than the"),
    "wraps": ({"shape": (16384, 16384, 16384, 16384, 2, 2, 2)}, "more than the"),
    "gigabytes": ({"shape": (1000, 1000, 1000)}, "can hold|truncated|are not free"),
    "negative": ({"shape": (-5, 8, 8)}, "impossible shape"),
    "zero": ({"shape": (0, 8, 8)}, "impossible shape"), "far": ({"offset": 3e9}, "begin at byte"),
    "nan": ({"offset": float("nan")}, "begin at byte"), "before": ({"offset": -1.0}, "begin at byte"),
    "type": ({"code": 9999}, "unknown data type"), "behind": ({"offset": 5000.0}, "truncated"),
    "extension": ({"offset": 5000.0, "extra": b"\1\0\0\0" + struct.pack("<ii", 2**31 - 16, 4)}, "extension of")}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", HEADERS)
def test_headers_that_claim_too_much_are_refused_before_anything_is_allocated(tmp_path, name, packed):
    claims, message = HEADERS[name]
    path = nifti(tmp_path / ("x.nii.gz" if packed else "x.nii"), **claims)
    assert path.stat().st_size < 1000
    tracemalloc.start()
    reason = why_not_whole(str(path))
    used = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert reason and any(part in reason for part in message.split("|")) and used < 5 * MB
    if name != "behind" and (packed or name != "gigabytes"):  # of these, what is there is read
        assert "x.nii" in refusal(read_nifti, path)
        assert "x.nii" in refusal(read_label_map, path, DATASET_JSON)


def test_a_lying_trailer_does_not_hide_a_claim(tmp_path):
    """gzip's length of the whole, modulo 2^32, is what the header needs; the file has 100 kB."""
    path = nifti(tmp_path / "x.nii.gz", shape=(1024, 1024, 512), extra=bytes(4) + os.urandom(10**5))
    content = bytearray(path.read_bytes())
    content[-4:] = struct.pack("<I", (352 + 1024 * 1024 * 512 * 8) % 2**32)
    path.write_bytes(content)
    assert "bytes of gzip can hold" in header_fault(path) and "bytes of gzip can hold" in why_not_whole(str(path))


def test_claims_are_held_against_memory_and_both_orders_of_bytes_are_read(monkeypatch):
    header = nibabel.Nifti1Header(endianness=">")
    header.set_data_shape((700, 700, 700))
    header.set_data_dtype(np.uint8)
    claim = read_claim(header.binaryblock + bytes(200))
    assert claim.shape == (700, 700, 700) and claim.item == 1 and claim.order == ">"
    monkeypatch.setattr("nnmiss.nifti_header.memory", lambda: 2**30)
    assert "2.6 GB of memory are not free" in claim_fault(claim, 10**9, False)
    monkeypatch.setattr("nnmiss.nifti_header.memory", lambda: 2**32)
    assert claim_fault(claim, 10**9, True) is None
    two = nibabel.Nifti2Header()
    two.set_data_shape((2**40, 2, 2))
    assert "more than" in claim_fault(read_claim(two.binaryblock), 10**6, False)


def test_a_bomb_behind_the_voxels_is_not_unpacked(tmp_path, monkeypatch):
    image = nibabel.Nifti1Image(np.ones((8, 8, 8), np.float32), np.eye(4)).to_bytes()
    path = tmp_path / "x.nii.gz"
    with gzip.open(path, "wb", 1) as file:
        file.write(image)
        for _ in range(64):
            file.write(bytes(MB))
    read, real = [], gzip.GzipFile.read
    monkeypatch.setattr(gzip.GzipFile, "read", lambda self, n=-1: read.append(n) or real(self, n))
    assert why_not_whole(str(path), thorough=True) is None
    assert sum(n for n in read if n == MB) < 40 * MB


def test_sound_images_pass(tmp_path):
    for name in ("a.nii", "a.nii.gz"):
        nibabel.save(nibabel.Nifti1Image(np.zeros((4, 5, 6), np.int16), np.eye(4)), tmp_path / name)
        assert header_fault(tmp_path / name) is None and read_nifti(tmp_path / name).shape == (6, 5, 4)
    (tmp_path / "text.nii").write_bytes(b"n" * 600)
    assert header_fault(tmp_path / "text.nii") == "it is no NIfTI file"


@pytest.mark.slow
def test_a_process_with_little_memory_refuses_them_all(tmp_path):
    """Not only by what Python counts: the system stops the process where it would take more than 3 GB of addresses."""
    paths = [str(nifti(tmp_path / f"{name}.nii.gz", **claims)) for name, (claims, _) in HEADERS.items()]
    code = ("import resource, sys; from nnmiss.preprocessing.read_case import _read; from nnmiss.preprocessing.raw_dataset "
            "import RawCase; from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO; from nnmiss.errors import "
            "NnmissError\nimport nibabel, torch\nresource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))\n"
            "for path in sys.argv[1:]:\n    try:\n        _read(RawCase('c', {0: path}, None), 'm', path, lambda f: "
            "SimpleITKIO().read_images((f,)), False, False)\n        sys.exit(path)\n    except NnmissError as error:\n"
            "        assert path in str(error), error\nprint(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)")
    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) < 2 * 2**20 and resource.RLIMIT_AS  # kB; libraries alone take half a gigabyte


# ---- arrays ----------------------------------------------------------------------------------------------------------


def npy(path, shape, content=b"", descr="<f8"):
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape!r}, }}".encode()
    header += b" " * (64 - (10 + len(header) + 1) % 64) + b"\n"
    path.write_bytes(b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header + content)
    return path


@pytest.mark.parametrize("shape", [(10**13,), (10**6, 10**6, 10**6, 10**6), (2**32, 2**32), (100, 100, 1000)])
def test_an_array_of_more_than_its_file_is_refused(tmp_path, shape):
    assert "x.npy" in refusal(read_npy, npy(tmp_path / "x.npy", shape, bytes(64)), at_most_mb=2)


def test_arrays_of_objects_run_nothing(tmp_path):
    evil = np.array([Evil(tmp_path / "victim")], dtype=object)
    np.save(tmp_path / "x.npy", evil, allow_pickle=True)
    np.savez(tmp_path / "x.npz", ids=np.array(["a"]), values=evil, row=evil, targets=evil)
    assert "objects" in refusal(read_npy, tmp_path / "x.npy")
    assert "objects" in refusal(read_npz, tmp_path / "x.npz")
    assert "objects" in refusal(_read, tmp_path / "x.npz", ("row",))
    assert not (tmp_path / "victim").exists()


def test_a_packed_array_is_held_against_memory_before_it_is_unpacked(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "x.npz", ids=np.array(["a"]), values=np.zeros((1, 20 * MB), np.uint8))
    monkeypatch.setattr(array_files, "LITTLE", MB)
    monkeypatch.setattr(array_files, "free_bytes", lambda _: 10 * MB)
    for call in (lambda: read_npz(tmp_path / "x.npz"), lambda: _read(tmp_path / "x.npz", ("ids",))):
        assert "GB of memory are free" in refusal(call, at_most_mb=5)
    (tmp_path / "a.npy").write_bytes(npy(tmp_path / "a.npy", (10**12,)).read_bytes())
    with zipfile.ZipFile(tmp_path / "lies.npz", "w") as archive:
        archive.write(tmp_path / "a.npy", "values.npy")
        archive.write(tmp_path / "a.npy", "ids.npy")
    assert "claims an array" in refusal(read_npz, tmp_path / "lies.npz", at_most_mb=5)


def test_a_model_folder_is_called_as_its_checkpoint(tmp_path):
    folder = write_model(tmp_path)
    other = folder.rename(folder.with_name(MODEL.replace("MetaKD", "LCKD")))
    assert "was trained by nnMissTrainerMetaKD" in refusal(load, other)
