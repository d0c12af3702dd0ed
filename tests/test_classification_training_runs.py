"""nnmiss_train on a classification data set: resuming, seeds, refusals, what lies in the folders in the end."""
from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_classification import DATASET, fold_folder, make_classifier, prepare, set_folders, tiny_data  # noqa: F401

from nnmiss.classification.cache import load_raw_samples
from nnmiss.classification.preprocessing import apply_preprocessing
from nnmiss.cli import plan_and_preprocess, train
from nnmiss.errors import NnmissError
from nnmiss.inference.checkpoints import read_checkpoint, take_fitting
from nnmiss.inference.classify_samples import subset_probabilities
from nnmiss.trainers import classifier_class
from nnmiss.trainers.classification import ClassificationTrainer
from nnmiss.trainers.load_classifier import load_classifier


def run(method="fusion", *flags, fold="0", epochs=3, settings=()) -> int:
    return train.run(["701", method, fold, "-device", "cpu", "--disable_progress_bar", *flags,
                      "--set", f"num_epochs={epochs}", *settings])


def stored(folder) -> dict:
    return read_checkpoint(folder / "checkpoint_final.pth")


def same(a: dict, b: dict) -> bool:
    """Whether two checkpoints hold the same, bit by bit, but for the seconds that epochs took."""
    parts = ("network_weights", "optimizer_state", "logging", "best", "nnmiss", "current_epoch")
    a, b = ({key: c[key] for key in parts} for c in (a, b))
    for checkpoint in (a, b):
        checkpoint["logging"] = {k: v for k, v in checkpoint["logging"].items() if k != "seconds"}
    return equal(a, b)


def equal(a, b) -> bool:
    """Equality of nested values, tensors and not-a-numbers included."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b or (a != a and b != b)


def same_weights(a: dict, b: dict) -> bool:
    return equal(a["network_weights"], b["network_weights"])


@pytest.fixture
def no_figures(monkeypatch):
    """Figures take longer than these trainings."""
    monkeypatch.setattr(ClassificationTrainer, "write_figures", lambda self: None)


INTERRUPTED = {
    "fusion": ("nnMissClassifierFusion", ["pretrain_encoders=true"], 9),
    "modality_dropout": ("nnMissClassifierModalityDropout", ["schedule=plateau", "lr_step=1", "class_balance=sampler"], 4),
    "metakd": ("nnMissClassifierMetaKD", ["meta_interval=1"], 4),
}


@pytest.mark.parametrize("method", INTERRUPTED)
@pytest.mark.parametrize("moment", ["within an epoch", "between epochs", "between two checkpoints"])
def test_an_interrupted_run_continues_to_the_same_weights(tiny_data, no_figures, monkeypatch, method, moment):  # noqa: F811
    trainer, settings, epochs = INTERRUPTED[method]
    assert run(method, "--no_val", epochs=epochs, settings=settings) == 0
    straight = stored(fold_folder(tiny_data, trainer))
    shutil.rmtree(tiny_data / "nnUNet_results" / DATASET)
    name = {"within an epoch": "train_step", "between epochs": "on_train_epoch_start",
            "between two checkpoints": "save_checkpoint"}[moment]
    original, calls = getattr(ClassificationTrainer, name), []

    def killed(self, *args):
        calls.append(1)
        if len(calls) == (5 if name == "train_step" else 4):  # 3 batches an epoch; up to two checkpoints an epoch
            raise KeyboardInterrupt
        return original(self, *args)

    monkeypatch.setattr(ClassificationTrainer, name, killed)
    with pytest.raises(KeyboardInterrupt):
        run(method, "--no_val", epochs=epochs, settings=settings)
    monkeypatch.setattr(ClassificationTrainer, name, original)
    assert train.run(["701", method, "0", "-device", "cpu", "--disable_progress_bar", "--no_val", "--c"]) == 0
    assert same(stored(fold_folder(tiny_data, trainer)), straight)


def test_rare_checkpoints_resume_to_the_same_weights(tiny_data, no_figures, monkeypatch):  # noqa: F811
    """The best checkpoint is then newer than the latest one."""
    assert run("fusion", "--no_val", "--tag", "a", epochs=6) == 0
    original, calls = ClassificationTrainer.on_train_epoch_start, []

    def killed(self):
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        original(self)

    monkeypatch.setattr(ClassificationTrainer, "on_train_epoch_start", killed)
    with pytest.raises(KeyboardInterrupt):
        run("fusion", "--no_val", "--tag", "b", epochs=6, settings=["save_every=4"])
    monkeypatch.setattr(ClassificationTrainer, "on_train_epoch_start", original)
    assert run("fusion", "--no_val", "--tag", "b", epochs=6, settings=["save_every=2"]) == 0  # does not change weights
    assert same(*(stored(fold_folder(tiny_data, tag=tag)) for tag in "ab"))


def test_a_stage_that_ended_early_stays_ended(tiny_data, monkeypatch, capsys):  # noqa: F811
    settings = ["patience=2", "initial_lr=1e-9"]  # nothing gets better
    original = ClassificationTrainer.on_train_end
    monkeypatch.setattr(ClassificationTrainer, "on_train_end", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run("fusion", "--no_val", epochs=20, settings=settings)
    monkeypatch.setattr(ClassificationTrainer, "on_train_end", original)
    first = capsys.readouterr().out.count("joint epoch")
    assert first < 20
    assert run("fusion", "--no_val", epochs=20, settings=settings) == 0
    out = capsys.readouterr().out
    assert "resuming after epoch" in out and "joint epoch" not in out
    assert stored(fold_folder(tiny_data))["current_epoch"] == first


def test_test_samples_change_no_weight(tmp_path, no_figures, monkeypatch):
    """Neither their labels nor their values; they are only looked at in the end."""
    kept = []
    for number in range(2):
        root = tmp_path / str(number)
        set_folders(monkeypatch, root)
        prepare(root)
        if number:
            spoil_test_rows(root)
        assert run("fusion", "--no_val", epochs=6) == 0
        kept.append(stored(fold_folder(root)))
    assert same_weights(*kept) and kept[0]["best"] == kept[1]["best"]
    fitted = [(fold_folder(tmp_path / str(n)) / "preprocessing.json").read_text() for n in range(2)]
    assert fitted[0] == fitted[1]


def spoil_test_rows(root) -> None:
    """Turns test labels round and makes test tables huge, then preprocesses again."""
    raw = root / "nnUNet_raw" / DATASET
    manifest = pd.read_csv(raw / "manifest.csv", dtype=str, keep_default_na=False)
    tested = manifest["split"] == "test"
    manifest.loc[tested, "label"] = manifest.loc[tested, "label"].map({"0": "1", "1": "0"})
    manifest.to_csv(raw / "manifest.csv", index=False)
    table = pd.read_csv(raw / "table.csv", dtype={"sample_id": str})
    table.loc[table["sample_id"].isin(manifest["sample_id"][tested]), table.columns[1:]] = 1e6
    table.to_csv(raw / "table.csv", index=False)
    shutil.rmtree(root / "nnUNet_preprocessed" / DATASET)
    from nnmiss.cli import plan_and_preprocess

    assert plan_and_preprocess.run(["-d", "701", "--no_pbar", "-np", "1"]) == 0


def test_a_run_leaves_predictions_results_and_a_model(tiny_data, capsys):  # noqa: F811
    assert run() == 0
    out = capsys.readouterr().out
    assert "joint epoch 3/3: loss" in out and "validation accuracy" in out and "results: " in out
    folder = fold_folder(tiny_data)
    record = json.loads((folder / "run.json").read_text())
    assert (record["method"], record["seed"], record["settings"]["joint"]["num_epochs"]) == ("fusion", 0, 3)
    assert (len(record["validation_cases"]), len(record["test_cases"])) == (8, 8)
    assert {file.name for file in folder.glob("progress.*")} == {"progress.csv", "progress.png"}
    assert (folder.parent / "plans.json").is_file() and (folder.parent / "dataset.json").is_file()
    for part in ("validation", "test"):
        results = pd.read_csv(folder / part / "results.csv")
        assert {"available", "image", "image+table+array"} <= set(results["subset"])
        assert (folder / part / "summary.json").is_file() and (folder / part / "available" / "predictions.csv").is_file()
    assert run() == 0
    assert "training is finished" in capsys.readouterr().out
    shutil.rmtree(folder / "test")
    assert train.run(["701", "fusion", "0", "-device", "cpu", "--val"]) == 0
    assert (folder / "test" / "results.csv").is_file()


@pytest.mark.parametrize("method, trainer, subset", [
    ("fusion", "nnMissClassifierFusion", None), ("unimodal", "nnMissClassifierUnimodal", "table"),
    ("modality_dropout", "nnMissClassifierModalityDropout", None)])
def test_a_loaded_model_gives_the_predictions_of_the_run(tiny_data, method, trainer, subset):  # noqa: F811
    assert run(method, epochs=2, settings=["subset=Table"] if subset else ["hidden=12+6", "encoders=table:mlp5"]) == 0
    folder = fold_folder(tiny_data, trainer)
    model = load_classifier(folder)
    assert (model.method, model.modalities, model.task) == (method, ["image", "table", "array"], "multiclass")
    assert model.classes == ["c0", "c1"] and model.description.modalities["image"]["type"] == "image2d"
    raw = load_raw_samples(tiny_data / "nnUNet_preprocessed" / DATASET / "default")
    samples = apply_preprocessing(raw, model.fitted)
    name = subset or "available"
    written = pd.read_csv(folder / "test" / name / "predictions.csv", dtype={"sample_id": str}).set_index("sample_id")
    shown = torch.tensor([[m == subset or subset is None for m in model.modalities]])
    rows = samples.rows(list(written.index))
    ours = subset_probabilities(model.network, samples, rows, shown, model.task, "cpu")[0]
    assert torch.allclose(ours, torch.tensor(written[model.classes].to_numpy(), dtype=torch.float32), atol=1e-5)
    if subset:
        assert sorted(p.name for p in (folder / "test").iterdir() if p.is_dir()) == ["table"]
        assert len(model.network.expert.state_dict()) < 8
    else:
        assert model.network.output.in_features == 6


@pytest.mark.parametrize("task, classes", [("binary", 2), ("multilabel", 3)])
def test_other_tasks_run_from_end_to_end(tmp_path, monkeypatch, task, classes, capsys):
    set_folders(monkeypatch, tmp_path)
    prepare(tmp_path, task=task, classes=classes, unlabelled=4)
    assert run("modality_dropout", epochs=2) == 0
    out = capsys.readouterr().out
    assert "note: 4 of 24 training samples have no label and are left out" in out and "auroc" in out
    written = fold_folder(tmp_path, "nnMissClassifierModalityDropout") / "test" / "image" / "predictions.csv"
    assert list(pd.read_csv(written).columns[1:-2]) == [f"c{c}" for c in range(classes)]


def test_folds_and_everything(tiny_data, capsys):  # noqa: F811
    assert run(fold="3", epochs=1) == 0
    assert run("fusion", "--tag", "all", fold="all", epochs=1) == 0
    assert "note: fold 'all' trains and validates on the same samples" in capsys.readouterr().out
    with pytest.raises(NnmissError, match="fold 9 does not exist"):
        run(fold="9")


def test_several_seeds_are_several_runs(tiny_data, no_figures, capsys):  # noqa: F811
    assert run("fusion", "--seeds", "1", "2", "--no_val") == 0
    assert run("fusion", "--seeds", "1", "--tag", "again", "--no_val") == 0
    one, two, again = (stored(fold_folder(tiny_data, tag=tag)) for tag in ("s1", "s2", "again-s1"))
    assert same(one, again) and not same_weights(one, two)
    assert json.loads((fold_folder(tiny_data, tag="s2") / "run.json").read_text())["seed"] == 2
    assert "seed 2 (2 of 2), tag s2" in capsys.readouterr().out
    with pytest.raises(NnmissError, match="give only one of them"):
        run("fusion", "--seeds", "1", "--seed", "2")
    with pytest.raises(NnmissError, match="names a seed twice"):
        run("fusion", "--seeds", "1", "1")


def test_a_seed_that_fails_does_not_stop_the_others(tiny_data, no_figures, monkeypatch, capsys):  # noqa: F811
    step = ClassificationTrainer.train_step

    def diverging(self, batch):
        return {"loss": float("nan")} if self.seed == 1 else step(self, batch)

    monkeypatch.setattr(ClassificationTrainer, "train_step", diverging)
    assert run("fusion", "--seeds", "1", "2", "--no_val", epochs=1) == 1
    assert (fold_folder(tiny_data, tag="s2") / "checkpoint_final.pth").is_file()
    assert "error: seed 1: the loss was not finite" in capsys.readouterr().err


def test_a_missingness_table_is_for_training_samples_only(tiny_data):  # noqa: F811
    folder = tiny_data / "nnUNet_raw" / DATASET / "missing"
    folder.mkdir()
    have = json.loads((tiny_data / "nnUNet_preprocessed" / DATASET / "availability.json").read_text())["cases"]
    rows = [f"{case},{int(i)},{int(t)},0" for case, (i, t, _) in have.items() if i or t]
    (folder / "no_array.csv").write_text("\n".join(["case,image,table,array", *rows]) + "\n")
    assert run("modality_dropout", "--missing", "no_array", "--tag", "m", epochs=2) == 0
    results = pd.read_csv(fold_folder(tiny_data, "nnMissClassifierModalityDropout", tag="m") / "test" / "results.csv")
    assert "array" in set(results["subset"])
    with pytest.raises(NnmissError, match=r"missingness table .* not found"):
        run("fusion", "--missing", "nonsense")


REFUSED = {
    "num_epoch=3": "unknown setting.*num_epochs",
    "joint.encoders=image:lenet": "all stages share it",
    "select_on=colour": "modality 'colour' is not in this data set",
    "select_by=dice": "select_by=dice is not one of: auto, accuracy",
    "encoders=image:vgg": "encoder 'vgg' is unknown",
    "encoders=colour:lenet": "the data set has no modality 'colour'",
    "hidden=many": "hidden=many must be sizes of layers",
    "class_balance=luck": "class_balance=luck is not one of: weights, sampler, smote, none",
    "schedule=steep": "schedule=steep is not one of: poly, cosine, constant, step, plateau",
    "dropout=1": "dropout=1.0 is out of range",
    "initial_lr=0": "initial_lr=0.0 is out of range",
    "lr_step=0": "lr_step=0 is out of range",
    "patience=soon": "expected int",
    "nowhere.num_epochs=2": "unknown stage",
}


@pytest.mark.parametrize("setting", REFUSED)
def test_settings_are_refused_by_name(tiny_data, setting):  # noqa: F811
    with pytest.raises(NnmissError, match=REFUSED[setting]):
        run(settings=[setting])
    assert not list((tiny_data / "nnUNet_results").rglob("*.json"))  # before anything is written


@pytest.mark.parametrize("method, setting", [
    ("unimodal", "hidden=8"), ("simmlm", "feature_dim=8"), ("mind", "hidden=8"), ("ume", "dropout=0.1")])
def test_settings_that_would_change_nothing_are_refused(tiny_data, capsys, method, setting):  # noqa: F811
    with pytest.raises(NnmissError, match="it would change nothing"):
        run(method, settings=[setting, *(["subset=table"] if method == "unimodal" else [])])
    assert train.run(["701", method, "0", "--set", "help"]) == 0
    assert "\nhidden = " not in capsys.readouterr().out


def test_other_things_are_refused_by_name(tiny_data):  # noqa: F811
    with pytest.raises(NnmissError, match="needs the modality it reads: --set subset=NAME, of image, table, array"):
        run("unimodal")
    with pytest.raises(NnmissError, match="modality 'colour' is not in this data set"):
        run("unimodal", settings=["subset=colour"])
    with pytest.raises(NnmissError, match="method 'all_stage' is not for classification data sets"):
        run("all_stage")
    with pytest.raises(NnmissError, match=r"method 'fusoin' is unknown for classification data sets\. .*fusion"):
        run("fusoin")
    with pytest.raises(NnmissError, match="leave out -num_gpus"):
        run("fusion", "-num_gpus", "2")
    with pytest.raises(NnmissError, match="leave out --npz"):
        run("fusion", "--npz")
    with pytest.raises(NnmissError, match="classification data sets have one, default"):
        run("fusion", "-c", "3d_fullres")
    with pytest.raises(NnmissError, match="preset 'official' is unknown"):
        run("fusion", "--preset", "official")
    with pytest.raises(NnmissError, match="may hold letters"):
        run("fusion", "--tag", "a/b")


def test_a_run_with_other_settings_is_refused(tiny_data, no_figures):  # noqa: F811
    assert run("fusion", "--no_val", epochs=2) == 0
    for flags, settings, named in (
            ((), ["initial_lr=0.1"], "initial_lr: 0.001, now 0.1"), (("--seed", "4"), [], "seed: 0, now 4"),
            ((), ["encoders=table:mlp4"], "encoders")):
        with pytest.raises(NnmissError, match=named):
            run("fusion", "--no_val", *flags, epochs=2, settings=settings)
    with pytest.raises(NnmissError, match="initial_lr"):  # another fold of the same model
        run("fusion", "--no_val", fold="1", epochs=2, settings=["initial_lr=0.1"])
    targets = tiny_data / "nnUNet_preprocessed" / DATASET / "default" / "samples.json"
    targets.write_text(targets.read_text().replace('"s001"', '"s001"  '))
    with pytest.raises(NnmissError, match="data_sha256"):
        run("fusion", "--no_val", epochs=2)


def test_a_run_does_not_go_on_with_other_data(tiny_data, no_figures):  # noqa: F811
    """Other values in files of the same size."""
    def plan():
        assert plan_and_preprocess.run(["-d", DATASET, "--no_pbar", "-np", "1"]) == 0

    assert run("fusion", "--no_val", epochs=1) == 0
    plan()
    assert run("fusion", "--no_val", epochs=1) == 0
    file = next((tiny_data / "nnUNet_raw" / DATASET / "array").glob("*.npy"))
    np.save(file, np.load(file) + 1)
    plan()
    with pytest.raises(NnmissError, match="data_sha256"):
        run("fusion", "--no_val", epochs=1)


def test_a_checkpoint_of_something_else_is_refused(tiny_data):  # noqa: F811
    assert run("fusion", "--no_val", epochs=2) == 0
    folder = fold_folder(tiny_data)
    other = fold_folder(tiny_data, "nnMissClassifierModalityDropout")
    other.mkdir(parents=True)
    shutil.copy(folder / "checkpoint_final.pth", other / "checkpoint_latest.pth")
    with pytest.raises(NnmissError, match="by nnMissClassifierFusion, expected nnMissClassifierModalityDropout"):
        run("modality_dropout", "--no_val", epochs=3)
    with pytest.raises(NnmissError, match="not found"):
        load_classifier(folder, "checkpoint_nowhere.pth")
    torch.save({"network_weights": {}}, folder / "other.pth")
    with pytest.raises(NnmissError, match="is not a classification model of nnmiss"):
        load_classifier(folder, "other.pth")


def test_pretrained_weights_are_taken_where_they_fit(tiny_data, capsys):  # noqa: F811
    assert run("fusion", "--no_val", epochs=2) == 0
    file = fold_folder(tiny_data) / "checkpoint_final.pth"
    assert run("modality_dropout", "--no_val", "-pretrained_weights", str(file), epochs=1) == 0
    assert "tensors taken from" in capsys.readouterr().out


@pytest.mark.parametrize("method, stage", [("fusion", ""), ("simmlm", ""), ("simmlm", "expert_table"), ("vanilla_3h", "")])
def test_output_layers_are_never_taken(method, stage):
    """Of another data set they have the right shape, but mean other classes."""
    one, other = (make_classifier(method, stage=stage, seed=s).network for s in (1, 2))
    before = {name: value.clone() for name, value in one.state_dict().items()}
    assert take_fitting(one, other.state_dict()) > 0
    last = {name for name, value in before.items() if name.endswith("weight") and value.shape[0] == 3}  # three classes
    assert last and all(torch.equal(one.state_dict()[name], before[name]) for name in last)
    first = next(name for name in before if "encoder" in name and name.endswith("weight"))
    assert torch.equal(one.state_dict()[first], other.state_dict()[first])


def test_settings_can_be_listed(tiny_data, capsys):  # noqa: F811
    assert train.run(["701", "fusion", "0", "--set", "help"]) == 0
    out = capsys.readouterr().out
    assert "pretrain_encoders = False" in out and "class_balance = 'weights'" in out and "joint (60 epochs)" in out
    assert train.run(["999", "unimodal", "0", "--set", "help"]) == 0  # before the data are there


def test_every_method_has_its_table_entry_and_folder_name():
    for name in ("fusion", "modality_dropout", "unimodal"):
        cls = classifier_class(name)
        assert cls.method == name and cls.__name__.startswith("nnMissClassifier")


def test_figures_can_be_left_out(tiny_data):  # noqa: F811
    assert run("metakd", settings=["figures=false"]) == 0
    folder = fold_folder(tiny_data, "nnMissClassifierMetaKD")
    assert (folder / "importance_weights.csv").is_file() and (folder / "test" / "results.csv").is_file()
    assert not list(folder.rglob("*.png"))
