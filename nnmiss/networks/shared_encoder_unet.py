"""One encoder shared by all modalities, a fusion per scale, and nnU-Net's decoder."""
from __future__ import annotations

import torch
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nnmiss.errors import NnmissError
from nnmiss.networks.architecture import build_unet
from nnmiss.networks.base import MissingModalityNetwork
from nnmiss.networks.fusion import fusion_class
from nnmiss.networks.shared_subsets import SubsetDecoder, can_share

IMPUTATIONS = ("bottleneck", "all")


class SharedEncoderUNet(MissingModalityNetwork):
    """MetaKD's and LCKD's network on nnU-Net's architecture (MetaKD Eq. 1-3, Fig. 2).

    The encoder sees one channel; the present modalities of a batch are packed into its batch dimension, so its cost
    follows the number of modalities present. nnU-Net normalises per instance, hence packing does not change results.

    Args:
        unet: a U-Net with one input channel, `.encoder` and `.decoder` (nnmiss.networks.architecture.build_unet).
        num_modalities: M.
        fusion: name of a fusion (nnmiss.networks.fusion.FUSIONS), used at every scale.
        imputation: where Eq. 2 generates missing features and Eq. 4 weights them: "bottleneck" (official code) or
            "all" scales.
        activation_checkpointing: recompute the encoder in the backward pass, in up to M parts, to save memory.

    Raises:
        NnmissError: unknown fusion or imputation.
    """

    def __init__(self, unet: nn.Module, num_modalities: int, fusion: str = "concat", imputation: str = "all",
                 activation_checkpointing: bool = False):
        super().__init__(num_modalities)
        if imputation not in IMPUTATIONS:
            raise NnmissError(f"imputation {imputation!r} is unknown: choose {' or '.join(IMPUTATIONS)}")
        self.encoder, self.decoder = unet.encoder, unet.decoder
        scales = list(self.encoder.output_channels)
        self.fusions = nn.ModuleList(
            fusion_class(fusion)(num_modalities, channels, impute=imputation == "all" or i == len(scales) - 1)
            for i, channels in enumerate(scales)
        )
        self.activation_checkpointing = activation_checkpointing

    def encode(self, images: Tensor, modality: Tensor) -> list[Tensor]:
        if not (self.activation_checkpointing and torch.is_grad_enabled()):
            return self.encoder(images)
        at_once = -(-len(images) // self.num_modalities)  # at most M parts: one image at a time is slow on a CPU
        parts = [checkpoint(self.encoder, part, use_reentrant=False) for part in images.split(at_once)]
        return [torch.cat(scale) for scale in zip(*parts)]

    def fuse(self, features, index, importance=None):
        rows = index.tolist()  # once: every look at a tensor's values waits for the GPU
        return [fusion(scale, rows, importance) for fusion, scale in zip(self.fusions, features)]

    def decode(self, fused):
        return self.decoder(fused)

    def decode_subsets(self, features, index, presents, batch):
        if not can_share(self):
            return super().decode_subsets(features, index, presents, batch)
        return SubsetDecoder(self, presents, features[0].device).decode(features, index.tolist(), batch)

    def compute_conv_feature_map_size(self, input_size) -> int:
        """nnU-Net's proxy of activation memory (voxels times channels) with all M modalities present."""
        encoder = self.encoder.compute_conv_feature_map_size(input_size)
        return self.num_modalities * encoder + self.decoder.compute_conv_feature_map_size(input_size)


def build_shared_encoder(configuration: ConfigurationManager, num_modalities: int, num_output_channels: int,
                         deep_supervision: bool) -> SharedEncoderUNet:
    """The plan's U-Net with one input channel as a shared-encoder network, with the settings of its "nnmiss" block."""
    block = configuration.configuration.get("nnmiss", {})
    unet = build_unet(configuration, 1, num_output_channels, deep_supervision, block.get("width_factor", 1.0))
    return SharedEncoderUNet(unet, num_modalities, block.get("fusion", "concat"), block.get("imputation", "all"),
                             block.get("activation_checkpointing", False))
