"""One encoder shared by all modalities, a fusion per scale, and nnU-Net's decoder."""
from __future__ import annotations

import torch
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nnmiss.errors import NnmissError, nearest_names
from nnmiss.networks.architecture import build_unet
from nnmiss.networks.base import MissingModalityNetwork
from nnmiss.networks.fusion import FUSIONS, fusion_class
from nnmiss.networks.fusion_base import Fusion, FusionByMaps
from nnmiss.networks.modality_layers import MODALITY_SPECIFIC, specialise
from nnmiss.networks.shared_subsets import SubsetDecoder, can_share

IMPUTATIONS = ("bottleneck", "all", "none")
# what the methods with this network let a user set, and the plan's "nnmiss" block keeps; SharedEncoderUNet explains them
SETTINGS: dict[str, object] = {
    "fusion": "concat", "imputation": "all", "modality_specific": "none", "separate_stages": 0,
    "activation_checkpointing": False, "whole_passes": 0, "kept_images": 0,
}
CHOICES = {"fusion": tuple(FUSIONS), "imputation": IMPUTATIONS, "modality_specific": MODALITY_SPECIFIC}
LIMITS = {"separate_stages": (0, 20)}


class SharedEncoderUNet(MissingModalityNetwork):
    """MetaKD's and LCKD's network on nnU-Net's architecture (MetaKD Eq. 1-3, Fig. 2).

    The encoder sees one channel; the present modalities of a batch are packed into its batch dimension, so its cost
    follows the number of modalities present. nnU-Net normalises per instance, hence packing does not change results.

    Args:
        unet: a U-Net with one input channel, `.encoder` and `.decoder` (nnmiss.networks.architecture.build_unet).
        num_modalities: M.
        fusion: name of a fusion (nnmiss.networks.fusion.FUSIONS), used at every scale.
        imputation: where Eq. 2 generates missing features and Eq. 4 weights them: "bottleneck" (official code) or
            "all" scales; "none": missing modalities contribute nothing, and importance weighs the bottleneck's features.
        activation_checkpointing: recompute the encoder in the backward pass, in up to M parts, to save memory, and fusions
            that keep more than the features.
        whole_passes, kept_images: with checkpointing, passes of at most so many images recompute nothing, so that what is
            shown few modalities costs no more time; of larger ones so many images keep their activations.
        modality_specific, separate_stages: what of the encoder each modality has for itself
            (nnmiss.networks.modality_layers.specialise).

    Raises:
        NnmissError: unknown or impossible choice.
    """

    def __init__(self, unet: nn.Module, num_modalities: int, fusion: str = "concat", imputation: str = "all",
                 activation_checkpointing: bool = False, whole_passes: int = 0, kept_images: int = 0,
                 modality_specific: str = "none", separate_stages: int = 0):
        super().__init__(num_modalities)
        if imputation not in IMPUTATIONS:
            raise NnmissError(f"imputation {imputation!r} is unknown. {nearest_names(imputation, IMPUTATIONS)}")
        self.encoder, self.decoder = unet.encoder, unet.decoder
        scales = list(self.encoder.output_channels)
        weigh = [imputation == "all"] * (len(scales) - 1) + [True]  # where importance counts
        self.fusions = nn.ModuleList(
            fusion_class(fusion)(num_modalities, channels, impute=here and imputation != "none", weigh=here)
            for channels, here in zip(scales, weigh)
        )
        self.activation_checkpointing = activation_checkpointing
        self.whole_passes, self.kept_images = whole_passes, kept_images
        self.shown = specialise(self.encoder, num_modalities, modality_specific, separate_stages)

    def encode(self, images: Tensor, modality: Tensor) -> list[Tensor]:
        if not (self.activation_checkpointing and torch.is_grad_enabled()):
            return self._encoded(images, modality)
        kept, *sizes = checkpointed_parts(len(images), self.num_modalities, self.kept_images, self.whole_passes)
        pairs = zip(images.split([kept, *sizes]), modality.split([kept, *sizes]))
        parts = [self._encoded(*pair) if part == 0 else checkpoint(self._encoded, *pair, use_reentrant=False)
                 for part, pair in enumerate(pairs) if len(pair[0])]
        return [torch.cat(scale) for scale in zip(*parts)] if len(parts) > 1 else parts[0]

    def _encoded(self, images: Tensor, modality: Tensor) -> list[Tensor]:
        with self.shown.showing(modality):  # here, as a recomputed part must be told again
            return self.encoder(images)

    def fuse(self, features, index, importance=None):
        rows = index.tolist()  # once: every look at a tensor's values waits for the GPU
        return [self._fused(fusion, scale, rows, importance) for fusion, scale in zip(self.fusions, features)]

    def _fused(self, fusion: Fusion, features: Tensor, rows: list[list[int]], importance: Tensor | None) -> Tensor:
        keeps_more = not isinstance(fusion, FusionByMaps)  # than the features
        if keeps_more and self.activation_checkpointing and torch.is_grad_enabled() and features.requires_grad:
            return checkpoint(fusion, features, rows, importance, use_reentrant=False)
        return fusion(features, rows, importance)

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


def checkpointed_parts(images: int, num_modalities: int, kept: int, whole: int) -> list[int]:
    """[kept, part, part, ...]: how many images of a pass keep their activations, and the sizes of what is recomputed.

    All of a pass of at most `whole` images are kept.

    Parts are as large as with all modalities, at least two: one image at a time is slow on a CPU. What is kept gives way
    by one image rather than leave a part of one.
    """
    kept = images if images <= whole else min(kept, images)
    if images - kept == 1 and kept > 1:
        kept -= 1
    rest = images - kept
    parts = max(1, rest // max(2, -(-images // num_modalities))) if rest else 0
    return [kept, *(rest // parts + (part < rest % parts) for part in range(parts))]


def build_shared_encoder(configuration: ConfigurationManager, num_modalities: int, num_output_channels: int,
                         deep_supervision: bool) -> SharedEncoderUNet:
    """The plan's U-Net with one input channel as a shared-encoder network, with the settings of its "nnmiss" block."""
    block = configuration.configuration.get("nnmiss", {})
    unet = build_unet(configuration, 1, num_output_channels, deep_supervision, block.get("width_factor", 1.0))
    return SharedEncoderUNet(unet, num_modalities, **{key: block.get(key, default) for key, default in SETTINGS.items()})
