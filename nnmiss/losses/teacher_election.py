"""LCKD's teachers: which modality teaches which task, and distillation that is weighted by where a task's region is."""
from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

NAN = float("nan")


def soft_dice(probabilities: Tensor, truth: Tensor, valid: Tensor | None = None) -> Tensor:
    """2 sum(p g) / (sum(p) + sum(g)) of every task, over the voxels of one case.

    Args:
        probabilities: (K, *spatial) float in 0 to 1.
        truth: (K, *spatial) bool.
        valid: (*spatial) bool, voxels that count; None: all.

    Returns:
        (K,) float32; NaN where the case does not have the region, which no modality could then show.
    """
    if valid is not None:
        probabilities, truth = probabilities[:, valid], truth[:, valid]  # (K, V)
    p, g = probabilities.flatten(1).float(), truth.flatten(1)  # (K, V)
    size = g.sum(1)  # (K,)
    dice = 2 * (p * g).sum(1) / (p.sum(1) + size).clamp_min(1e-8)
    return torch.where(size > 0, dice, NAN)


def compare_modalities(dice: Tensor) -> Tensor:
    """Mean Dice of every modality on every task over cases.

    Modalities of different cases do not compare, for some cases are harder. So where a task has cases with a Dice for every
    modality that has any, only these count; else each modality has the mean over its own cases.

    Args:
        dice: (C, M, K) float, NaN where a case lacks the modality or the region.

    Returns:
        (M, K), NaN where no case says anything.
    """
    columns = []
    for table in dice.unbind(2):  # (C, M)
        known = ~table.isnan()
        common = known[:, known.any(0)].all(1) & known.any(1)  # (C,)
        columns.append((table[common] if common.any() else table).nanmean(0))
    return torch.stack(columns, 1)


def elect_teachers(dice: Tensor, incumbents: list[int]) -> list[int]:
    """The modality with the highest Dice on each task (LCKD section 2.2).

    Args:
        dice: (M, K), NaN where unknown.
        incumbents: K modalities, who stay where nothing is known of a task.

    Returns:
        K modalities; of equals the first in channel order.
    """
    teachers = []
    for column, incumbent in zip(dice.T.tolist(), incumbents):
        known = [value for value in column if value == value]
        teachers.append(column.index(max(known)) if known else incumbent)
    return teachers


def region_weights(truth: Tensor, size: torch.Size) -> Tensor:
    """Where each region is on a coarser grid: its occupancy of each voxel, as a part of its whole.

    Args:
        truth: (B, K, *spatial) float, 1 inside the region.
        size: spatial size of the coarser grid.

    Returns:
        (B, K, *size) float32 that sums to 1 over space, or 0 where a sample does not have the region.
    """
    pool = F.adaptive_avg_pool3d if len(size) == 3 else F.adaptive_avg_pool2d
    occupancy = pool(truth.float(), tuple(size))
    total = occupancy.flatten(2).sum(2).view(*occupancy.shape[:2], *[1] * len(size))  # (B, K, 1, ...)
    return occupancy / total.clamp_min(1e-8)


def regional_distillation(features: Tensor, index: Tensor, teachers: list[int], weights: Tensor, p: int = 1) -> Tensor:
    """Sum over tasks k and present students of the mean |f_teacher(k) - f_student|^p where region k is, batch mean.

    The mean is over channels, and over voxels with `weights`: with equal weights it is the mean over all elements, as in
    nnmiss.losses.pairwise_distillation. An experiment of ours, from no paper.

    Args:
        features: (P, C, *spatial) packed features.
        index: (B, M) long, item of each sample's modality, -1 where absent (nnmiss.networks.base.item_index).
        teachers: K modalities, the teacher of each task; it gets no gradient as a teacher. An absent one teaches nobody.
        weights: (B, K, *spatial) of `region_weights`.
        p: 1 or 2.

    Returns:
        Scalar float32; 0 (still attached to the graph) when nobody is taught.
    """
    total = features[:0].float().sum()  # 0, attached to the graph
    for row, places in zip(index.tolist(), weights):
        for teacher in sorted({t for t in teachers if row[t] >= 0}):
            lesson = features[row[teacher]].detach().float()
            place = places[[k for k, t in enumerate(teachers) if t == teacher]].sum(0)  # (*spatial)
            for student, item in enumerate(row):
                if item >= 0 and student != teacher:
                    total = total + (place * (lesson - features[item].float()).abs().pow(p).mean(0)).sum()
    return total / len(index)
