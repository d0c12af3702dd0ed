"""Margin-aware distillation: relations between voxels, weighted by the teacher's uncertainty (all-stage, Eq. 4)."""
from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

SMALLEST_PROBABILITY = 1e-7


def margin_aware_distillation(student: Tensor, teacher: Tensor, logits: Tensor, positions: Tensor,
                              regions: bool) -> Tensor:
    """One layer's loss: how differently student and teacher relate voxels, most where the teacher is uncertain.

    Wei et al., "MMANet" (CVPR 2023), in the form of its segmentation code, where voxels are the samples. For N voxels of
    a sample, with features F (N, C): G = F F^T with rows of length 1, D = (G_student - G_teacher)^2 element by element,
    w = the teacher's entropy at the voxels over its sum, and the loss is sum_i w_i sum_j D_ij, mean over the batch.
    All-stage sums it over the layers. Without gradient for the teacher.

    Args:
        student: (B, C, *spatial) float, a layer's features.
        teacher: (B, C', *spatial) float, the same layer of the teacher.
        logits: (B, K, *any) float, the teacher's prediction; averaged to the layer's grid.
        positions: (B, N) float in [0, 1), which voxels are compared (see `voxels_at`).
        regions: the K outputs are independent regions (sigmoid), not classes (softmax).

    Returns:
        Scalar float32 in [0, 4]; computed in single precision even under mixed precision.
    """
    size = student.shape[2:]
    with torch.autocast(student.device.type, enabled=False):
        with torch.no_grad():
            logits = logits.float()
            if logits.shape[2:] != size:
                pool = F.adaptive_avg_pool3d if logits.ndim == 5 else F.adaptive_avg_pool2d
                logits = pool(logits, tuple(size))  # (B, K, *spatial)
            entropy = prediction_entropy(voxels_at(logits, positions), regions)  # (B, N)
            weight = entropy / entropy.sum(1, keepdim=True).clamp_min(SMALLEST_PROBABILITY)
            expected = _relations(voxels_at(teacher, positions))  # (B, N, N)
        difference = (_relations(voxels_at(student, positions)) - expected).square()
        return (difference.sum(2) * weight).sum(1).mean()


def prediction_entropy(logits: Tensor, regions: bool) -> Tensor:
    """Entropy in nats of predictions (..., K) -> (...); of regions the mean of the K binary entropies."""
    if not regions:
        return _surprise(logits.softmax(-1)).sum(-1)
    return (_surprise(logits.sigmoid()) + _surprise((-logits).sigmoid())).mean(-1)


def voxels_at(values: Tensor, positions: Tensor) -> Tensor:
    """Values of some voxels, spread evenly over any grid.

    The grid's V voxels in memory order are cut into N strips of nearly equal length, and positions (B, N) in [0, 1) pick
    one voxel of each, so that none is picked twice; a grid of at most N voxels is taken whole.

    Args:
        values: (B, C, *spatial).
        positions: (B, N) float.

    Returns:
        (B, min(N, V), C).
    """
    flat = values.flatten(2)  # (B, C, V)
    voxels, samples = flat.shape[2], positions.shape[1]
    if voxels <= samples:
        return flat.transpose(1, 2)
    bounds = torch.arange(samples + 1, device=positions.device) * voxels // samples
    lengths = bounds.diff()
    index = bounds[:-1] + (positions * lengths).long().minimum(lengths - 1)  # (B, N); rounding may reach the length
    return flat.gather(2, index[:, None].expand(-1, flat.shape[1], -1)).transpose(1, 2)


def _relations(features: Tensor) -> Tensor:
    """(B, N, C) -> (B, N, N): inner products of every pair of voxels, rows of length 1."""
    features = features.float()
    return F.normalize(features @ features.transpose(1, 2), dim=2)


def _surprise(probability: Tensor) -> Tensor:
    return -probability * probability.clamp_min(SMALLEST_PROBABILITY).log()
