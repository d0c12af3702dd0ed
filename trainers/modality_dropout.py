"""The baseline every method must beat: stock nnU-Net's network and training, with channels dropped at random."""
from __future__ import annotations

from torch import nn

from nnmiss.networks.architecture import build_unet
from nnmiss.networks.early_fusion_unet import EarlyFusionUNet

from .base import MissingModalityTrainer
from .stages import Stage


class nnMissTrainerModalityDropout(MissingModalityTrainer):
    """nnU-Net's loss, optimiser and schedule; absent and dropped channels are zeros (after augmentation)."""

    method = "modality_dropout"
    stages = (Stage("train"),)

    @staticmethod
    def build_network_architecture(plans_manager, configuration_manager, num_input_channels, num_output_channels,
                                   enable_deep_supervision=True) -> nn.Module:
        """Stock nnU-Net's network of the plan; its parameters keep stock's names."""
        unet = build_unet(configuration_manager, num_input_channels, num_output_channels, enable_deep_supervision)
        return EarlyFusionUNet(unet, num_input_channels)

    def losses(self, network, x, target, present):
        """nnU-Net's task loss of a random subset."""
        task = self.loss(network(x, present), target)
        return {"loss": task}
