"""MetaKD's modality-weighted knowledge distillation between every pair of present modalities (Eq. 4 and 5)."""
from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

from torch import Tensor

from nnmiss.errors import NnmissError, nearest_names

DIRECTIONS = ("detached", "symmetric", "stronger")


def pairwise_distillation(features: Tensor, index: Tensor, ratios: Tensor, p: int = 1,
                          direction: str = "detached") -> Tensor:
    """Sum over ordered pairs (i, j) of present modalities of w_i / w_j times the mean of |f_i - f_j|^p, batch mean.

    Eq. 5 writes a norm; it is taken as the mean over elements (the official code's reduction), so that alpha means
    the same at every feature size. p = 2 is the mean squared error of the paper's ablation (Fig. 3a).

    Args:
        features: (P, C, *spatial) packed features; with no spatial axes this is the loss for classification.
        index: (B, M) long, item of each sample's modality, -1 where absent (nnmiss.networks.base.item_index).
        ratios: (M, M), [i, j] = w_i / w_j, without gradient.
        p: 1 or 2.
        direction: "detached": i is the teacher and gets no gradient (official code); "symmetric": both get it
            (Eq. 4 as written); "stronger": as detached, but only where w_i > w_j.

    Returns:
        Scalar float32; 0 (still attached to the graph) when no sample has two modalities.

    Raises:
        NnmissError: unknown direction or p.
    """
    if direction not in DIRECTIONS:
        raise NnmissError(f"direction {direction!r} is unknown. {nearest_names(direction, DIRECTIONS)}")
    if p not in (1, 2):
        raise NnmissError(f"p must be 1 or 2, got {p}")
    total = features[:0].float().sum()  # 0, attached to the graph
    weight = ratios.tolist()
    for i, j, items_i, items_j in _pairs(index, together=features.ndim == 2):
        total = total + _pair(_take(features, items_i), _take(features, items_j), weight[i][j], weight[j][i], p, direction)
    return total / len(index)


def _pairs(index: Tensor, together: bool) -> Iterator[tuple[int, int, list[int], list[int]]]:
    """(i, j, items of i, items of j) of all present pairs: one sample at a time, or `together` all that have the pair.

    Together is a hundred times fewer operations, but copies features; maps of voxels are too large for that.
    """
    rows = index.tolist()
    for part in [rows] if together else [[row] for row in rows]:
        for i, j in combinations(range(index.shape[1]), 2):
            both = [row for row in part if row[i] >= 0 and row[j] >= 0]
            if both:
                yield i, j, [row[i] for row in both], [row[j] for row in both]


def _take(features: Tensor, items: list[int]) -> Tensor:
    """(n, C, *spatial) float32; a single item comes as a view."""
    return (features[items] if len(items) > 1 else features[items[0] : items[0] + 1]).float()


def _pair(f_i: Tensor, f_j: Tensor, w_ij: float, w_ji: float, p: int, direction: str) -> Tensor:
    """Both directions of one pair of modalities, summed over samples: w_ij weighs i teaching j."""
    def distance(a: Tensor, b: Tensor) -> Tensor:
        difference = (a - b).abs() if p == 1 else (a - b).square()
        return difference.flatten(1).mean(1).sum()

    if direction == "symmetric":
        return (w_ij + w_ji) * distance(f_i, f_j)
    if direction == "stronger":
        w_ij, w_ji = (w_ij if w_ij > 1 else 0.0), (w_ji if w_ji > 1 else 0.0)
    zero = f_j[:0].sum()  # what nobody teaches is not computed
    return ((w_ij * distance(f_i.detach(), f_j) if w_ij else zero)
            + (w_ji * distance(f_j.detach(), f_i) if w_ji else zero))
