"""MetaKD's modality-weighted knowledge distillation between every pair of present modalities (Eq. 4 and 5)."""
from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import torch
from torch import Tensor

from nnmiss.errors import NnmissError, nearest_names
from nnmiss.losses.feature_distances import Distance, feature_distance

DIRECTIONS = ("detached", "symmetric", "stronger")


def pairwise_distillation(features: Tensor, index: Tensor, ratios: Tensor, p: int = 1, direction: str = "detached",
                          distance: str = "lp", students: Tensor | None = None, weights: Tensor | None = None) -> Tensor:
    """Sum over ordered pairs (i, j) of present modalities of w_i / w_j times the distance of f_i and f_j, batch mean.

    Eq. 5 writes a norm; it is taken as the mean over elements (the official code's reduction), so that alpha means
    the same at every feature size. p = 2 is the mean squared error of the paper's ablation (Fig. 3a).

    Args:
        features: (P, C, *spatial) packed features; with no spatial axes this is the loss for classification.
        index: (B, M) long, item of each sample's modality, -1 where absent (nnmiss.networks.base.item_index).
        ratios: (M, M), [i, j] = w_i / w_j, without gradient; or (K, M, M), one of each of the K `weights`.
        p: 1 or 2.
        direction: "detached": i is the teacher and gets no gradient (official code); "symmetric": both get it
            (Eq. 4 as written); "stronger": as detached, but only where w_i > w_j.
        distance: one of nnmiss.losses.feature_distances.DISTANCES.
        students: like `features`, what stands for them on the student's side, such as their projection; None: themselves.
        weights: (B, K, *spatial), where voxels count, summing to 1 over space or 0; the mean over K is taken. None: all
            voxels alike.

    Returns:
        Scalar float32; 0 (still attached to the graph) when no sample has two modalities.

    Raises:
        NnmissError: unknown direction, distance or p.
    """
    if direction not in DIRECTIONS:
        raise NnmissError(f"direction {direction!r} is unknown. {nearest_names(direction, DIRECTIONS)}")
    measure = feature_distance(distance, p)
    students = features if students is None else students
    total = students[:0].float().sum()  # 0, attached to the graph
    parts = [part.tolist() for part in (ratios if ratios.ndim == 3 else ratios[None])]
    for i, j, samples, items_i, items_j in _pairs(index, together=features.ndim == 2):
        places = None if weights is None else weights[samples]
        pair = _Pair(measure, places, direction)
        teachers = _take(features, items_i), _take(features, items_j)
        pupils = teachers if students is features else (_take(students, items_i), _take(students, items_j))
        total = total + pair(teachers, pupils, [w[i][j] for w in parts], [w[j][i] for w in parts])
    return total / len(index)


def _pairs(index: Tensor, together: bool) -> Iterator[tuple[int, int, list[int], list[int], list[int]]]:
    """(i, j, samples, items of i, items of j) of all present pairs: one sample at a time, or `together` all that have it.

    Together is a hundred times fewer operations, but copies features; maps of voxels are too large for that.
    """
    rows = list(enumerate(index.tolist()))
    for part in [rows] if together else [[row] for row in rows]:
        for i, j in combinations(range(index.shape[1]), 2):
            both = [(b, row) for b, row in part if row[i] >= 0 and row[j] >= 0]
            if both:
                yield i, j, [b for b, _ in both], [row[i] for _, row in both], [row[j] for _, row in both]


def _take(features: Tensor, items: list[int]) -> Tensor:
    """(n, C, *spatial) float32; a single item comes as a view."""
    return (features[items] if len(items) > 1 else features[items[0] : items[0] + 1]).float()


class _Pair:
    """Both directions of one pair of modalities, summed over samples.

    Args:
        measure: distance of two maps. places: (n, K, *spatial) or None.
    """

    def __init__(self, measure: Distance, places: Tensor | None, direction: str):
        self.measure, self.places, self.direction = measure, places, direction

    def __call__(self, teachers: tuple[Tensor, Tensor], pupils: tuple[Tensor, Tensor], w_ij: list[float],
                 w_ji: list[float]) -> Tensor:
        """`w_ij`, of each of the places, weighs i teaching j. teachers, pupils: the features of (i, j)."""
        (f_i, f_j), (s_i, s_j) = teachers, pupils
        if self.direction == "symmetric":
            if s_i is f_i:
                return self.weighed(f_i, f_j, [a + b for a, b in zip(w_ij, w_ji)])
            return self.weighed(f_i, s_j, w_ij) + self.weighed(f_j, s_i, w_ji)
        if self.direction == "stronger":
            w_ij, w_ji = ([w if w > 1 else 0.0 for w in side] for side in (w_ij, w_ji))
        zero = f_j[:0].sum()  # what nobody teaches is not computed
        return ((self.weighed(f_i.detach(), s_j, w_ij) if any(w_ij) else zero)
                + (self.weighed(f_j.detach(), s_i, w_ji) if any(w_ji) else zero))

    def weighed(self, a: Tensor, b: Tensor, w: list[float]) -> Tensor:
        """Distance of a and b, times w; the mean over places."""
        if self.places is None:
            return w[0] * self.measure(a, b).sum()
        return (self.measure(a, b, self.places) * torch.tensor(w, device=a.device)).sum() / self.places.shape[1]
