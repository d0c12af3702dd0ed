"""Sums of mapped features sample by sample, written in place: no stacked copies, no zero-filled gradients."""
from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def weighted_sums(features: Tensor, maps: Tensor, rows: list[list[int]], bias: Tensor | None = None) -> Tensor:
    """For each sample the sum of its items, each times a matrix or a number of its own.

    Args:
        features: (P, C, *spatial) of packed items.
        maps: (B, M, C, C) linear maps, or (B, M) factors; those of modalities that are not shown are not read.
        rows: B lists of M numbers: the item of each modality, -1 where it is not shown. Samples may share items.
        bias: (C,) added to every sample, with matrices only.

    Returns:
        (B, C, *spatial) of the features' type and memory layout.
    """
    maps = maps.to(features.dtype)
    return _WeightedSums.apply(features, maps, None if bias is None else bias.to(features.dtype), rows)


def _empty(number: int, like: Tensor) -> Tensor:
    """An uninitialised batch of `number` items in the memory layout of `like`."""
    layout = torch.contiguous_format
    for dims, last in ((4, torch.channels_last), (5, torch.channels_last_3d)):
        if like.ndim == dims and not like.is_contiguous() and like.is_contiguous(memory_format=last):
            layout = last
    return torch.empty((number, *like.shape[1:]), dtype=like.dtype, device=like.device, memory_format=layout)


class _WeightedSums(torch.autograd.Function):
    """One matrix product per shown (sample, modality) in each direction, on views (C, voxels) in either layout."""

    @staticmethod
    def forward(ctx, features: Tensor, maps: Tensor, bias: Tensor | None, rows: list[list[int]]) -> Tensor:
        ctx.save_for_backward(features, maps)
        ctx.rows, ctx.has_bias = rows, bias is not None
        fused = _empty(len(rows), features)
        for b, row in enumerate(rows):
            target = fused[b].flatten(1)  # (C, S), a view
            started = bias is not None and bias[:, None]
            for m, item in enumerate(row):
                if item >= 0:
                    _add(target, maps[b, m], features[item].flatten(1), started)
                    started = True
        return fused

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor):
        features, maps = ctx.saved_tensors
        of_features = _empty(len(features), features) if ctx.needs_input_grad[0] else None
        of_maps = torch.zeros_like(maps) if ctx.needs_input_grad[1] else None
        begun = [False] * len(features)
        for b, row in enumerate(ctx.rows):
            above = gradient[b].flatten(1)  # (C, S)
            for m, item in enumerate(row):
                if item < 0:
                    continue
                if of_features is not None:
                    _add(of_features[item].flatten(1), maps[b, m].mT if maps.ndim == 4 else maps[b, m], above, begun[item])
                    begun[item] = True
                if of_maps is not None:
                    below = features[item].flatten(1)
                    of_maps[b, m] = above @ below.mT if maps.ndim == 4 else (above * below).sum()
        if of_features is not None and not all(begun):
            of_features[[i for i, done in enumerate(begun) if not done]] = 0
        of_bias = gradient.sum((0, *range(2, gradient.ndim))) if ctx.has_bias else None
        return of_features, of_maps, of_bias, None


def _add(target: Tensor, mapping: Tensor, values: Tensor, started: bool | Tensor) -> None:
    """target (C, S) = mapping (C, C) or () times values (C, S), plus what is `started`: the target itself, or a bias."""
    if mapping.ndim == 0:
        if started is False:
            torch.mul(values, mapping, out=target)
        else:
            target.addcmul_(values, mapping)
        return
    base = started if isinstance(started, Tensor) else target
    torch.addmm(base, mapping, values, beta=0 if started is False else 1, out=target)
