"""Random changes of training images, drawn from a generator so that a run can be replayed."""
from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def chest_xray(images: Tensor, black: Tensor, generator: torch.Generator) -> Tensor:
    """MedFuse's augmentation of chest X-rays: half of them mirrored, then turned, scaled and shifted.

    Args:
        images: (B, C, H, W) float, any device.
        black: (C, 1, 1), what black is after normalisation: it fills what comes from outside.
        generator: of the CPU; each image takes five numbers.

    Returns:
        (B, C, H, W): turned by up to 45 degrees, scaled by 0.85 to 1.15, shifted by up to 0.15 of the size each way.
    """
    count, _, height, width = images.shape
    drawn = torch.rand(count, 5, generator=generator)
    angle, scale, right, down = ((low + (high - low) * drawn[:, i]).to(images) for i, (low, high) in enumerate(
        ((-math.pi / 4, math.pi / 4), (0.85, 1.15), (-0.15, 0.15), (-0.15, 0.15))))
    mirror = torch.where(drawn[:, 4] < 0.5, -1.0, 1.0).to(images)
    # where each output pixel comes from, in grid_sample's units (-1 to 1 per axis): undo shift, scale and turn, then mirror
    cos, sin = angle.cos() / scale, angle.sin() / scale
    linear = torch.stack([cos, sin * height / width, -sin * width / height, cos], 1).view(count, 2, 2)
    shift = torch.stack([right, down], 1)[..., None] * 2
    theta = torch.cat([linear, -linear @ shift], 2)
    theta = torch.stack([theta[:, 0] * mirror[:, None], theta[:, 1]], 1)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images - black, grid, mode="bilinear", padding_mode="zeros", align_corners=False) + black
