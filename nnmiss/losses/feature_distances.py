"""How far one feature map is from another, by name: element by element, by direction, or by how voxels relate."""
from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from nnmiss.errors import NnmissError, nearest_names

DISTANCES = ("lp", "cosine", "relation")
TINY = 1e-12  # beside squared lengths, so that voxels of zeros have no infinite gradient
GRID = 4  # positions along each axis that `relation` compares; 64 in 3D give a matrix of 64 x 64

Distance = Callable[..., Tensor]  # (a, b, weights=None) -> (n,), or (n, K) with weights (n, K, *spatial)


def feature_distance(name: str, p: int = 1) -> Distance:
    """The distance of this name, called with (a, b, weights=None).

    a, b: (n, C, *spatial) float32, or (n, C); weights: (n, K, *spatial), each of which sums to 1 over space or is 0, or
    None for the plain mean. It returns (n,), or with weights (n, K).

    Args:
        name: "lp": mean of |a - b|^p (MetaKD Eq. 5); "cosine": 1 - cosine of the channels at every voxel, which leaves the
            features their size; "relation": squared difference of how similar voxels, or the samples of a batch, are to
            one another (similarity-preserving distillation, Tung and Mori 2019; MMANet's use of it).
        p: 1 or 2, of "lp" alone.

    Raises:
        NnmissError: unknown name or p.
    """
    if name not in DISTANCES:
        raise NnmissError(f"distance {name!r} is unknown. {nearest_names(name, DISTANCES)}")
    if p not in (1, 2):
        raise NnmissError(f"p must be 1 or 2, got {p}")
    return {"lp": partial(_lp, p), "cosine": _cosine, "relation": _relation}[name]


def _lp(p: int, a: Tensor, b: Tensor, weights: Tensor | None = None) -> Tensor:
    difference = (a - b).abs() if p == 1 else (a - b).square()
    return difference.flatten(1).mean(1) if weights is None else _weighted(difference.mean(1), weights)


def _cosine(a: Tensor, b: Tensor, weights: Tensor | None = None) -> Tensor:
    sizes = a.square().sum(1) * b.square().sum(1)  # torch's own cosine takes three times as long backwards
    apart = 1 - (a * b).sum(1) * (sizes + TINY).rsqrt()  # (n, *spatial)
    if weights is not None:
        return _weighted(apart, weights)
    return apart.flatten(1).mean(1) if apart.ndim > 1 else apart


def _weighted(values: Tensor, weights: Tensor) -> Tensor:
    """(n, K): sums of values (n, *spatial) times weights (n, K, *spatial)."""
    with full_precision(values):
        return torch.einsum("ns,nks->nk", values.flatten(1), weights.flatten(2))


def full_precision(values: Tensor) -> torch.autocast:
    """Autocast would multiply matrices in half precision, in which one voxel's share of a million is 0."""
    return torch.autocast(values.device.type, enabled=False)


def _relation(a: Tensor, b: Tensor, weights: Tensor | None = None) -> Tensor:
    with full_precision(a):
        return _relations_apart(a, b, weights)


def _relations_apart(a: Tensor, b: Tensor, weights: Tensor | None) -> Tensor:
    apart = (similarities(a) - similarities(b)).square()
    if a.ndim == 2:  # (n, n): a sample counts with its row
        return apart.mean(1)
    if weights is None:
        return apart.flatten(1).mean(1)
    coarse = _pooled(weights).flatten(2)  # (n, K, G)
    coarse = coarse / coarse.sum(2, keepdim=True).clamp_min(1e-12)
    return torch.einsum("nkg,ngh,nkh->nk", coarse, apart, coarse)


def similarities(features: Tensor) -> Tensor:
    """Cosines between the voxels of a map, on at most GRID positions an axis: (n, C, *spatial) -> (n, G, G).

    Of vectors (n, C) the cosines between the samples, (n, n).
    """
    if features.ndim == 2:
        directions = F.normalize(features, dim=1)
        return directions @ directions.T
    directions = F.normalize(_pooled(features).flatten(2), dim=1)  # (n, C, G)
    return directions.mT @ directions


def _pooled(maps: Tensor) -> Tensor:
    pool = F.adaptive_avg_pool3d if maps.ndim == 5 else F.adaptive_avg_pool2d
    return pool(maps, tuple(min(size, GRID) for size in maps.shape[2:]))
