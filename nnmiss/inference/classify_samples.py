"""Preprocessed samples in, probabilities of every subset of modalities out, and the files they are written to."""
from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from nnmiss.availability import Present, subset_name
from nnmiss.classification.sample_set import SampleSet
from nnmiss.classification.tasks import probabilities
from nnmiss.inference.prediction_files import FILE, write_predictions


@torch.inference_mode()
def subset_logits(network: nn.Module, samples: SampleSet, rows: Tensor, subsets: Tensor, device: torch.device | str,
                  batch_size: int = 256, available: Tensor | None = None) -> Tensor:
    """Logits of some samples under each of some subsets; a sample is shown what it has of a subset.

    Args:
        network: a MissingModalityClassifier; it is in evaluation mode meanwhile.
        rows: (R,) long, which samples.
        subsets: (S, M) bool.
        device: where the network is.
        available: (R, M) bool, what each sample may be shown; None: all that it has.

    Returns:
        (S, R, outputs) float32 on the CPU; NaN where a sample has nothing of a subset that the network
        could use.
    """
    have = samples.available[rows] if available is None else available.cpu() & samples.available[rows]
    was_training = network.training
    network.eval()
    try:
        parts = [network.forward_subsets([x.to(device) for x in samples.inputs(rows[i : i + batch_size])],
                                         have[i : i + batch_size].to(device), subsets.to(device)).float().cpu()
                 for i in range(0, len(rows), batch_size)]
    finally:
        network.train(was_training)
    return torch.cat(parts, 1) if parts else torch.empty(len(subsets), 0, network.num_outputs)


def subset_probabilities(network: nn.Module, samples: SampleSet, rows: Tensor, subsets: Tensor, task: str,
                         device: torch.device | str, batch_size: int = 256, available: Tensor | None = None) -> Tensor:
    """As `subset_logits`, but the probability of every class: (S, R, C). Of an ensemble, take the mean of these."""
    return probabilities(subset_logits(network, samples, rows, subsets, device, batch_size, available), task)


def write_subsets(folder: str | Path, ids: list[str], values: Tensor, subsets: dict[str, Present], available: Tensor,
                  modalities: list[str], task: str, classes: list[str]) -> dict[str, int]:
    """Writes FOLDER/NAME/predictions.csv of every subset; a sample that cannot be predicted with it is not in its file.

    Args:
        values: (S, R, C) probabilities, NaN rows where a sample has nothing of the subset that the network could use.
        subsets: sub-folder -> modalities shown; the name "" is `folder` itself.
        available: (R, M) bool.

    Returns:
        sub-folder -> samples in its file. Where there are none, no file is written and an old one is removed.
    """
    written = {}
    for (name, shown), of_subset in zip(subsets.items(), values):
        path = Path(folder) / name / FILE
        used = available.cpu() & torch.tensor(shown)  # (R, M)
        rows = (used.any(1) & ~of_subset.isnan().any(1)).nonzero()[:, 0].tolist()
        written[name] = len(rows)
        if not rows:
            path.unlink(missing_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        write_predictions(path, [ids[i] for i in rows], of_subset[rows], task, classes,
                          [subset_name(used[i].tolist(), modalities) for i in rows])
    return written
