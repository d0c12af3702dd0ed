"""Trainers without data on disk, for any number of modalities, dimensions and kinds of labels."""
from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path

import torch
from tiny_networks import tiny_configuration

from nnmiss.seeding import torch_generator
from nnmiss.trainers import method_class
from nnmiss.trainers.settings import common_settings

CASES = ["case_0", "case_1", "case_2"]
LABELS = {
    "labels": {"labels": {"background": 0, "a": 1, "b": 2}},
    "regions": {"labels": {"background": 0, "whole": [1, 2], "core": [2]}, "regions_class_order": [1, 2]},
    "ignore": {"labels": {"background": 0, "a": 1, "b": 2, "ignore": 3}},
}


def make_trainer(root: Path, monkeypatch, method: str, m: int = 4, dim: int = 3, labels: str = "regions", stage=None,
                 available=None, preset: str = "paper", **settings):
    """An initialised trainer whose preprocessed folder holds only the availability table."""
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(variable, str(root / variable))
    modalities = [f"m{i}" for i in range(m)]
    folder = root / "nnUNet_preprocessed" / "Dataset900_None"
    (folder / "data").mkdir(parents=True, exist_ok=True)
    (folder / "data" / "case_0.b2nd").touch()  # nnU-Net chooses its loader by the files it sees
    rows = available or {case: [True] * m for case in CASES}
    (folder / "availability.json").write_text(json.dumps({"modalities": modalities, "cases": rows}))
    configuration = deepcopy(tiny_configuration(dim).configuration)
    configuration.update(data_identifier="data", batch_dice=False, spacing=[1.0] * dim)
    trainer_class = method_class(method)
    of_network = {"micro_batch", *trainer_class.network_settings}
    layers = {**trainer_class.presets[preset], **settings}
    configuration.setdefault("nnmiss", {}).update({k: v for k, v in layers.items() if k in of_network})
    settings = {k: v for k, v in settings.items() if k not in of_network}
    plans = {"dataset_name": "Dataset900_None", "plans_name": "P", "configurations": {"c": configuration},
             "label_manager": "LabelManager", "continue_training": False}
    dataset_json = {"channel_names": {str(i): name for i, name in enumerate(modalities)}, "file_ending": ".nii.gz",
                    **deepcopy(LABELS[labels])}
    values = {**common_settings(trainer_class.known_settings(), trainer_class.presets, preset, {}), **settings}
    stages = trainer_class.stages_of(modalities, values)
    plans["nnmiss_run"] = {"stage": stage or stages[-1].name, "settings": values, "seed": 3, "first_epoch": 0,
                           "total_epochs": 10}
    trainer = trainer_class(plans, "c", 0, dataset_json, torch.device("cpu"))
    trainer.initialize()
    return trainer


def make_batch(trainer, size: int = 2, keys=None) -> dict:
    """A random batch as nnU-Net's loader gives it, targets at every deep supervision scale."""
    generator = torch_generator("batch", size)
    patch = trainer.configuration_manager.patch_size
    regions = trainer.label_manager.has_regions
    labels = torch.randint(0, 3 + trainer.label_manager.has_ignore_label, (size, 1, *patch), generator=generator)
    targets = []
    for scale in trainer._get_deep_supervision_scales():
        step = round(1 / scale[0])
        part = labels[(..., *[slice(None, None, step)] * len(patch))]
        targets.append(torch.cat([part > 0, part == 2], 1) if regions else part.to(torch.int16))
    data = torch.randn(size, len(trainer.modalities), *patch, generator=generator)
    return {"data": data, "target": targets, "keys": list(keys or CASES[:size])}
