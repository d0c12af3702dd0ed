"""The plan's U-Net as a multimodal masked autoencoder: modalities from some patches of some modalities."""
from __future__ import annotations

import torch
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager
from torch import Tensor, nn

from nnmiss.networks.architecture import build_unet
from nnmiss.networks.early_fusion_unet import EarlyFusionUNet

PATCHES_PER_AXIS = 8  # M3AE: 16^3 voxels of 128^3


class MaskedAutoencoder(EarlyFusionUNet):
    """Reconstructs all M modalities from what it is shown (all-stage section 3.1, after M3AE).

    The segmentation network's architecture with M outputs and no deep supervision. What is not shown is 0. M3AE puts a
    learned image there instead, whose voxels are those of one atlas: it does not exist off BraTS.

    Args:
        unet: the plan's U-Net with M input and M output channels.
        num_modalities: M.
    """

    def __init__(self, unet: nn.Module, num_modalities: int):
        super().__init__(unet, num_modalities)
        for i in range(len(self.decoder.seg_layers) - 1):  # only the finest output is used and trained
            self.decoder.seg_layers[i] = nn.Identity()

    def decode(self, fused):
        outputs = super().decode(fused)
        return outputs[0] if isinstance(outputs, list) else outputs  # deep supervision may be switched on

    def forward(self, x: Tensor, present: Tensor | None = None, patches: Tensor | None = None) -> Tensor:
        """The reconstruction (B, M, *spatial).

        Args:
            x: (B, M, *spatial) float; what is not shown may hold anything.
            present: (B, M) bool; None shows every modality.
            patches: (B, M, *grid) bool, the visible patches of a grid over the patch (`draw_patches`); None shows all.
        """
        shown = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if present is None else present
        shown = shown.view(*shown.shape, *[1] * (x.ndim - 2))
        if patches is not None:
            shown = shown & voxels_of(patches, x.shape[2:])
        return self.decode([torch.where(shown, x, 0)])


def build_autoencoder(configuration: ConfigurationManager, num_modalities: int) -> MaskedAutoencoder:
    """The autoencoder of a plan's configuration for M modalities."""
    return MaskedAutoencoder(build_unet(configuration, num_modalities, num_modalities, False), num_modalities)


def blanked(x: Tensor, shown: Tensor) -> Tensor:
    """Images (B, M, *spatial) with what is not `shown` (B, M) bool as 0, whatever it held."""
    return torch.where(shown.view(*shown.shape, *[1] * (x.ndim - 2)), x, 0)


def patch_grid(spatial: tuple[int, ...]) -> tuple[int, ...]:
    """How many patches lie along each axis: 8 as in M3AE, so a patch is an eighth of the plan's; at most one per voxel."""
    return tuple(min(PATCHES_PER_AXIS, size) for size in spatial)


def voxels_of(patches: Tensor, spatial: tuple[int, ...]) -> Tensor:
    """(B, M, *grid) -> (B, M, *spatial): each voxel's patch; where an axis does not divide, patches differ by a voxel."""
    for axis, (size, grid) in enumerate(zip(spatial, patches.shape[2:]), 2):
        patches = patches.index_select(axis, torch.arange(size, device=patches.device) * grid // size)
    return patches


def draw_patches(present: Tensor, spatial: tuple[int, ...], mask_ratio: float, generator: torch.Generator) -> Tensor:
    """Which patches are visible, per sample.

    As in M3AE the number of visible patches is that share of all M modalities' patches whatever was dropped; they are
    drawn from the modalities that are shown. If those have fewer, all of them are visible.

    Args:
        present: (B, M) bool, the modalities that are shown.
        spatial: size of the images.
        mask_ratio: share of the patches of all M modalities that is hidden.
        generator: on the CPU.

    Returns:
        (B, M, *grid) bool on the device of `present`; at least one patch of each sample is visible.
    """
    grid, (samples, modalities) = patch_grid(spatial), present.shape
    order = torch.rand(samples, modalities, *grid, generator=generator)
    shown = present.cpu().view(samples, modalities, *[1] * len(grid)).expand_as(order).flatten(1)  # (B, M*T)
    order = order.flatten(1).masked_fill(~shown, 2.0)  # patches of modalities that are not shown sort last
    visible = max(1, round((1 - mask_ratio) * order.shape[1]))
    chosen = torch.zeros_like(shown).scatter_(1, order.argsort(1)[:, :visible], True) & shown
    return chosen.view(samples, modalities, *grid).to(present.device)
