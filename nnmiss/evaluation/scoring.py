"""All metrics of a prediction against a ground truth that is prepared once: arrays in, numbers out."""
from __future__ import annotations

from collections.abc import Iterable
from math import nan

import numpy as np

from nnmiss.errors import NnmissError
from nnmiss.evaluation.conventions import Conventions
from nnmiss.evaluation.hausdorff import Surface, region_surface, spatial_axes, surface_hd
from nnmiss.evaluation.label_maps import Regions
from nnmiss.evaluation.lesion_rules import find_rules
from nnmiss.evaluation.lesionwise import LesionReference
from nnmiss.evaluation.overlap import Counts, dice, label_pairs, region_counts, sensitivity, specificity
from nnmiss.evaluation.suppression import suppression_of


class Reference:
    """A ground truth; `score` compares any number of predictions with it.

    Args:
        labels: integers, 2D or 3D; axes of length 1 are dropped.
        spacing_mm: voxel size per axis of `labels`.
        regions: see `label_maps.regions_of`. Voxels with its ignore label are left out of all counts, and are
            background in both maps for HD95.
        conventions: what is computed and how.
        label_names: canonical label name -> integer where `conventions` need them, see `suppression.names_needed`.

    Raises NnmissError when `labels` is not of integers or has values the regions do not know.
    """

    def __init__(self, labels: np.ndarray, spacing_mm: tuple[float, ...], regions: Regions,
                 conventions: Conventions | None = None, label_names: dict[str, int] | None = None) -> None:
        self.conventions = conventions or Conventions()
        self.regions = regions
        self.suppression = suppression_of(regions, self.conventions, label_names or {})
        self.file_shape = labels.shape
        axes = spatial_axes(labels.shape)
        self.shape = tuple(labels.shape[i] for i in axes)
        in_mm = self.conventions.hd95_unit == "mm"
        self.spacing_mm = tuple(float(spacing_mm[i]) if in_mm else 1.0 for i in axes)
        self.num_labels = max(regions.known) + 1
        self.inside = {name: np.isin(np.arange(self.num_labels), members) for name, members in regions.members.items()}
        extra = () if regions.ignore is None else (regions.ignore,)
        self.labels, self.foreground = self._checked(labels, "ground truth", extra)
        self.ignored = None
        if regions.ignore is not None:
            self.ignored = np.flatnonzero(self.labels == regions.ignore)
            self.labels, self.foreground = self._without_ignored(self.labels)
        self.surfaces = self._surfaces(self.labels, self.foreground, regions.members)
        self.lesions = None
        if self.conventions.lesionwise is not None:
            self.lesions = LesionReference(self.labels, self.foreground, [spacing_mm[i] for i in axes], regions,
                                           find_rules(self.conventions.lesionwise), label_names)

    @property
    def diagonal(self) -> float:
        """Diagonal of the image, mm (or voxels): the HD95 of a case where exactly one mask is empty, BraTS rule."""
        return float(np.linalg.norm(np.multiply(self.shape, self.spacing_mm)))

    def score(self, labels: np.ndarray) -> tuple[dict[str, dict[str, float]], list[str]]:
        """Compares a prediction, integers of the ground truth's shape.

        Returns region (and suppressed column) -> metric -> value, and those that are empty in exactly one of the two
        (penalised under the BraTS rule). Raises NnmissError for another shape or unknown labels.
        """
        if labels.shape != self.file_shape:
            raise NnmissError(f"shape {labels.shape} differs from the ground truth's {self.file_shape}")
        labels, foreground = self._checked(labels, "prediction")
        num_ignored = 0
        if self.ignored is not None and len(self.ignored):
            labels, foreground = self._without_ignored(labels)
            num_ignored = len(self.ignored)
        scores, one_empty, pairs = self._scores(labels, foreground, num_ignored, self.regions.members)
        if self.suppression is None:
            return scores, one_empty
        return self._with_suppressed(labels, scores, one_empty, num_ignored, int(pairs[:, self.suppression.et].sum()))

    def _scores(self, labels: np.ndarray, foreground: np.ndarray, num_ignored: int,
                regions: Iterable[str]) -> tuple[dict[str, dict[str, float]], list[str], np.ndarray]:
        """Of checked labels: region -> metric -> value, the regions empty in one only, and the counts of label pairs."""
        pairs = label_pairs(self.labels.reshape(-1), labels.reshape(-1), self.foreground, foreground, self.num_labels,
                            num_ignored)
        surfaces = self._surfaces(labels, foreground, regions)
        scores, one_empty = {}, []
        for name in regions:
            counts = region_counts(pairs, self.regions.members[name])
            scores[name] = self._metrics(counts, self.surfaces.get(name), surfaces.get(name))
            if counts.gt_empty != counts.pred_empty:
                one_empty.append(name)
        if self.lesions is not None:
            for name, values in self.lesions.score(labels, foreground, regions).items():
                scores[name].update(values)
        return scores, one_empty, pairs

    def _with_suppressed(self, labels: np.ndarray, scores: dict[str, dict[str, float]], one_empty: list[str],
                         num_ignored: int, et_voxels: int) -> tuple[dict[str, dict[str, float]], list[str]]:
        """The scores with those of the suppressed columns, which are the same where the prediction has enough ET."""
        columns = self.suppression.columns
        changed, changed_empty = scores, one_empty
        if self.suppression.applies(et_voxels):
            labels = self.suppression.replaced(labels)
            changed, changed_empty, _ = self._scores(labels, np.flatnonzero(labels), num_ignored, columns)
        scores = {**scores, **{column: dict(changed[region]) for region, column in columns.items()}}
        return scores, one_empty + [column for region, column in columns.items() if region in changed_empty]

    def foreground_voxels(self, labels: np.ndarray) -> np.ndarray:
        """(n,) flat indices of the voxels that are foreground in the ground truth or in a prediction; none ignored."""
        either = (self.labels != 0) | (labels.reshape(self.shape) != 0)
        if self.ignored is not None:
            either.reshape(-1)[self.ignored] = False
        return np.flatnonzero(either)

    def _metrics(self, counts: Counts, gt: Surface | None, pred: Surface | None) -> dict[str, float]:
        empty = self.conventions.empty
        values = {"dice": dice(counts, empty)}
        if self.conventions.hd95 != "none":
            values["hd95"] = self._hd95(counts, gt, pred)
        return {**values, "sensitivity": sensitivity(counts, empty), "specificity": specificity(counts, empty)}

    def _hd95(self, counts: Counts, gt: Surface, pred: Surface) -> float:
        if counts.gt_empty or counts.pred_empty:
            if self.conventions.empty == "nan":
                return nan
            return 0.0 if counts.gt_empty and counts.pred_empty else self.diagonal
        return surface_hd(gt, pred, self.conventions.percentile)

    def _surfaces(self, labels: np.ndarray, foreground: np.ndarray, regions: Iterable[str]) -> dict[str, Surface]:
        if self.conventions.hd95 == "none":
            return {}
        return {name: region_surface(labels, foreground, self.inside[name], self.spacing_mm, self.conventions.hd95)
                for name in regions}

    def _checked(self, labels: np.ndarray, what: str, extra: tuple[int, ...] = ()) -> tuple[np.ndarray, np.ndarray]:
        """C-contiguous labels without axes of length 1, and the flat indices of their foreground."""
        if labels.dtype.kind not in "iub":
            raise NnmissError(f"{what} holds {labels.dtype}, expected integer labels")
        labels = np.ascontiguousarray(labels).reshape(self.shape)
        labels = labels.view(np.uint8) if labels.dtype == bool else labels
        foreground = np.flatnonzero(labels)
        values = labels.reshape(-1)[foreground]
        known = self.regions.known.union(extra)
        if len(values):
            inside = values.min() >= 0 and values.max() <= max(known)
            found = np.flatnonzero(np.bincount(values.astype(np.int64))) if inside else np.unique(values)
            unknown = sorted({int(v) for v in found} - known)
            if unknown:
                raise NnmissError(f"{what} has unknown labels {unknown[:10]}, dataset.json knows {sorted(known)}")
        return labels, foreground

    def _without_ignored(self, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        labels = labels.copy()
        labels.reshape(-1)[self.ignored] = 0
        return labels, np.flatnonzero(labels)
