"""nnmiss_export_model and nnmiss_install_model: what goes round, what a hostile zip may not do, what stays on errors."""
from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import stat
import struct
import zipfile

import numpy as np
import pytest
import torch
from tiny_dataset import PLANS, SHORT, fold_folder
from tiny_dataset import test_images as image_folder
from tiny_models import DATASET, DATASET_JSON, MODEL, members, rewritten, write_model

from nnmiss.cli import export_model, install_model, predict, train
from nnmiss.errors import NnmissError
from nnmiss.inference.checkpoints import read_checkpoint
from nnmiss.model_files import install

ABOVE = f"{DATASET}/{MODEL}/"
WEIGHTS = f"{ABOVE}fold_0/checkpoint_final.pth"


@pytest.fixture(scope="module")
def model_zip(tmp_path_factory):
    """A zip of a model of two folds, made once."""
    root = tmp_path_factory.mktemp("exported")
    write_model(root / "results", folds=(0, 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("nnUNet_results", str(root / "results"))
        for variable in ("nnUNet_raw", "nnUNet_preprocessed"):
            patch.delenv(variable, raising=False)
        assert export_model.run(["-d", "900", "-m", "metakd", "-o", str(root / "model.zip")]) == 0
    return root / "model.zip"


@pytest.fixture
def results(tmp_path, monkeypatch):
    """An empty nnUNet_results; whatever else appears beside it was written outside."""
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    monkeypatch.delenv("nnUNet_raw", raising=False)
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    (tmp_path / "results").mkdir()
    return tmp_path / "results"


def refused(path, results, *flags) -> str:
    """Why a zip is refused; nothing may be written then, inside or outside of `results`."""
    before = sorted(map(str, results.parent.rglob("*")))
    with pytest.raises(NnmissError) as error:
        install_model.run([str(path), *flags])
    assert sorted(map(str, results.parent.rglob("*"))) == before
    return str(error.value)


def refused_with(results, contents, sign=True) -> str:
    """Why a zip of these contents is refused."""
    return refused(rewritten(results, contents, sign), results)


# ---- what goes round ------------------------------------------------------------------------------------------------


def test_a_model_goes_round_and_tells_no_names(model_zip, results, capsys):
    assert install_model.run([str(model_zip)]) == 0
    assert "-d Dataset900_Made -m metakd -p nnMissPlans -c 3d_fullres" in capsys.readouterr().out
    folder = results / DATASET / MODEL
    assert sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()) == sorted([
        "dataset.json", "plans.json", *[f"fold_{k}/{name}" for k in (0, 1) for name in (
            "checkpoint_final.pth", "run.json", "validation/results.csv")]])
    there = read_checkpoint(folder / "fold_1/checkpoint_final.pth")
    original = read_checkpoint(model_zip.parent / "results" / DATASET / MODEL / "fold_1/checkpoint_final.pth")
    assert all(torch.equal(value, there["network_weights"][name]) for name, value in original["network_weights"].items())
    assert "optimizer_state" not in there and "plans" not in there["init_args"]
    assert there["nnmiss"]["inference_only"] is True
    assert not any(b"miller" in content for content in members(model_zip).values())
    assert {path.name for path in (results / DATASET).iterdir()} == {MODEL}


def test_the_same_model_gives_the_same_bytes_and_no_pickle_names_anything_but_tensors(model_zip, tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_results", str(model_zip.parent / "results"))
    assert export_model.run(["-d", DATASET, "-m", "metakd", "-o", str(tmp_path / "again.zip")]) == 0
    assert (tmp_path / "again.zip").read_bytes() == model_zip.read_bytes()
    with zipfile.ZipFile(io.BytesIO(members(model_zip)[WEIGHTS])) as checkpoint:
        record = checkpoint.read("archive/data.pkl")
    named = {argument for op, argument, _ in pickle_ops(record) if op == "GLOBAL"}
    assert named <= {"collections OrderedDict", "torch._utils _rebuild_tensor_v2", "torch FloatStorage",
                     "torch LongStorage", "torch BoolStorage"}


def pickle_ops(record):
    import pickletools

    return [(op.name, argument, place) for op, argument, place in pickletools.genops(record)]


@pytest.mark.parametrize("arguments, message", [
    (["-f", "3"], r"checkpoint_final\.pth not found"), (["-chk", "checkpoint_best.pth"], "no fold with checkpoint_best"),
    (["-c", "2d"], "no trained model in"), (["-m", "lckd"], "no trained model"),
    (["-o", "model.tar"], "must name a zip")])
def test_what_cannot_be_exported_is_named(model_zip, tmp_path, monkeypatch, arguments, message):
    monkeypatch.setenv("nnUNet_results", str(model_zip.parent / "results"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NnmissError, match=message):
        export_model.run(["-d", "900", "-m", "metakd", "-o", "out.zip", *arguments])
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_whose_name_could_not_be_installed_is_not_exported(tmp_path, monkeypatch):
    folder = write_model(tmp_path / "results")
    (folder / "fold_0/checkpoint_final.pth").rename(folder / "fold_0/my-best.pth")
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    with pytest.raises(NnmissError, match="no file of a model"):
        export_model.run(["-d", "900", "-m", "metakd", "-o", str(tmp_path / "m.zip"), "-chk", "my-best.pth"])
    assert [path.name for path in tmp_path.iterdir()] == ["results"]


def test_an_installed_model_predicts_as_the_one_that_was_exported(tiny, tmp_path, monkeypatch):
    run = ["801", "metakd", "0", "-p", PLANS, "-device", "cpu", "--disable_progress_bar", "--no_val", *SHORT,
           "num_epochs=2"]
    train.run(run)
    asked = ["-i", str(image_folder()), "-d", "801", "-m", "metakd", "-p", PLANS, "-device", "cpu", "--disable_tta",
             "--disable_progress_bar", "--cases", "test_000"]
    assert predict.run([*asked, "-o", str(tmp_path / "before")]) == 0
    assert export_model.run(["-d", "801", "-m", "metakd", "-p", PLANS, "-o", str(tmp_path / "m.zip")]) == 0
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "elsewhere"))
    assert install_model.run([str(tmp_path / "m.zip")]) == 0
    assert predict.run([*asked, "-o", str(tmp_path / "after")]) == 0
    assert (tmp_path / "after/test_000.nii.gz").read_bytes() == (tmp_path / "before/test_000.nii.gz").read_bytes()
    # a run cannot go on from what is for prediction only
    latest = tmp_path / "elsewhere" / fold_folder(tiny).relative_to(tiny / "nnUNet_results") / "checkpoint_final.pth"
    shutil.copy(latest, fold_folder(tiny) / "checkpoint_latest.pth")
    (fold_folder(tiny) / "checkpoint_final.pth").unlink()
    monkeypatch.setenv("nnUNet_results", str(tiny / "nnUNet_results"))
    with pytest.raises(NnmissError, match="for prediction only"):
        train.run(run)


# ---- replacing -------------------------------------------------------------------------------------------------------


def test_a_model_that_is_there_stays_unless_asked(model_zip, results):
    install_model.run([str(model_zip)])
    own = results / DATASET / MODEL / "fold_0" / "own.txt"
    own.write_text("mine")
    assert "is there already" in refused(model_zip, results)
    assert own.read_text() == "mine"
    assert install_model.run([str(model_zip), "--overwrite"]) == 0
    assert not own.exists() and {path.name for path in (results / DATASET).iterdir()} == {MODEL}


def test_the_old_model_comes_back_when_the_new_one_cannot_be_moved(model_zip, results, monkeypatch):
    install_model.run([str(model_zip)])
    own = results / DATASET / MODEL / "own.txt"
    own.write_text("mine")
    real, calls = os.replace, []

    def fails_at_the_second(source, target):
        calls.append(source)
        if len(calls) == 2:
            raise OSError("no")
        return real(source, target)

    monkeypatch.setattr(install.os, "replace", fails_at_the_second)
    with pytest.raises(OSError, match="no"):
        install_model.run([str(model_zip), "--overwrite"])
    assert own.read_text() == "mine" and {path.name for path in (results / DATASET).iterdir()} == {MODEL}


def test_a_replacement_killed_between_its_two_moves_is_put_back(model_zip, results):
    install_model.run([str(model_zip)])
    folder = results / DATASET / MODEL
    folder.rename(folder.with_name(f".{MODEL}.replaced"))  # as SIGKILL between the two moves leaves it
    assert "is there already" in refused_but_restored(model_zip)
    assert (folder / "plans.json").is_file() and {path.name for path in (results / DATASET).iterdir()} == {MODEL}


def refused_but_restored(path) -> str:
    with pytest.raises(NnmissError) as error:
        install_model.run([str(path)])
    return str(error.value)


def test_a_link_in_the_place_of_the_model_is_not_followed(model_zip, results, tmp_path):
    (tmp_path / "precious").mkdir()
    (results / DATASET).mkdir()
    (results / DATASET / MODEL).symlink_to(tmp_path / "precious")
    assert "is a link" in refused(model_zip, results, "--overwrite")


# ---- hostile archives ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [
    "../evil.txt", f"{ABOVE}../../../evil.txt", "/tmp/evil.txt", "C:/evil.txt", f"{ABOVE}fold_0\\..\\evil.txt",
    f"{ABOVE}.evil", f"{ABOVE}nul.json", f"{ABOVE}evil\x07.json", f"{ABOVE}evil.py", f"{ABOVE}fold_0/checkpoint_best.pth",
    f"{ABOVE}fold_7/run.json", "Dataset901_Other/x/plans.json", f"{ABOVE}fold_0/", f"{ABOVE}PLANS.JSON",
    f"{ABOVE}" + "x" * 300])
def test_members_that_no_model_has_are_refused(model_zip, results, name):
    contents = {**members(model_zip), name: b""}
    for sign in (False, True):
        why = refused_with(results, contents, sign)
        assert any(said in why for said in ("was refused", "no file of a model", "of no fold that it names"))


def test_a_name_that_comes_twice_is_refused(model_zip, results):
    path = rewritten(results, members(model_zip))
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(f"{ABOVE}plans.json", b"{}")
    assert "have one name" in refused(path, results)


@pytest.mark.parametrize("mode", [stat.S_IFLNK | 0o777, stat.S_IFIFO | 0o600, stat.S_IFCHR | 0o600, stat.S_IFDIR | 0o755])
def test_links_and_special_files_are_refused(model_zip, results, mode):
    target = results.with_name("changed.zip")
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in members(model_zip).items():
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16 if name.endswith("run.json") else 0
            archive.writestr(info, b"/etc/passwd" if name.endswith("run.json") else content)
    assert "a link or another special file" in refused(target, results)


def test_contents_that_are_not_those_of_the_manifest_are_refused(model_zip, results):
    contents = members(model_zip)
    changed = {**contents, f"{ABOVE}plans.json": contents[f"{ABOVE}plans.json"].replace(b"nnMissPlans", b"nnMissPlanz", 1)}
    assert "length or sha256 differs" in refused_with(results, changed, sign=False)
    longer = {**contents, f"{ABOVE}plans.json": contents[f"{ABOVE}plans.json"] + b" "}
    assert "manifest.json says" in refused_with(results, longer, sign=False)
    fewer = {name: content for name, content in contents.items() if not name.endswith("run.json")}
    assert "do not list the same files" in refused_with(results, fewer, sign=False)
    more = {**contents, f"{ABOVE}fold_0/run.jsonx": b""}
    assert "do not list the same files" in refused_with(results, more, sign=False)


@pytest.mark.parametrize("change, message", [
    ({"version": 2}, "format version 2"), ({"version": True}, "format version True"), ({"format": "zip"}, "another format"),
    ({"dataset": "../up"}, "dataset '../up'"), ({"model": "/abs__a__b"}, "cannot be used"),
    ({"model": "x"}, "TRAINER__PLANS"), ({"folds": ["fold_0", "../../x"]}, "folds are"), ({"folds": "fold_0"}, "folds are"),
    ({"files": []}, "lists no files"), ({"files": {"../x.json": {}}}, "no file of a model"),
    ({"files": {"plans.json": {"sha256": "0" * 64, "bytes": -1}}}, "bytes"),
    ({"files": {}}, "lacks plans.json"), ({"task": "classification"}, "lacks fold_0/preprocessing.json"),
    ({"model": "nnMissTrainerEvil__a__b"}, "do not list|none of this nnmiss"),
    ({"checkpoint": "../../x.pth"}, "checkpoint")])
def test_a_strange_manifest_is_refused(model_zip, results, change, message):
    contents = members(model_zip)
    contents["manifest.json"] = json.dumps({**json.loads(contents["manifest.json"]), **change}).encode()
    assert message.split("|")[0] in (why := refused_with(results, contents, sign=False)) \
        or message.split("|")[-1] in why


@pytest.mark.parametrize("content", [
    b"", b"[]", b"null", b"[" * 100_000, b'{"a":' * 500 + b"1" + b"}" * 500, b"\xff\xfe", b"{"])
def test_a_manifest_that_is_none_is_refused(model_zip, results, content):
    contents = {**members(model_zip), "manifest.json": content}
    assert "manifest.json" in refused_with(results, contents, sign=False)


def test_bombs_are_refused_before_they_are_unpacked(model_zip, results):
    contents = members(model_zip)
    zeros = {**contents, WEIGHTS: bytes(20 << 20)}
    assert "claim to unpack to" in refused_with(results, zeros)
    assert "the limit is 0.0001" in refused(model_zip, results, "--max_gb", "0.0001")


def test_a_member_longer_than_its_header_says_is_cut_off(model_zip, results, tmp_path):
    """The list of contents and the manifest agree on 10 bytes; the compressed stream has 5 million."""
    contents = members(model_zip)
    name = f"{ABOVE}fold_0/run.json"
    path = rewritten(results, {**contents, name: bytes(5 << 20)})
    whole = bytearray(path.read_bytes())
    for signature, at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        place = whole.find(name.encode(), whole.find(b"PK\x01\x02") if at == 24 else 0) - (30 if at == 22 else 46)
        assert whole[place:place + 4] == signature
        whole[place + at:place + at + 4] = struct.pack("<I", 10)
    path.write_bytes(whole)
    manifest = json.loads(members(model_zip)["manifest.json"])
    with zipfile.ZipFile(path) as archive:
        manifest["files"] = json.loads(archive.read("manifest.json"))["files"]
    manifest["files"]["fold_0/run.json"]["bytes"] = 10
    kept = {info.filename: info for info in zipfile.ZipFile(path).infolist()}
    assert kept[name].file_size == 10
    from nnmiss.model_files.zip_safety import open_zip, unpack

    with open_zip(path) as archive, pytest.raises(NnmissError, match=r"damaged|is not what"):
        unpack(archive, kept[name], tmp_path / "out", 10, "0" * 64)
    assert (tmp_path / "out").stat().st_size <= 10


def test_too_many_members_overlaps_and_no_zips_are_refused(model_zip, results):
    many = results.with_name("many.zip")
    with zipfile.ZipFile(many, "w") as archive:
        for i in range(3000):
            archive.writestr(f"{i}", b"")
    assert "claims 3,000 files" in refused(many, results)
    whole = model_zip.read_bytes()
    cut, behind, text = (results.with_name(name) for name in ("cut.zip", "behind.zip", "text.zip"))
    cut.write_bytes(whole[:len(whole) // 2])
    behind.write_bytes(whole + b"more")
    text.write_bytes(b"no zip at all")
    for path in (cut, behind, text):
        assert "no zip" in refused(path, results)
    assert "not found" in refused(results.with_name("none.zip"), results)
    entry = bytearray(rewritten(results, members(model_zip)).read_bytes())
    second = entry.find(b"PK\x01\x02", entry.find(b"PK\x01\x02") + 4)
    entry[second + 42:second + 46] = struct.pack("<I", 0)  # the second file begins where the first does
    results.with_name("overlap.zip").write_bytes(entry)
    assert "overlaps" in refused(results.with_name("overlap.zip"), results)


# ---- hostile contents ------------------------------------------------------------------------------------------------


class Evil:
    def __init__(self, victim):
        self.victim = victim

    def __reduce__(self):
        return os.system, (f"touch {self.victim}",)


def saved(content) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def changed_weights(model_zip, change) -> dict[str, bytes]:
    contents = members(model_zip)
    checkpoint = torch.load(io.BytesIO(contents[WEIGHTS]), weights_only=True)
    change(checkpoint)
    return {**contents, WEIGHTS: saved(checkpoint)}


@pytest.mark.parametrize("change, message", [
    (lambda c: c.update(optimizer_state={}), "more than prediction needs: 'optimizer_state'"),
    (lambda c: c.update(trainer_name="nnMissTrainerLCKD"), "the manifest says"),
    (lambda c: c.update(trainer_name=5), "trainer_name is 5"),
    (lambda c: c.update(init_args=[]), "init_args"),
    (lambda c: c["init_args"].update(configuration="2d"), "which"),
    (lambda c: c.update(inference_allowed_mirroring_axes=[7]), "mirroring_axes"),
    (lambda c: next(iter(c["network_weights"].values())).fill_(float("nan")), "NaN"),
    (lambda c: c["network_weights"].popitem(), "does not fit"),
    (lambda c: c["network_weights"].update(more=torch.ones(3)), "does not fit"),
    (lambda c: c["network_weights"].update({next(iter(c["network_weights"])): torch.ones(1)}), "does not fit"),
    (lambda c: c["network_weights"].update(more="text"), "must hold tensors"),
    (lambda c: c.pop("nnmiss"), "nnmiss / method")])
def test_checkpoints_that_do_not_fit_are_refused(model_zip, results, change, message):
    assert message in refused_with(results, changed_weights(model_zip, change))


def test_a_checkpoint_that_runs_code_is_refused_and_runs_nothing(model_zip, results, tmp_path):
    contents = changed_weights(model_zip, lambda c: c["nnmiss"].update(state=Evil(tmp_path / "victim")))
    assert "was refused" in refused_with(results, contents)
    assert "was refused" in refused_with(results, {**members(model_zip), WEIGHTS: pickle.dumps(Evil(tmp_path / "v"))})
    assert not (tmp_path / "victim").exists() and not (tmp_path / "v").exists()


@pytest.mark.parametrize("name, old, new, message", [
    ("plans.json", b"dynamic_network_architectures.architectures.unet.PlainConvUNet", b"os.system", "network_class_name"),
    ("plans.json", b"torch.nn.LeakyReLU", b"builtins.eval", "nonlin"),
    ("plans.json", b"SimpleITKIO", b"subprocess", "image_reader_writer"),
    ("plans.json", b"DefaultPreprocessor", b"Pool", "preprocessor_name"),
    ("plans.json", b'"plans_name": "nnMissPlans"', b'"plans_name": "../../x"', "plans_name"),
    ("plans.json", b'"nnMissPlans_3d_fullres"', b'"/home"', "data_identifier"),
    ("plans.json", b'"3d_fullres": {', b'"other": {', "no configuration 3d_fullres"),
    ("dataset.json", b'".nii.gz"', b'"/../../x.nii.gz"', "file_ending"),
    ("dataset.json", b'"flair"', b'".."', "modality name"),
    ("dataset.json", b'"background": 0', b'"background": 9', "labels"),
    ("dataset.json", b'"labels"', b'"label"', "labels"),
    ("fold_0/run.json", b'"settings"', b'"x"', "run record"),
    ("fold_0/validation/results.csv", b"metric", b"m", "lacks the columns")])
def test_descriptions_that_say_more_than_they_may_are_refused(model_zip, results, name, old, new, message):
    contents = members(model_zip)
    assert old in contents[ABOVE + name]
    contents[ABOVE + name] = contents[ABOVE + name].replace(old, new)
    assert message in refused_with(results, contents)


def test_what_a_killed_installation_left_goes_with_the_next(model_zip, results, monkeypatch):
    child = os.fork()
    if child == 0:
        monkeypatch.setattr(install, "check_files", lambda *_: os.kill(os.getpid(), 9))
        install_model.run([str(model_zip)])
    os.waitpid(child, 0)
    other = results / "Dataset901_Other"
    shutil.copytree(results / DATASET, other)
    assert [len(list(folder.iterdir())) for folder in (results / DATASET, other)] == [1, 1]  # hidden ones
    assert install_model.run([str(model_zip)]) == 0
    assert [path.name for path in (results / DATASET).iterdir()] == [MODEL]
    assert not list(other.iterdir())


def test_a_full_disk_is_said_before_and_leaves_nothing(model_zip, results, monkeypatch):
    usage = shutil.disk_usage(results)
    monkeypatch.setattr(install.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    assert "GB free" in refused(model_zip, results)


def test_weights_keep_their_kinds(tmp_path):
    from nnmiss.model_files.export import inference_checkpoint

    view = torch.arange(10_000.0)[:2]
    stored = {"network_weights": {"a": view, "n": torch.tensor(3), "h": torch.ones(2, dtype=torch.float16)},
              "trainer_name": "x", "init_args": {"configuration": "c"},
              "nnmiss": {"method": "m", "stage": "s", "modalities": ["a"], "state": {"n": np.float64(1)}}}
    out = inference_checkpoint(stored, "f")
    assert out["network_weights"]["a"].untyped_storage().nbytes() == 8
    assert [v.dtype for v in out["network_weights"].values()] == [torch.float32, torch.int64, torch.float16]
    assert DATASET_JSON["numTraining"] == 2 and len(saved(out)) < 4000
