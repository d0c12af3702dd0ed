"""Predictions of made models, of any task, written as nnmiss_predict writes them."""
from __future__ import annotations

from pathlib import Path

import numpy as np

from nnmiss.availability import AVAILABLE, all_subsets, subset_name
from nnmiss.evaluation.classification.truth import Truth
from nnmiss.inference.prediction_files import FILE, write_predictions


def made_truth(task: str, modalities: list[str], classes: list[str], n: int = 60, seed: int = 0,
               label_groups: dict | None = None) -> Truth:
    """n samples of n / 2 subjects."""
    generator = np.random.default_rng(seed)
    if task == "multiclass":
        targets = generator.permutation(np.arange(n) % len(classes))
    else:
        targets = (generator.random((n, 1 if task == "binary" else len(classes))) < 0.4).astype(float)
    return Truth([f"s{i:03d}" for i in range(n)], [f"p{i // 2:03d}" for i in range(n)], targets, task, classes, modalities,
                 label_groups or {}, "made")


def made_available(truth: Truth, absent: float = 0.15, seed: int = 1) -> np.ndarray:
    """(N, M) bool, a row has at least one modality."""
    generator = np.random.default_rng(seed)
    have = generator.random((len(truth.ids), len(truth.modalities))) >= absent
    have[~have.any(1), 0] = True
    return have


def write_made(folder: Path, truth: Truth, have: np.ndarray, skill: float, seed: int = 2) -> Path:
    """Writes FOLDER/SUBSET/predictions.csv of all subsets and `available`; more modalities and `skill` are better."""
    generator = np.random.default_rng(seed)
    for shown in [*all_subsets(len(truth.modalities)), None]:
        name = AVAILABLE if shown is None else subset_name(shown, truth.modalities)
        used = have if shown is None else have & np.array(shown)
        rows = np.flatnonzero(used.any(1))
        p = made_probabilities(truth, skill * used.sum(1), generator)
        (folder / name).mkdir(parents=True, exist_ok=True)
        write_predictions(folder / name / FILE, [truth.ids[i] for i in rows], p[rows], truth.task, truth.classes,
                          [subset_name(used[i], truth.modalities) for i in rows])
    return folder


def made_probabilities(truth: Truth, strength: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """(N, C): random, moved towards the truth by `strength` (N,)."""
    targets, strength = truth.targets, strength[:, None]
    if truth.task == "multiclass":
        logits = generator.normal(size=(len(targets), len(truth.classes))) + strength * np.eye(len(truth.classes))[targets]
        return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    p = 1 / (1 + np.exp(-(generator.normal(size=targets.shape) - 0.8 + strength * np.nan_to_num(targets))))
    return np.hstack([1 - p, p]) if truth.task == "binary" else p
