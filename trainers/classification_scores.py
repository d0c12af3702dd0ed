"""The score by which epochs are compared: one of the evaluation's metrics, or the loss."""
from __future__ import annotations

import numpy as np
from torch import Tensor

from nnmiss.classification.tasks import TaskLoss, probabilities
from nnmiss.evaluation.classification.conventions import ALL
from nnmiss.evaluation.classification.metrics import estimates


def score(name: str, logits: Tensor, target: Tensor, task: str) -> float:
    """One score of n samples, higher is better; NaN where it is not defined, as without samples.

    Args:
        name: accuracy, macro_f1, auroc or auprc, as the evaluation defines them, or loss (its negative).
        logits: (n, outputs). target: as SampleSet has it, every sample with at least one known label.
    """
    if not len(logits):
        return float("nan")
    if name == "loss":
        return -float(TaskLoss(task)(logits, target))
    p = probabilities(logits, task).numpy()  # (n, classes)
    classes = [str(c) for c in range(p.shape[1])]
    return float(estimates(task, classes, target.numpy(), p, np.ones((len(p), 1)))[ALL, name][0])
