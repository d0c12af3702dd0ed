"""The masked autoencoder's loss: squared error over what a case really has (all-stage, Eq. 1)."""
from __future__ import annotations

import torch
from torch import Tensor


def reconstruction_loss(reconstruction: Tensor, images: Tensor, available: Tensor) -> Tensor:
    """Mean over the samples of the mean over their available modalities of the mean squared error.

    Zhao et al., "Dealing with All-stage Missing Modality" (2024), Eq. 1. The paper writes a squared norm; it is taken as
    the mean over voxels, so that the loss does not grow with the patch.

    Args:
        reconstruction: (B, M, *spatial) float.
        images: (B, M, *spatial) float, the targets; what a case lacks may hold anything, NaN included.
        available: (B, M) bool, no empty row: what can be a target.

    Returns:
        Scalar float32.
    """
    known = available.view(*available.shape, *[1] * (images.ndim - 2))  # (B, M, 1, ...)
    target = torch.where(known, images, 0).float()  # (B, M, ...)
    error = (reconstruction.float() - target).square().flatten(2).mean(2)  # (B, M)
    return (torch.where(available, error, 0).sum(1) / available.sum(1)).mean()
