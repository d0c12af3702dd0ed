"""SimMLM's MoFe: a prediction from more modalities must not have a larger task loss than one from fewer of them."""
from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

SMOOTH = 1e-5  # of the Dice loss, as in nnU-Net


def more_versus_fewer(more: Tensor, fewer: Tensor, target: Tensor, regions: bool, ignore_label: int | None = None,
                      detach_fewer: bool = False) -> Tensor:
    """Mean over samples and tasks of relu(Dice loss of more - of fewer) plus the same of cross-entropy.

    No margin; and without `detach_fewer` the gradient also raises the loss of the prediction from fewer, both as in
    the official code.

    Args:
        more, fewer: (B, K, *spatial) logits of the same images.
        target, regions, ignore_label: see `task_losses`.
        detach_fewer: no gradient into `fewer`.

    Returns:
        Scalar float32, at least 0.
    """
    of_more = task_losses(more, target, regions, ignore_label)
    of_fewer = task_losses(fewer.detach() if detach_fewer else fewer, target, regions, ignore_label)
    return sum(ranking_loss(a, b) for a, b in zip(of_more, of_fewer))


def ranking_loss(of_more: Tensor, of_fewer: Tensor) -> Tensor:
    """MoFe of losses of any shape, one a sample or one a sample and task: mean of relu(more - fewer), at least 0."""
    return F.relu(of_more - of_fewer).mean()


def task_losses(logits: Tensor, target: Tensor, regions: bool, ignore_label: int | None = None) -> tuple[Tensor, Tensor]:
    """Dice loss and binary cross-entropy of every sample and task.

    A task is a region, or a foreground label against all the rest: its probability is the softmax's, its
    cross-entropy the binary one of that probability, so that every task has a loss of its own.

    Args:
        logits: (B, K, *spatial).
        target: with `regions` (B, K, *spatial) 0/1, followed by a channel that marks ignored voxels if there is an ignore
            label; else (B, 1, *spatial) label values.
        regions: whether the outputs are regions or labels with the background first.
        ignore_label: value of ignored voxels, or None.

    Returns:
        Soft Dice loss 1 - Dice, (B, tasks) float32, and cross-entropy, mean over the voxels that count, (B, tasks).
    """
    logits = logits.float()
    if regions:
        tasks, counts = logits, torch.ones_like(logits[:, :1])
        if ignore_label is not None:
            target, counts = target[:, :-1], 1 - target[:, -1:].float()
        truth = target.float()
    else:
        tasks = one_against_rest(logits)
        labels = torch.arange(1, logits.shape[1], device=logits.device).view(1, -1, *[1] * (logits.ndim - 2))
        truth = (target == labels).float()
        counts = torch.ones_like(target, dtype=torch.float32) if ignore_label is None else (target != ignore_label).float()
    space = tuple(range(2, logits.ndim))
    probability = tasks.sigmoid()
    overlap, total = (counts * probability * truth).sum(space), (counts * (probability + truth)).sum(space)
    dice = 1 - (2 * overlap + SMOOTH) / (total + SMOOTH)
    entropy = F.binary_cross_entropy_with_logits(tasks, truth, reduction="none")
    return dice, (counts * entropy).sum(space) / counts.sum(space).clamp_min(1)


def one_against_rest(logits: Tensor) -> Tensor:
    """(B, K, ...) -> (B, K - 1, ...): logits of every foreground label whose sigmoid is the softmax's probability."""
    before, after = logits.logcumsumexp(1), logits.flip(1).logcumsumexp(1).flip(1)  # of labels up to k, and from k on
    rest = torch.cat([torch.logaddexp(before[:, :-2], after[:, 2:]), before[:, -2:-1]], 1)  # of all but k
    return logits[:, 1:] - rest
