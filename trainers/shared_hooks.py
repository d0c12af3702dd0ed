"""What a method may write whatever its task: its settings, its stages, what is drawn, what a stage starts from."""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from .stages import Stage


class SharedHooks:
    """Hooks of segmentation and classification trainers, with their defaults; a method's mathematics overrides them."""

    method: str = ""
    stages: tuple[Stage, ...] = (Stage("train"),)  # unless they depend on the data: then `stages_of`
    common: dict[str, object] = {}  # settings of every method of the task, with their defaults
    common_network: dict[str, object] = {}  # those of them that the network is built from
    common_limits: dict[str, tuple[float, float]] = {}
    common_choices: dict[str, tuple] = {}
    hyperparameters: dict[str, object] = {}  # the method's own settings with their defaults; become attributes
    network_settings: dict[str, object] = {}  # settings the network is built from; stored in the plans
    run_settings: dict[str, object] = {}  # further settings that all stages share, such as which stages there are
    unused: tuple[str, ...] = ()  # common settings that mean nothing to the method, and are refused
    presets: dict[str, dict[str, object]] = {"paper": {}}
    default_preset: str = "paper"  # the one of a run that names none
    limits: dict[str, tuple[float, float]] = {}  # smallest and largest value of the method's numbers
    choices: dict[str, tuple] = {}  # what its other settings may be

    def draw(self, available: Tensor) -> dict[str, Tensor]:
        """Everything random of an iteration, for `losses`: name -> (B, ...), replayable from seed, stage and iteration.

        Args:
            available: (B, M) bool, what the cases of the batch have.
        """
        return {"present": self.draw_present(available)}

    def before_iteration(self) -> None:
        """Called before every training iteration, when `self.iteration` is its number in this stage."""

    @classmethod
    def notes(cls, settings: list[dict[str, object]]) -> list[str]:
        """What a user should know of a run with these settings of its stages, who may not have asked for them."""
        return []

    @classmethod
    def known_settings(cls) -> dict[str, object]:
        """Everything `--set` may change, with defaults."""
        return {**cls.common, **cls.common_network, **cls.hyperparameters, **cls.run_settings, **cls.network_settings}

    @classmethod
    def shared_settings(cls) -> dict[str, object]:
        """Those that hold for all stages, with defaults."""
        return {**cls.common_network, **cls.network_settings, **cls.run_settings}

    @classmethod
    def all_limits(cls) -> dict[str, tuple[float, float]]:
        """Smallest and largest value of every number, beside nnmiss.trainers.settings.LIMITS."""
        return {**cls.common_limits, **cls.limits}

    @classmethod
    def all_choices(cls) -> dict[str, tuple]:
        """What every setting with a list of values may be."""
        return {**cls.common_choices, **cls.choices}

    @classmethod
    def check_settings(cls, settings: dict[str, object]) -> None:
        """Raises NnmissError for settings of a stage that contradict each other. Asked for all stages before the first."""

    @classmethod
    def without_effect(cls, settings: dict[str, object]) -> dict[str, str]:
        """Settings that change nothing beside a stage's others -> what they need instead; `--set` refuses them."""
        return {}

    def status(self) -> str:
        """What the method adds to the progress bar, such as its importance weights."""
        return ""

    def method_state(self) -> dict:
        """What the method keeps in the checkpoint besides the network: tensors and plain values."""
        return {}

    def load_method_state(self, state: dict) -> None:
        """Takes back what `method_state` gave."""

    # ---- stages: what a method with several different ones writes -------------------------------------------------

    @classmethod
    def stages_of(cls, modalities: list[str], settings: dict[str, object]) -> tuple[Stage, ...]:
        """The stages for these modalities and settings, in order; `settings` are those all stages share."""
        return cls.stages

    @classmethod
    def prepare(cls, block: dict, modalities: list[str], preprocessed_folder: Path) -> list[str]:
        """Called at every start of a run, before anything is trained, so it must bear repetition.

        Args:
            block: the run's "nnmiss" block of the plans; may be changed.
            modalities: names in channel order.
            preprocessed_folder: where the plans lie; files may be written there.

        Returns:
            Notes for the user. Raises NnmissError when something that was asked for cannot be had.
        """
        return []

    def num_held_out(self) -> int:
        """How many training cases the method wants held out (nnmiss.trainers.splits.hold_out)."""
        return 0

    @property
    def looks_at_held_out(self) -> bool:
        """Whether these settings use the held-out cases; where not, the user is told that they only cost."""
        return True

    def training_cases(self, cases: list[str]) -> list[str]:
        """Which of `cases` this stage uses, to train and to validate its epochs; `self.available` says what they have."""
        return cases

    @property
    def inference_network(self) -> nn.Module:
        """The part of what is trained that predicts; called with (x, present). It, or its moving average, is stored."""
        return self.bare_network

    @property
    def starts_afresh(self) -> bool:
        """Whether this stage starts from random weights, so that it may be given pretrained ones."""
        return self.stage is self.stages[0]

    def resting_parts(self) -> list[nn.Module]:
        """Parts that a step may have nothing to teach: with a gradient of all zeros they stay as they are.

        (The gradient exists because distributed training waits for one; an optimiser with momentum would move them.)
        """
        return []

    def let_rest(self) -> None:
        """Takes the gradient away from resting parts that have nothing to learn in this step."""
        for part in self.resting_parts():
            gradients = [p.grad.any() for p in part.parameters() if p.grad is not None]
            if gradients and not torch.stack(gradients).any():
                for parameter in part.parameters():
                    parameter.grad = None

    def begin_stage(self, checkpoint_of: Callable[[str], dict]) -> None:
        """Called when a stage starts, not when it resumes. Default: goes on from the stage before.

        Args:
            checkpoint_of: name of an earlier stage -> its final checkpoint; raises NnmissError when it has none.
        """
        position = self.stages.index(self.stage)
        if position:
            self.take_over(checkpoint_of(self.stages[position - 1].name))

    def recall(self, checkpoint_of: Callable[[str], dict]) -> None:
        """Called when a stage starts or resumes: takes from finished stages what is only read, such as a teacher."""
