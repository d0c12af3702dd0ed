"""What a method may write: its settings, stages, networks, losses and what its stages start from."""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import Tensor, nn

from .settings import COMMON
from .stages import Stage


class MethodHooks(nnUNetTrainer):
    """Everything a method overrides, with its default; mixed into MissingModalityTrainer, whose attributes it uses."""

    method: str = ""
    stages: tuple[Stage, ...] = (Stage("train"),)  # unless they depend on the data: then `stages_of`
    hyperparameters: dict[str, object] = {}  # the method's own settings with their defaults; become attributes
    network_settings: dict[str, object] = {}  # settings the network is built from; stored in the plans
    run_settings: dict[str, object] = {}  # further settings that all stages share, such as which stages there are
    presets: dict[str, dict[str, object]] = {"paper": {}}
    limits: dict[str, tuple[float, float]] = {}  # smallest and largest value of the method's numbers
    choices: dict[str, tuple] = {}  # what its other settings may be

    # ---- what a method writes -----------------------------------------------------------------------------------

    def losses(self, network: nn.Module, x: Tensor, target: list[Tensor] | Tensor, present: Tensor,
               **drawn: Tensor) -> dict[str, Tensor]:
        """The method's training objective.

        Args:
            network: what `stage_network` built; called once, so that distributed training sees every gradient.
            x: (B, M, *patch) float; absent modalities hold anything.
            target: segmentation targets as nnU-Net's loss takes them, one per deep supervision output.
            present: (B, M) bool, what the network may be shown.
            drawn: what else `draw` gave, a row per sample.

        Returns:
            {"loss": scalar with gradient, and named parts to log}.
        """
        raise NotImplementedError

    def draw(self, available: Tensor) -> dict[str, Tensor]:
        """Everything random of an iteration, for `losses`: name -> (B, ...), replayable from seed, stage and iteration.

        Args:
            available: (B, M) bool, what the cases of the batch have.
        """
        return {"present": self.draw_present(available)}

    def before_iteration(self) -> None:
        """Called before every training iteration, when `self.iteration` is its number in this stage."""

    @classmethod
    def known_settings(cls) -> dict[str, object]:
        """Everything `--set` may change, with defaults."""
        return {**COMMON, **cls.hyperparameters, **cls.run_settings, **cls.network_settings}

    def status(self) -> str:
        """What the method adds to the progress bar, such as its importance weights."""
        return ""

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

    def stage_network(self, plans_manager, configuration_manager, num_input_channels, num_output_channels,
                      enable_deep_supervision=True) -> nn.Module:
        """What this stage trains. Default: the network of inference, which `build_network_architecture` builds."""
        return type(self).build_network_architecture(plans_manager, configuration_manager, num_input_channels,
                                                     num_output_channels, enable_deep_supervision)

    @staticmethod
    def build_recovery(plans_manager, configuration_manager, num_modalities) -> nn.Module | None:
        """The network that reconstructs missing modalities, a MissingModalityNetwork with M outputs; None: there is none.

        Its weights are `method_state()["recovery"]` of the last stage. `nnmiss_predict --save_reconstructions` runs it.
        """
        return None

    @property
    def inference_network(self) -> nn.Module:
        """The part of what is trained that is validated and stored as "network_weights"; called with (x, present)."""
        return self.bare_network

    @property
    def segments(self) -> bool:
        """Whether this stage has a segmentation to validate; else only its loss is."""
        return True

    @property
    def starts_afresh(self) -> bool:
        """Whether this stage starts from random weights, so that it may be given pretrained ones."""
        return self.stage is self.stages[0]

    def resting_parts(self) -> list[nn.Module]:
        """Parts that a step may have nothing to teach: with a gradient of all zeros they stay as they are.

        (The gradient exists because distributed training waits for one; an optimiser with momentum would move them.)
        """
        return []

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
