"""Tiny classification data: trainers without data on disk, and a raw data set with its folders."""
from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tiny_samples import tiny_samples

from nnmiss.classification.description import Description
from nnmiss.classification.sample_set import SampleSet
from nnmiss.inference.checkpoints import read_checkpoint
from nnmiss.trainers import classifier_class
from nnmiss.trainers.classification import ClassificationTrainer, StageRun
from nnmiss.trainers.classification_data import FoldData
from nnmiss.trainers.classification_hooks import configured
from nnmiss.trainers.settings import common_settings

DATASET = "Dataset701_TinySamples"
ENCODERS = {"image": {"name": "lenet"}, "sound": {"name": "sound_net"}, "table": {"name": "mlp", "hidden": [8]},
            "series": {"name": "lstm", "hidden": 8, "layers": 1}, "volume": {"name": "cnn3d", "channels": [4, 8]}}
TYPES = {"image": "image2d", "sound": "array", "series": "timeseries", "table": "array", "volume": "volume"}
PREPARED: list[Path] = []  # where `tiny_data` was made
QUICK = ["--set", "num_epochs=2", "--disable_progress_bar", "-device", "cpu"]


def tiny_configuration(modalities) -> dict:
    """The plan's configuration for modalities as `tiny_samples` makes them."""
    return {"data_identifier": "default", "batch_size": 8, "feature_dim": 16, "head": {"hidden": [16], "dropout": 0.2},
            "modalities": {name: {"type": TYPES[name.partition("_")[0]], "encoder": dict(ENCODERS[name.partition("_")[0]])}
                           for name in modalities}}


def tiny_description(samples: SampleSet, task: str, classes: int) -> Description:
    """What a dataset.json of these samples would say."""
    names = ["no", "yes"] if task == "binary" else [f"c{i}" for i in range(classes)]
    content = {"name": "tiny", "task": task, "labels": names if task == "multilabel" else dict(enumerate(names)),
               "modalities": {name: {"type": TYPES[name.partition("_")[0]]} for name in samples.modalities}}
    values = [] if task == "multilabel" else [str(i) for i in range(len(names))]
    columns = ("sample_id", "subject_id", "label")
    return Description("tiny", task, names, values, content["modalities"], *columns, {}, {}, content)


def tiny_fold(modalities=("image", "table"), task: str = "multiclass", n: int = 24, classes: int = 3, absent: float = 0.0,
              available: dict | None = None, samples: SampleSet | None = None) -> FoldData:
    """A fold in memory: the first half trains, then a quarter each validates and tests; subjects are kept together.

    available: id -> what training may use, where that is less than there is. samples: instead of `tiny_samples`.
    """
    samples = samples or tiny_samples(tuple(modalities), n, task, classes, absent=absent)
    ids, half, quarter = samples.ids, len(samples) // 2, len(samples) * 3 // 4
    rows = dict(zip(ids, map(tuple, samples.available.tolist())))
    return FoldData(tiny_description(samples, task, classes), tiny_configuration(samples.modalities), samples, ids[:half],
                    ids[half:quarter], ids[quarter:], {**rows, **(available or {})})


def make_classifier(method, fold: FoldData | None = None, stage: str = "", folder: Path | None = None, seed: int = 3,
                    initialize: bool = True, **settings) -> ClassificationTrainer:
    """A trainer of one stage (the last by default), initialised, without data on disk.

    method: a name of CLASSIFIERS or a class. folder: where checkpoints go; None: nowhere.
    """
    cls = classifier_class(method) if isinstance(method, str) else method
    fold = fold or tiny_fold()
    values = common_settings(cls.known_settings(), cls.presets, "paper", {"num_epochs": 2, **settings}, cls.all_limits(),
                             cls.all_choices())
    made = configured(fold.configuration, values, cls.network_settings)
    data = FoldData(fold.description, made, fold.samples, fold.training, fold.validation, fold.test, fold.available)
    trainer = cls(data, StageRun(stage, values, seed, 0, 0, 0, folder))
    trainer.show_progress = False
    if initialize:
        trainer.initialize()
    return trainer


def train(trainer: ClassificationTrainer) -> ClassificationTrainer:
    """Trains one stage from where it stands to its end."""
    trainer.run_training()
    return trainer


def train_stages(method, fold: FoldData, folder: Path, seed: int = 3, **settings) -> ClassificationTrainer:
    """Trains all stages of a method in `folder`, as a run does. Returns the last stage's trainer."""
    def checkpoint_of(stage: str) -> dict:
        last = stage == trainer.stages[-1].name
        return read_checkpoint(folder / ("" if last else f"stage_{stage}") / "checkpoint_final.pth")

    stages = [stage.name for stage in make_classifier(method, fold, seed=seed, initialize=False, **settings).stages]
    for stage in stages:
        trainer = make_classifier(method, fold, stage, folder, seed, **settings)
        trainer.begin_stage(checkpoint_of)
        trainer.recall(checkpoint_of)
        trainer.run_training()
    return trainer


# ---- a data set on disk -----------------------------------------------------------------------------------------


def write_raw(root: Path, n: int = 40, task: str = "multiclass", classes: int = 2, absent: float = 0.2, splits: bool = True,
              unlabelled: int = 0, name: str = DATASET, seed: int = 0) -> Path:
    """A raw data set of images (28 x 28, npz), a table (csv) and arrays (npy files): the class shifts their values.

    Of `splits` the first 60 % of subjects (two rows each) train, then 20 % validate and 20 % test. The last `unlabelled`
    training rows have no label. Every row has at least the modality number `row % 3`.
    """
    folder = root / name
    (folder / "array").mkdir(parents=True)
    generator = np.random.default_rng(seed)
    labels, ids = np.arange(n) // 2 % classes, [f"s{i:03d}" for i in range(n)]
    keep = generator.random((n, 3)) >= absent
    keep[np.arange(n), np.arange(n) % 3] = True
    images = np.clip(generator.normal(100, 20, (n, 28, 28)) + 40 * labels[:, None, None], 0, 255).astype(np.uint8)
    np.savez(folder / "images.npz", ids=np.array(ids)[keep[:, 0]], values=images[keep[:, 0]])
    numbers = generator.normal(size=(n, 4)) + labels[:, None]
    table = pd.DataFrame({"sample_id": ids, **{f"x{j}": numbers[:, j].round(3) for j in range(4)}})
    table[keep[:, 1]].to_csv(folder / "table.csv", index=False)
    paths = []
    for i, name_ in enumerate(ids):
        paths.append(f"array/{name_}.npy" if keep[i, 2] else "")
        if keep[i, 2]:
            np.save(folder / paths[-1], (generator.normal(size=6) + labels[i]).astype(np.float32))
    sides = np.array(["train" if s < 0.6 else "val" if s < 0.8 else "test" for s in (np.arange(n) // 2) / (n / 2)])
    cells = {f"c{c}": (labels == c).astype(int).astype(str) for c in range(classes)} if task == "multilabel" \
        else {"label": labels.astype(str)}
    frame = pd.DataFrame({"sample_id": ids, "subject_id": [f"p{i // 2:03d}" for i in range(n)],
                          **({"split": sides} if splits else {}), **cells, "array": paths}, dtype=str)
    blank = np.flatnonzero(sides == "train")[::-1][:unlabelled]
    frame.loc[blank, list(cells)] = ""
    frame.to_csv(folder / "manifest.csv", index=False)
    content = {"name": "tiny samples", "task": task,
               "labels": list(cells) if task == "multilabel" else {str(c): f"c{c}" for c in range(classes)},
               "modalities": {"image": {"type": "image2d", "file": "images.npz", "encoder": {"name": "lenet"}},
                              "table": {"type": "table", "file": "table.csv", "encoder": {"name": "mlp", "hidden": [8]}},
                              "array": {"type": "array", "encoder": {"name": "mlp", "hidden": [8]}}},
               "plan": {"batch_size": 8, "feature_dim": 16, "head": {"hidden": [16], "dropout": 0.2}}}
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def set_folders(patch: pytest.MonkeyPatch, root: Path) -> None:
    """Points nnU-Net's environment variables below `root`."""
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (root / variable).mkdir(parents=True, exist_ok=True)
        patch.setenv(variable, str(root / variable))


def prepare(root: Path, **options) -> Path:
    """Writes the raw data set below the folders of `root` (see `set_folders`), plans and preprocesses it."""
    from nnmiss.cli import plan_and_preprocess

    raw = write_raw(root / "nnUNet_raw", **options)
    assert plan_and_preprocess.run(["-d", raw.name, "--no_pbar", "-np", "1"]) == 0
    return raw


@pytest.fixture
def tiny_data(tmp_path, tmp_path_factory, monkeypatch) -> Path:
    """nnU-Net's three folders with the data set, planned and preprocessed once, copied for every test."""
    if not PREPARED:
        PREPARED.append(tmp_path_factory.mktemp("tiny_classification"))
        set_folders(monkeypatch, PREPARED[0])
        prepare(PREPARED[0])
    for name in ("nnUNet_raw", "nnUNet_preprocessed"):
        shutil.copytree(PREPARED[0] / name, tmp_path / name)
    set_folders(monkeypatch, tmp_path)
    return tmp_path


def fold_folder(root: Path, trainer: str = "nnMissClassifierFusion", fold: int | str = 0, tag: str = "",
                dataset: str = DATASET) -> Path:
    """Where a run lies."""
    plans = "nnMissPlans" + (f"-{tag}" if tag else "")
    return root / "nnUNet_results" / dataset / f"{trainer}__{plans}__default" / f"fold_{fold}"
