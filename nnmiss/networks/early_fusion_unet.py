"""Stock nnU-Net's network, with absent channels blanked: the baseline every method must beat."""
from __future__ import annotations

import torch
from torch import nn

from nnmiss.networks.base import MissingModalityNetwork


class EarlyFusionUNet(MissingModalityNetwork):
    """Concatenates the channels, absent ones as zeros, and runs nnU-Net's U-Net of the plan.

    In the three steps of a family: encoding is the image itself, fusing stacks the channels, decoding is the whole
    network, so subsets share nothing. Parameters have stock nnU-Net's names: checkpoints can be exchanged with it.

    Args:
        unet: stock nnU-Net's network with M input channels, `.encoder` and `.decoder`.
        num_modalities: M.
    """

    def __init__(self, unet: nn.Module, num_modalities: int):
        super().__init__(num_modalities)
        self.encoder, self.decoder = unet.encoder, unet.decoder

    def encode(self, images, modality):
        return [images]  # (P, 1, ...)

    def fuse(self, features, index, importance=None):
        images = features[0][:, 0]  # (P, ...)
        if importance is not None:
            raise NotImplementedError("early fusion has no features to weight by importance")
        shown = (index >= 0).view(*index.shape, *[1] * (images.ndim - 1))  # (B, M, 1, ...)
        return [torch.where(shown, images[index.clamp_min(0)], 0)]  # (B, M, ...)

    def decode(self, fused):
        return self.decoder(self.encoder(fused[0]))

    def compute_conv_feature_map_size(self, input_size) -> int:
        """nnU-Net's proxy of activation memory (voxels times channels)."""
        return (self.encoder.compute_conv_feature_map_size(input_size)
                + self.decoder.compute_conv_feature_map_size(input_size))
