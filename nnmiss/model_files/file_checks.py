"""Checks the unpacked files of a model by what they must hold, before the model is loaded."""
from __future__ import annotations

from pathlib import Path

import pandas as pd
import torch

from nnmiss.atomic_files import LARGE_JSON_MB, read_json
from nnmiss.availability import is_classification
from nnmiss.errors import NnmissError
from nnmiss.inference.checkpoints import entry, mirroring_axes, read_checkpoint
from nnmiss.model_files.contents import Manifest
from nnmiss.plain_names import shown
from nnmiss.preprocessing.dataset_folders import check_description
from nnmiss.preprocessing.plan_checks import check_plans

IN_CHECKPOINT = {"network_weights", "trainer_name", "init_args", "inference_allowed_mirroring_axes", "nnmiss"}
LARGEST_TABLE = 2**28  # bytes


def check_files(folder: Path, manifest: Manifest) -> None:
    """Raises NnmissError, naming the file, for one that is not what its name says, or that holds more than it should."""
    dataset_json = read_json(folder / "dataset.json", "the model's dataset.json", ("labels",))
    plans = read_json(folder / "plans.json", "the model's plans", ("configurations",))
    if is_classification(dataset_json) != (manifest.task == "classification"):
        raise NnmissError(f"{folder}/dataset.json is not of {manifest.task}, as the manifest says")
    if manifest.task == "classification":
        from nnmiss.classification.description import parse_description  # readers, which segmentation does without

        parse_description(dataset_json, str(folder / "dataset.json"))
    else:
        if {"channel_names", "file_ending"} - dataset_json.keys():
            raise NnmissError(f"{folder}/dataset.json lacks channel_names or file_ending")
        check_description(dataset_json, str(folder / "dataset.json"))
        check_plans(plans, str(folder / "plans.json"))
    if not isinstance(plans["configurations"], dict) or manifest.configuration not in plans["configurations"]:
        raise NnmissError(f"{folder}/plans.json has no configuration {manifest.configuration}")
    for name in manifest.files:
        if name.endswith(".json") and name not in ("plans.json", "dataset.json"):
            content = read_json(folder / name, "file", max_mb=LARGE_JSON_MB)
            if not isinstance(content, dict) or (name.endswith("run.json") and "settings" not in content):
                raise NnmissError(f"{folder / name} holds no {'run record' if name.endswith('run.json') else 'object'}")
        elif name.endswith(".csv"):
            _check_results(folder / name)
        elif name.endswith(".pth"):
            check_inference_checkpoint(folder / name, manifest)


def check_inference_checkpoint(path: Path, manifest: Manifest) -> None:
    """Raises NnmissError for anything but finite weights, of the manifest's trainer, and what says what they are."""
    checkpoint = read_checkpoint(path)
    more = sorted(map(str, checkpoint.keys() - IN_CHECKPOINT))
    if more:
        raise NnmissError(f"{path} holds more than prediction needs: {shown(more[0])}")
    trainer, method = entry(checkpoint, path, "trainer_name"), entry(checkpoint, path, "nnmiss", "method")
    if (trainer, method) != (manifest.trainer, manifest.method):
        raise NnmissError(f"{path} was trained by {shown(trainer)} ({shown(method)}), the manifest says {manifest.trainer} "
                          f"({manifest.method})")
    entry(checkpoint, path, "init_args", "configuration", kind=(str, dict))
    mirroring_axes(checkpoint, path)
    broken = [name for name, value in checkpoint["network_weights"].items()
              if (value.is_floating_point() or value.is_complex()) and not torch.isfinite(value).all()]
    if broken:
        raise NnmissError(f"{path}: {len(broken)} tensors hold NaN or infinite weights, such as {shown(broken[0])}")


def _check_results(path: Path) -> None:
    if path.stat().st_size > LARGEST_TABLE:
        raise NnmissError(f"{path} is larger than {LARGEST_TABLE >> 20} MB: it is no table of results")
    try:
        columns = set(pd.read_csv(path, dtype=str, keep_default_na=False).columns)
    except Exception as error:  # pandas raises its own, and those of decoding
        raise NnmissError(f"{path} cannot be read as csv ({shown(str(error))})") from None
    if {"subset", "metric", "value"} - columns:
        raise NnmissError(f"{path} lacks the columns subset, metric and value of results")
