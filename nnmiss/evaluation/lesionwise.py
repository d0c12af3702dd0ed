"""Lesion-wise Dice and HD95 by the rules of a BraTS year, the ground truth prepared once."""
from __future__ import annotations

from collections.abc import Iterable
from math import sqrt

import numpy as np

from nnmiss.evaluation.hausdorff import Surface, region_surface, surface_hd
from nnmiss.evaluation.label_maps import Regions
from nnmiss.evaluation.lesion_rules import LesionRules, Tissue
from nnmiss.evaluation.lesions import Lesions, among, find_lesions, lesion_pairs

PERCENTILE, DEFINITION = 95.0, "brats2023"


class LesionReference:
    """The lesions of a ground truth; `score` compares a prediction with them.

    Args:
        labels: (z, y, x) C-contiguous integers >= 0, axes as `label_maps.read_label_map` returns them, or 2D.
        foreground: (n,) flat indices of labels > 0, ascending.
        spacing_mm: voxel size per axis.
        regions: what is scored.
        rules: the year's.
        label_names: canonical label name -> integer, see `nnmiss.export.label_names`; needed where `rules.joins`.
    """

    def __init__(self, labels: np.ndarray, foreground: np.ndarray, spacing_mm: tuple[float, ...], regions: Regions,
                 rules: LesionRules, label_names: dict[str, int] | None = None) -> None:
        self.rules, self.spacing_mm, self.shape = rules, tuple(map(float, spacing_mm)), labels.shape
        self.names = dict(label_names or {})
        self.members = {name: np.asarray(values) for name, values in regions.members.items()}
        self.penalty_mm = sqrt(sum(n * n for n in self.shape)) if rules.penalty_mm is None else rules.penalty_mm
        self.voxel_mm3 = float(np.prod(self.spacing_mm))
        found = _Finder(labels, foreground, self)  # of the ground truth
        self.lesions = {region: found.lesions(region) for region in self.members}
        self.surfaces = {region: _Surfaces(lesions, self.spacing_mm) for region, lesions in self.lesions.items()}

    def score(self, labels: np.ndarray, foreground: np.ndarray,
              regions: Iterable[str] | None = None) -> dict[str, dict[str, float]]:
        """Region -> lesion_dice (0 to 1), lesion_hd95 (mm) and the lesions found, false and missed (counts).

        Args:
            labels, foreground: a prediction, as the ground truth.
            regions: which of the regions; default all.
        """
        found = _Finder(labels, foreground, self, prediction=True)
        return {region: self._region(region, found.lesions(region)) for region in (regions or self.members)}

    def tissue(self, region: str) -> Tissue:
        """The rules of a region: those of its label where it is one label that has its own."""
        by_value = {value: name for name, value in self.names.items()}
        members = self.members[region]
        return self.rules.of(by_value.get(int(members[0])) if len(members) == 1 else None)

    def _region(self, region: str, pred: Lesions) -> dict[str, float]:
        gt, surfaces = self.lesions[region], self.surfaces[region]
        matched, false = _matches(gt, pred)
        common = _common_voxels(gt, pred)
        gt_sizes, pred_sizes = gt.sizes, pred.sizes
        predicted = _Surfaces(pred, self.spacing_mm)
        dices, distances, missed = [], [], 0
        for lesion in np.flatnonzero(gt_sizes * self.voxel_mm3 > self.tissue(region).min_volume):
            partners = matched.get(int(lesion), ())
            if not partners:
                dices.append(0.0)
                distances.append(self.penalty_mm)
                missed += 1
                continue
            overlap = sum(common.get((int(lesion), partner), 0) for partner in partners)
            dices.append(2 * overlap / (gt_sizes[lesion] + pred_sizes[list(partners)].sum()))
            distances.append(surface_hd(surfaces.of((int(lesion),)), predicted.of(partners), PERCENTILE))
        counted = len(false) if self.rules.false_positives else 0
        n = len(dices) + counted
        return {"lesion_dice": float(sum(dices) / n) if n else 1.0,
                "lesion_hd95": float((sum(distances) + counted * self.penalty_mm) / n) if n else 0.0,
                "lesion_tp": len(dices) - missed, "lesion_fp": len(false), "lesion_fn": missed}


class _Finder:
    """Lesions of the regions of one label map, and of the single labels that join them."""

    def __init__(self, labels: np.ndarray, foreground: np.ndarray, owner: LesionReference, prediction: bool = False):
        self.foreground, self.values = foreground, labels.reshape(-1)[foreground]
        self.owner, self.prediction = owner, prediction
        self.labels: dict[str, Lesions] = {}

    def lesions(self, region: str) -> Lesions:
        tissue = self.owner.tissue(region)
        if self.prediction and not self.owner.rules.predictions_alike:
            return find_lesions(self._voxels(self.owner.members[region]), self.owner.shape, 0, reached=False)
        found = self._of(self.owner.members[region], tissue)
        for other in tissue.joins:
            found = found.joined(self._label(other))
        return found

    def _label(self, name: str) -> Lesions:
        if name not in self.labels:
            values = np.array([self.owner.names[name]] if name in self.owner.names else [], np.int64)
            self.labels[name] = self._of(values, self.owner.rules.of(name), ordered=True)
        return self.labels[name]

    def _of(self, values: np.ndarray, tissue: Tissue, ordered: bool = False) -> Lesions:
        """`ordered`: others may join these lesions, and go by their numbers."""
        found = find_lesions(self._voxels(values), self.owner.shape, tissue.dilation, ordered or not self.prediction)
        if not self.prediction:
            return found
        unit = self.owner.voxel_mm3 if self.owner.rules.predictions_in_mm3 else 1.0
        return found.without_small(tissue.min_volume / unit)

    def _voxels(self, values: np.ndarray) -> np.ndarray:
        return self.foreground[np.isin(self.values, values)]


class _Surfaces:
    """Surfaces of lesions of one region, each made once."""

    def __init__(self, lesions: Lesions, spacing_mm: tuple[float, ...]) -> None:
        self.lesions, self.spacing_mm = lesions, spacing_mm
        self.made: dict[tuple[int, ...], Surface] = {}

    def of(self, chosen: tuple[int, ...]) -> Surface:
        """The surface of some lesions together."""
        if chosen not in self.made:
            inside = np.zeros(self.lesions.count + 1, bool)
            inside[list(chosen)] = True
            own = self.lesions.voxels[inside[self.lesions.of]]
            mask = np.zeros(self.lesions.shape, np.uint8)  # only pages that are written to take memory
            mask.reshape(-1)[own] = 1
            self.made[chosen] = region_surface(mask, own, np.array([False, True]), self.spacing_mm, DEFINITION)
        return self.made[chosen]


def _matches(gt: Lesions, pred: Lesions) -> tuple[dict[int, tuple[int, ...]], np.ndarray]:
    """Lesion of the ground truth -> predicted ones its dilation reaches; and the predicted ones no dilation reaches."""
    here, place = among(pred.voxels, gt.reach)
    pairs, _ = lesion_pairs(gt.reach_of[place], pred.of[here], pred.count)
    pairs = pairs[pairs[:, 1] > 0]
    lesions, start = np.unique(pairs[:, 0], return_index=True)
    partners = np.split(pairs[:, 1], start[1:]) if len(lesions) else []
    matched = {int(lesion): tuple(map(int, found)) for lesion, found in zip(lesions, partners)}
    return matched, np.setdiff1d(pred.of[pred.of > 0], pairs[:, 1])


def _common_voxels(gt: Lesions, pred: Lesions) -> dict[tuple[int, int], int]:
    """(lesion, predicted lesion) -> voxels they share."""
    here, place = among(pred.voxels, gt.voxels)
    pairs, counts = lesion_pairs(gt.of[place], pred.of[here], pred.count)
    return {(int(a), int(b)): int(n) for (a, b), n in zip(pairs, counts)}
