"""What a method may write: its settings, stages, networks, losses and what its stages start from."""
from __future__ import annotations

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import Tensor, nn

from .settings import COMMON
from .shared_hooks import SharedHooks
from .subset_sampling import SAMPLINGS


class MethodHooks(SharedHooks, nnUNetTrainer):
    """Everything a method overrides, with its default; mixed into MissingModalityTrainer, whose attributes it uses.

    What classification has too is in SharedHooks.
    """

    common, common_choices = COMMON, {"subset_sampling": SAMPLINGS}

    @classmethod
    def without_effect(cls, settings):
        idle = () if settings.get("activation_checkpointing", True) else ("whole_passes", "kept_images")
        return {**super().without_effect(settings), **dict.fromkeys(idle, "activation_checkpointing=true")}

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
    def segments(self) -> bool:
        """Whether this stage has a segmentation to validate; else only its loss is."""
        return True
