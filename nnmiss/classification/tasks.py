"""What a classification task means for outputs, targets and losses: multiclass, binary or multilabel."""
from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

TASKS = ("multiclass", "binary", "multilabel")


def num_outputs(task: str, classes: list[str]) -> int:
    """Outputs of a network: one per class, or per label; a binary task has two classes and one output."""
    return 1 if task == "binary" else len(classes)


def probabilities(logits: Tensor, task: str) -> Tensor:
    """Probabilities of every class, for people to read.

    Args:
        logits: (..., outputs) float; NaN rows stay NaN.
        task: one of TASKS.

    Returns:
        (..., classes) float32: softmax; for a binary task (1 - p, p) of the sigmoid; for labels the sigmoid of each.
    """
    logits = logits.float()
    if task == "multiclass":
        return logits.softmax(-1)
    p = logits.sigmoid()
    return torch.cat([1 - p, p], -1) if task == "binary" else p


class TaskLoss:
    """The supervised loss: cross-entropy, or binary cross-entropy averaged over the labels that are known.

    Args:
        task: one of TASKS.
        class_weights: (classes,) float or None. Multiclass: weight of each class, as torch's cross-entropy has it.
            Binary: (weight of class 0, weight of class 1). Multilabel: weight of each label's positives.
    """

    def __init__(self, task: str, class_weights: Tensor | None = None):
        self.task, self.class_weights = task, class_weights

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """(B,) losses of logits (B, outputs). A sample without any known label gives 0.

        Args:
            target: multiclass (B,) long, -1 where unlabelled; else (B, outputs) float 0/1, NaN where unlabelled.
        """
        weights = None if self.class_weights is None else self.class_weights.to(logits)
        if self.task == "multiclass":
            return F.cross_entropy(logits.float(), target, weights, ignore_index=-1, reduction="none")
        known = ~target.isnan()  # (B, outputs)
        truth = torch.where(known, target, 0).float()
        losses = F.binary_cross_entropy_with_logits(logits.float(), truth, reduction="none")
        if weights is not None:
            losses = losses * (torch.where(truth > 0.5, weights[1], weights[0]) if self.task == "binary"
                               else torch.where(truth > 0.5, weights, 1.0))
        return torch.where(known, losses, 0).sum(1) / known.sum(1).clamp_min(1)

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Mean over the samples; with class weights of a multiclass task the weighted mean, as torch's."""
        losses = self.per_sample(logits, target)
        if self.task == "multiclass":
            known = target >= 0
            share = known.float() if self.class_weights is None else torch.where(
                known, self.class_weights.to(logits)[target.clamp_min(0)], 0.0)
            return losses.sum() / share.sum().clamp_min(1e-8)
        return losses.sum() / (~target.isnan()).any(1).sum().clamp_min(1)
