"""A method's stages, and learning rates that run over several of them."""
from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

from torch.optim import Optimizer

from nnmiss.errors import NnmissError, nearest_names


@dataclass(frozen=True)
class Stage:
    """One stage of a method.

    Attributes:
        name: folder and `--stage` name.
        epochs: as published, in segmentation counted in nnU-Net's epochs of 250 iterations, in classification in passes
            over the training samples. `--set num_epochs=N` shares N among the stages in proportion to these.
        drop_modalities: whether the network is shown a random subset of what a case has, or all of it.
    """

    name: str
    epochs: int = 1000
    drop_modalities: bool = True


def find_stage(stages: tuple[Stage, ...], name: str, left_out: Collection[str] = ()) -> int:
    """Position of the stage of this name. Raises NnmissError with the names, also for one that settings leave out."""
    names = [stage.name for stage in stages]
    if name not in names:
        if name in left_out:
            raise NnmissError(f"stage {name!r} is left out by this run's preset or settings, which train "
                              f"{' and '.join(names)}. nnmiss_train ... --set help lists the stages of a --preset")
        raise NnmissError(f"stage {name!r} is unknown for this method. {nearest_names(name, names)}")
    return names.index(name)


SCHEDULES = {
    "poly": lambda progress: (1 - progress) ** 0.9,  # nnU-Net's and LCKD's
    "cosine": lambda progress: 0.5 * (1 + math.cos(math.pi * progress)),  # MetaKD section 8
    "constant": lambda progress: 1.0,  # SimMLM's
}


class StagedSchedule:
    """Learning rate by epoch, where one schedule runs over all stages: stage two goes on where stage one ended.

    Has the interface nnU-Net's trainer uses: `step(epoch)` with the epoch of the current stage.

    Args:
        optimizer: whose parameter groups are set.
        initial_lr: rate at the start of the first stage.
        name: one of SCHEDULES.
        first_epoch: epochs of the stages before this one.
        total_epochs: epochs of all stages.

    Raises:
        NnmissError: unknown name.
    """

    def __init__(self, optimizer: Optimizer, initial_lr: float, name: str, first_epoch: int, total_epochs: int):
        if name not in SCHEDULES:
            raise NnmissError(f"schedule {name!r} is unknown. {nearest_names(name, list(SCHEDULES))}")
        self.optimizer, self.initial_lr, self.factor = optimizer, initial_lr, SCHEDULES[name]
        self.first_epoch, self.total_epochs = first_epoch, total_epochs

    def step(self, epoch: int) -> None:
        """Sets the rate of `epoch` (0 is the first of the current stage)."""
        rate = self.initial_lr * self.factor((self.first_epoch + epoch) / self.total_epochs)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
