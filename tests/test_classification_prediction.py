"""predictions.csv, probabilities of subsets in memory, and nnmiss_predict on a data set of classification."""
from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_classification import DATASET, QUICK, fold_folder, prepare, set_folders
from tiny_samples import tiny_samples

from nnmiss.availability import AVAILABLE, all_subsets
from nnmiss.cli import predict, train
from nnmiss.errors import NnmissError
from nnmiss.inference.classify_samples import subset_logits, subset_probabilities, write_subsets
from nnmiss.inference.prediction_files import FILE, predicted, read_predictions, write_predictions
from nnmiss.networks.classifier import MissingModalityClassifier

CLASSES = ["c0", "c1"]


# ---- the file ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task, classes, shown", [
    ("multiclass", ["a", "b, c", 'd "e"'], ["a", 'd "e"']), ("binary", ["no", "yes"], ["no", "yes"]),
    ("multilabel", ["x", "y; z"], ["x|y; z", ""])])
def test_a_file_is_read_as_it_was_written(tmp_path, task, classes, shown):
    p = {"multiclass": [[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]], "binary": [[0.9, 0.1], [0.5, 0.5]],
         "multilabel": [[0.5, 0.8], [0.49, 0.1]]}[task]
    p = torch.tensor(p) + torch.tensor([[0.0], [1e-8]])  # float32
    write_predictions(tmp_path / FILE, ["007", "b"], p, task, classes, ["image", "image+sound"])
    read = read_predictions(tmp_path / FILE, classes, task)
    assert read.ids == ["007", "b"] and read.used == ["image", "image+sound"]
    assert np.array_equal(read.probabilities.astype(np.float32), p.numpy())
    assert pd.read_csv(tmp_path / FILE, keep_default_na=False)["prediction"].tolist() == shown


def test_what_is_predicted():
    assert predicted(np.array([[0.4, 0.3, 0.3]]), "multiclass").tolist() == [0]
    assert predicted(np.array([[0.5, 0.5], [0.6, 0.4]]), "binary").tolist() == [1, 0]
    assert predicted(np.array([[0.5, 0.4]]), "multilabel").tolist() == [[True, False]]


@pytest.mark.parametrize("text, message", [
    ("sample_id,no,prediction,modalities\ns,1,no,a\n", "it lacks yes"),
    ("sample_id,no,yes,prediction,modalities\n", "has no rows"),
    ("sample_id,no,yes,prediction,modalities\ns,0.5,x,no,a\n", "sample s has cells that are no probabilities"),
    ("sample_id,no,yes,prediction,modalities\ns,-0.5,1.5,no,a\n", "no probabilities"),
    ("sample_id,no,yes,prediction,modalities\ns,0.5,,no,a\n", "no probabilities"),
    ("sample_id,no,yes,prediction,modalities\ns,0.5,0.1,no,a\n", "add up to 0.6"),
    ("sample_id,no,yes,prediction,modalities\ns,0.5,0.5,no,a\ns,0.5,0.5,no,a\n", "s stands there twice"),
    ("sample_id,no,yes,prediction,modalities\ns,0.5,0.5,no,a,b,c\n", "columns must be"),
    ("\x00\x01", "columns must be|cannot be read|has no rows"), ("", "has no rows")])
def test_bad_files_are_refused(tmp_path, text, message):
    (tmp_path / FILE).write_text(text)
    with pytest.raises(NnmissError, match=message):
        read_predictions(tmp_path / FILE, ["no", "yes"], "binary")
    with pytest.raises(NnmissError, match="not found"):
        read_predictions(tmp_path / "no.csv", ["no", "yes"], "binary")


# ---- in memory --------------------------------------------------------------------------------------------------


class MeansOfInputs(MissingModalityClassifier):
    """Logits: the sum of the means of what is shown, and minus it; NaN inputs of absent modalities must not be read."""

    def __init__(self, num_modalities):
        super().__init__(num_modalities, 2)

    def forward_subsets(self, x, available, subsets):
        assert not self.training
        shown = available & subsets[:, None]
        means = torch.stack([m.values.flatten(1).nansum(1) / (m.lengths if m.lengths is not None else 1) for m in x], 1)
        total = torch.where(shown, means, 0).sum(-1)  # (S, B)
        out = torch.stack([total, -total], -1)
        return torch.where(shown.any(-1)[..., None], out, torch.nan)


def test_logits_do_not_depend_on_batches_and_are_nan_where_there_is_nothing():
    samples = tiny_samples(("image", "series"), absent=0.4)
    network, subsets = MeansOfInputs(2).train(), torch.tensor(all_subsets(2))
    rows = torch.tensor([5, 3, 0, 11, 12])
    together = subset_logits(network, samples, rows, subsets, "cpu")
    assert network.training and together.shape == (3, 5, 2)
    assert torch.allclose(together, subset_logits(network, samples, rows, subsets, "cpu", batch_size=2), equal_nan=True)
    nothing = ~(samples.available[rows] & subsets[:, None]).any(-1)
    assert torch.equal(together.isnan().all(-1), nothing) and nothing.any()
    fewer = samples.available[rows].clone()
    fewer[:, 1] = False
    assert subset_logits(network, samples, rows, subsets, "cpu", available=fewer)[1].isnan().all()
    assert subset_logits(network, samples, rows[:0], subsets, "cpu").shape == (3, 0, 2)
    p = subset_probabilities(network, samples, rows, subsets, "multiclass", "cpu")
    assert torch.allclose(p.sum(-1)[~nothing], torch.ones(1))


def test_each_subset_has_its_file_with_the_samples_that_have_any_of_it(tmp_path):
    available = torch.tensor([[True, False], [True, True], [False, True]])
    subsets = {"a": (True, False), "b": (False, True), "a+b": (True, True)}
    values = torch.full((3, 3, 2), 0.5)
    values[0, 2] = values[1, 0] = torch.nan
    values[2, 2] = torch.nan  # the network cannot use it
    (tmp_path / "b").mkdir()
    assert write_subsets(tmp_path, list("xyz"), values, subsets, available, ["a", "b"], "binary", CLASSES) == {
        "a": 2, "b": 2, "a+b": 2}
    read = read_predictions(tmp_path / "a+b" / FILE, CLASSES, "binary")
    assert (read.ids, read.used) == (["x", "y"], ["a", "a+b"])
    alone = torch.tensor([[True, False]] * 3)
    assert write_subsets(tmp_path, list("xyz"), values, {"b": (False, True)}, alone, ["a", "b"], "binary", CLASSES) == {
        "b": 0}
    assert not (tmp_path / "b" / FILE).exists()  # an old file would be taken for this prediction's


# ---- the command ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """nnU-Net's folders with a data set of 80 samples and `fusion` trained on folds 0 and 1."""
    root = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        set_folders(patch, root)
        prepare(root, n=80)
        for fold in ("0", "1"):
            train.run([DATASET, "fusion", fold, *QUICK])
        train.run([DATASET, "unimodal", "0", *QUICK, "--set", "subset=table"])
        yield root


@pytest.fixture
def run(trained, monkeypatch, tmp_path):
    """Runs nnmiss_predict on the raw data set into tmp_path/out; returns (exit code, output folder)."""
    set_folders(monkeypatch, trained)

    def call(*arguments, source=None, method="fusion"):
        source = source or trained / "nnUNet_raw" / DATASET
        code = predict.run(["-i", str(source), "-o", str(tmp_path / "out"), "-d", DATASET, "-m", method, "-device", "cpu",
                            "--disable_progress_bar", *arguments])
        return code, tmp_path / "out"

    return call


def table_of(folder):
    return pd.read_csv(folder / FILE, dtype={"sample_id": str}).set_index("sample_id")


def test_test_samples_get_what_the_training_predicted_for_them(run, trained):
    code, out = run("--all_subsets", "--split", "test", "-f", "0")
    assert code == 0
    of_training = fold_folder(trained) / "test"
    files = sorted(path.parent.name for path in out.glob(f"*/{FILE}"))
    assert files == sorted(path.parent.name for path in of_training.glob(f"*/{FILE}")) and len(files) == 8
    for name in files:
        ours, theirs = table_of(out / name), table_of(of_training / name)
        assert ours[["prediction", "modalities"]].equals(theirs.loc[ours.index, ["prediction", "modalities"]])
        assert np.allclose(ours[CLASSES], theirs.loc[ours.index, CLASSES], atol=1e-6)
    record = json.loads((out / "predictions.json").read_text())
    assert record["shown"] is None and record["model"]["folds"] == [0] and record["samples"][AVAILABLE] == 16


def test_folds_are_an_ensemble_of_probabilities(run, tmp_path):
    tables = {}
    for name, folds in (("0", ["-f", "0"]), ("1", ["-f", "1"]), ("both", [])):
        code, out = run(*folds)
        assert code == 0
        tables[name] = table_of(out)
    assert np.allclose(tables["both"][CLASSES], (tables["0"][CLASSES] + tables["1"][CLASSES]) / 2, atol=1e-8)
    assert not np.allclose(tables["0"][CLASSES], tables["1"][CLASSES], atol=1e-4)
    assert json.loads((out / "predictions.json").read_text())["shown"] == AVAILABLE


def test_named_modalities_a_sample_lacks_are_a_warning_and_none_of_them_an_error(run, capsys):
    code, out = run("--modalities", "TABLE", "image")
    assert code == 1
    said = capsys.readouterr()
    table = table_of(out)
    assert set(table["modalities"]) == {"image", "table", "image+table"}
    lacking = (table["modalities"] != "image+table").sum()
    assert f"warning: {lacking} of 80 sample(s) lack part of image+table and are predicted with the rest" in said.out
    assert "it has array and none of the requested modalities image+table" in said.err
    failed = json.loads((out / "predictions.json").read_text())["failed"]
    assert len(failed) == 80 - len(table) and not set(failed) & set(table.index)


def test_subsets_have_folders_of_their_own(run, capsys):
    code, out = run("--subsets", "array", "table+IMAGE", "available")
    assert code == 0 and sorted(p.name for p in out.iterdir() if p.is_dir()) == ["array", "available", "image+table"]
    assert set(table_of(out / "array")["modalities"]) == {"array"} and len(table_of(out / "available")) == 80
    assert "samples that have nothing of a subset" in capsys.readouterr().out
    with pytest.raises(NnmissError, match="of another prediction"):
        run("--subsets", "array")
    with pytest.raises(NnmissError, match="of another prediction"):
        run()


def test_cases_and_splits_choose_samples(run, tmp_path, capsys):
    (tmp_path / "list.txt").write_text("s004\ns005\nnobody\n")
    code, out = run("--cases", str(tmp_path / "list.txt"), "s001")
    assert code == 1 and list(table_of(out).index) == ["s001", "s004", "s005"]
    assert "sample nobody: --cases names it" in capsys.readouterr().err
    code, out = run("--split", "val")
    assert code == 0 and len(table_of(out)) == 16
    with pytest.raises(NnmissError, match="none of the 1 case"):
        run("--split", "val", "--cases", "s001")


def test_new_samples_need_no_labels_and_a_bad_one_does_not_stop_the_others(run, trained, tmp_path, capsys):
    source = shutil.copytree(trained / "nnUNet_raw" / DATASET, tmp_path / "new")
    (source / "dataset.json").unlink()
    manifest = pd.read_csv(source / "manifest.csv", dtype=str, keep_default_na=False)
    manifest[["sample_id", "array"]].to_csv(source / "manifest.csv", index=False)
    has_array = manifest.loc[manifest["array"] != "", "sample_id"].tolist()
    (source / "array" / f"{has_array[0]}.npy").write_bytes(b"\x93NUMPY")
    np.save(source / "array" / f"{has_array[1]}.npy", np.zeros(9, np.float32))  # trained with 6
    code, out = run(source=source)
    said = capsys.readouterr().err
    assert code == 1 and "2 failed" in said and len(table_of(out)) == 78
    assert all(f"sample {name}: modality array: " in said for name in has_array[:2])


def test_where_nothing_can_be_predicted_no_earlier_prediction_stays(run, trained, tmp_path):
    code, out = run("--cases", "s001")
    assert code == 0 and (out / FILE).is_file()
    source = shutil.copytree(trained / "nnUNet_raw" / DATASET, tmp_path / "new")
    manifest = pd.read_csv(source / "manifest.csv", dtype=str, keep_default_na=False)
    name = manifest.loc[manifest["array"] != "", "sample_id"].iloc[0]
    np.save(source / "array" / f"{name}.npy", np.zeros(9, np.float32))  # trained with 6
    code, out = run("--cases", name, source=source)
    assert code == 1 and not (out / FILE).exists()
    assert list(json.loads((out / "predictions.json").read_text())["failed"]) == [name]


def test_a_model_of_one_modality_is_shown_that_alone(run, capsys):
    code, out = run(method="unimodal")
    assert code == 1 and set(table_of(out)["modalities"]) == {"table"}
    assert "none of the requested modalities table" in capsys.readouterr().err
    assert json.loads((out / "predictions.json").read_text())["shown"] == "table"
    with pytest.raises(NnmissError, match="trained for table alone"):
        run("--all_subsets", method="unimodal")
    with pytest.raises(NnmissError, match="trained for table alone"):
        run("--modalities", "image", method="unimodal")


def test_wrong_arguments_are_refused_by_name(run, trained, tmp_path, monkeypatch):
    with pytest.raises(NnmissError, match="--save_uncertainty, -step_size is for segmentation only"):
        run("--save_uncertainty", "-step_size", "0.3")
    with pytest.raises(NnmissError, match="not found"):
        run(source=tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(NnmissError, match=r"manifest\.csv"):
        run(source=tmp_path / "empty")
    with pytest.raises(NnmissError, match="no trained model"):
        run("--tag", "other")
    with pytest.raises(NnmissError, match="checkpoint"):
        run("-f", "4")
    with pytest.raises(NnmissError, match="Did you mean"):
        run("--modalities", "imag")
    with pytest.raises(NnmissError, match="is not for classification data sets"):
        run(method="all_stage")
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    with pytest.raises(NnmissError, match="-i and -o are the same"):
        run(source=shutil.copytree(trained / "nnUNet_raw" / DATASET, tmp_path / "out"))


def test_a_model_alone_is_enough(run, trained, tmp_path, monkeypatch):
    """Where neither raw nor preprocessed data are, the model's own folder says what kind it is."""
    for variable in ("nnUNet_raw", "nnUNet_preprocessed"):
        (tmp_path / variable).mkdir()
        monkeypatch.setenv(variable, str(tmp_path / variable))
    code, out = run("-f", "0")
    assert code == 0 and len(table_of(out)) == 80
