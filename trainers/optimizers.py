"""Optimisers and learning rates of classification, by the names of the settings."""
from __future__ import annotations

import torch
from torch.optim import Optimizer

from .stages import SCHEDULES

OPTIMIZERS = {  # Adam's decay is a part of its gradient, as published; AdamW's is not
    "adam": lambda parameters, lr, decay: torch.optim.Adam(parameters, lr, weight_decay=decay),
    "adamw": lambda parameters, lr, decay: torch.optim.AdamW(parameters, lr, weight_decay=decay),
    "sgd": lambda parameters, lr, decay: torch.optim.SGD(parameters, lr, momentum=0.9, weight_decay=decay),
}
RATES = (*SCHEDULES, "step", "plateau")


class EpochSchedule:
    """Learning rate by epoch; `step(epoch)` sets the rate of that epoch of the stage.

    Args:
        optimizer: whose parameter groups are set; each group's rate at the start is its own.
        name: one of RATES. "step": times `decay` every `every` epochs. "plateau": times `decay` whenever `every` epochs
            passed without a better score. The others run over `total` epochs.
        total: epochs over which poly and cosine run.
        scores: the validation scores of the stage's epochs so far, higher is better; read, not kept.
        first: epochs of earlier stages, where a schedule runs over several.
    """

    def __init__(self, optimizer: Optimizer, name: str, total: int, decay: float, every: int, scores: list[float],
                 first: int = 0):
        self.optimizer, self.name, self.total, self.decay, self.every = optimizer, name, total, decay, every
        self.scores, self.first = scores, first
        self.initial = [group["lr"] for group in optimizer.param_groups]

    def step(self, epoch: int) -> None:
        """Sets the rate of `epoch` (0 is the first of the stage)."""
        for group, initial in zip(self.optimizer.param_groups, self.initial):
            group["lr"] = initial * self.factor(epoch)

    def factor(self, epoch: int) -> float:
        """The rate of an epoch, relative to the initial one."""
        if self.name == "step":
            return self.decay ** ((self.first + epoch) // self.every)
        if self.name == "plateau":
            return self.decay ** plateaus(self.scores[:epoch], self.every)
        return SCHEDULES[self.name]((self.first + epoch) / self.total)


def plateaus(scores: list[float], every: int) -> int:
    """How often `every` epochs in a row were no better than the best before."""
    best, waiting, count = -float("inf"), 0, 0
    for score in scores:
        waiting = 0 if score > best else waiting + 1
        best = max(best, score)
        if waiting == every:
            waiting, count = 0, count + 1
    return count
