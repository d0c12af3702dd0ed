"""Logistic regression on every subset of the eICU blocks, on the folds of the `eicu` study, to hold the networks against.

Usage: python eicu_logistic.py > FOLDER/eicu_logistic.md (folders set as by run.sh). One model per subset and fold,
preprocessed as for nnmiss_train (fitted on training stays), absent blocks as zeros with an indicator each. The penalty is
chosen inside the training stays alone, by grouped cross-validation. A subset's AUROC counts the stays that have it in full:
as the mean of the folds, which is what nnmiss_benchmark gives of the networks, and of all folds together.
"""
from __future__ import annotations

import sys
import warnings

import numpy as np
import torch
from sklearn.linear_model import LogisticRegressionCV
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold

from nnmiss.availability import all_subsets, subset_name
from nnmiss.classification.cache import load_raw_samples
from nnmiss.classification.description import CONFIGURATION
from nnmiss.classification.preprocessing import apply_preprocessing, fit_preprocessing
from nnmiss.classification.splits import fold_rows
from nnmiss.preprocessing.dataset_folders import find_dataset_name, require_folder

PENALTIES = np.logspace(-3, 0, 7)


def features(samples, subset: tuple[bool, ...]) -> np.ndarray:
    """(N, columns): the subset's blocks, zeros where a stay lacks one, and an indicator for each block."""
    inputs, available = samples.inputs(torch.arange(len(samples))), samples.available
    columns = [part.values.numpy() for part, used in zip(inputs, subset) if used]
    return np.concatenate([*columns, available.numpy()[:, np.array(subset)].astype(np.float32)], 1)


def main(dataset: str = "859") -> None:
    """Prints a table of AUROC by subset: mean of the folds, of all stays that have it in full, of all stays."""
    warnings.simplefilter("ignore", FutureWarning)  # scikit-learn announces defaults that are not used here
    folder = require_folder("nnUNet_preprocessed") / find_dataset_name(dataset)
    raw = load_raw_samples(folder / CONFIGURATION)
    modalities = list(raw.description.modalities)
    subsets = all_subsets(len(modalities))
    scores, fold_of = np.full((len(subsets), len(raw.ids)), np.nan), np.zeros(len(raw.ids), int)
    for fold in range(5):
        training, validation, _ = fold_rows(folder, raw, fold)
        position = {name: i for i, name in enumerate(raw.ids)}
        rows, held = (np.array([position[name] for name in names]) for names in (training, validation))
        samples = apply_preprocessing(raw, fit_preprocessing(raw, torch.tensor(rows)))
        fold_of[held] = fold
        target, groups = samples.targets[:, 0].numpy(), np.array(samples.groups)
        inner = list(StratifiedGroupKFold(3, shuffle=True, random_state=0).split(rows, target[rows], groups[rows]))
        for s, subset in enumerate(subsets):
            x = features(samples, subset)
            model = LogisticRegressionCV(Cs=PENALTIES, cv=inner, scoring="roc_auc", max_iter=500)
            scores[s, held] = model.fit(x[rows], target[rows]).predict_proba(x[held])[:, 1]
        print(f"fold {fold} done", file=sys.stderr)
    have = samples.available.numpy()
    print("| subset | stays | mean of folds | stays that have it | all stays |\n|---|--:|--:|--:|--:|")
    for subset, score in zip(subsets, scores):
        full = have[:, np.array(subset)].all(1)
        parts = [full & (fold_of == fold) for fold in range(5)]
        of_folds = np.mean([roc_auc_score(target[part], score[part]) for part in parts])
        print(f"| {subset_name(subset, modalities)} | {full.sum()} | {of_folds:.3f} | "
              f"{roc_auc_score(target[full], score[full]):.3f} | {roc_auc_score(target, score):.3f} |")


if __name__ == "__main__":
    main(*sys.argv[1:])
