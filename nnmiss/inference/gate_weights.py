"""How much each modality counted for each task in a case: the gate's weights, where the network has a gate (SimMLM)."""
from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pandas as pd
import torch
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from torch import Tensor

from nnmiss.atomic_files import read_json, replacing
from nnmiss.availability import Present, modality_names

COLUMNS = ["case", "subset", "region", "modality", "weight"]


def task_names(dataset_json: dict) -> list[str]:
    """Names of the network's outputs in their order: the regions, or the labels with the background first."""
    labels = {name: value for name, value in dataset_json["labels"].items() if name != "ignore"}
    if LabelManager(dataset_json["labels"], dataset_json.get("regions_class_order")).has_regions:
        return [name for name, value in labels.items() if any(value if isinstance(value, list | tuple) else [value])]
    return sorted(labels, key=lambda name: int(labels[name][0] if isinstance(labels[name], list) else labels[name]))


def gate_weights(predictor, data: Tensor, presents: list[Present]) -> dict[Present, dict[str, dict[str, float]]]:
    """Gate weights of one preprocessed image under several subsets; {} for networks without a method `gate_weights`.

    The plain mean over the sliding window's tiles, each tile weighing the same whatever it shows, and over the folds of an
    ensemble; without mirroring. Only the gate runs, no expert.

    Args:
        predictor: a MissingModalityPredictor.
        data: (M, *spatial) float32; absent channels hold anything.
        presents: non-empty subsets of what the image has.

    Returns:
        Subset -> task -> modality -> weight, for the modalities shown; 1 in sum for every task.
    """
    network = getattr(predictor.network, "_orig_mod", predictor.network)
    if not hasattr(network, "gate_weights") or not presents:
        return {}
    network = network.to(predictor.device).eval()
    folds = predictor.list_of_parameters if network.gate is not None else None
    folds = [None] if folds is None or len(folds) == 1 else folds  # a single fold's weights are loaded already
    total = 0
    for parameters in folds:
        if parameters is not None:
            network.gate.load_state_dict({name.removeprefix("gate."): value for name, value in parameters.items()
                                          if name.startswith("gate.")})
        total = total + _mean_over_tiles(predictor, network, data, torch.tensor(presents))
    mean = (total / len(folds)).tolist()  # S x M x K
    tasks, names = task_names(predictor.dataset_json), modality_names(predictor.dataset_json)
    return {present: {task: {name: row[m][k] for m, name in enumerate(names) if present[m]} for k, task in enumerate(tasks)}
            for present, row in zip(presents, mean)}


@torch.inference_mode()
def _mean_over_tiles(predictor, network, data: Tensor, presents: Tensor, batch: int = 4) -> Tensor:
    """(S, M, K) float64 on the CPU."""
    data, _ = pad_nd_image(data, predictor.configuration_manager.patch_size, "constant", {"value": 0}, True, None)
    slicers = predictor._internal_get_sliding_window_slicers(data.shape[1:])
    presents, total = presents.to(predictor.device), 0
    with torch.autocast("cuda") if predictor.device.type == "cuda" else nullcontext():
        for where in slicers:
            tile = data[where].to(predictor.device)  # (M, *patch)
            parts = [network.gate_weights(tile.expand(len(some), *tile.shape), some) for some in presents.split(batch)]
            total = total + torch.cat(parts).double().cpu()
    return total / len(slicers)


def write_gate_weights(folder: str | Path) -> None:
    """Gathers the gate weights of every <subset>/CASE.json below `folder` in gate_weights.csv; nothing if none has any."""
    rows = []
    for file in sorted(Path(folder).glob("[!.]*/[!.]*.json")):  # without what a killed process left
        described = read_json(file, "description of a prediction", ("case", "subset"))
        rows += [(described["case"], described["subset"], task, modality, weight)
                 for task, weights in described.get("gate_weights", {}).items() for modality, weight in weights.items()]
    if rows:
        with replacing(Path(folder) / "gate_weights.csv") as temporary:
            pd.DataFrame(rows, columns=COLUMNS).to_csv(temporary, index=False)
