"""Takes away an enhancing tumour of few voxels: in the BraTS scores before 2023 a few false ones cost a whole case."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nnmiss.brats_years import Challenge
from nnmiss.errors import NnmissError

REPLACEMENTS = ("ncr", "background")


@dataclass(frozen=True)
class EnhancingRule:
    """Fewer than `min_voxels` voxels of ET become NCR, which keeps the tumour core (nnU-Net at BraTS 2020), or background.

    Sources: Isensee et al., nnU-Net for Brain Tumor Segmentation (2020); background with 500 voxels is the
    "post-processed" column in RFNet's and mmFormer's code.
    """

    min_voxels: int
    replace: str = "ncr"

    def __post_init__(self):
        if self.min_voxels < 1:
            raise NnmissError(f"the ET rule needs at least 1 voxel, got {self.min_voxels}: leave it out to change nothing")
        if self.replace not in REPLACEMENTS:
            raise NnmissError(f"ET can be replaced by {' or '.join(REPLACEMENTS)}, got {self.replace!r}")

    def check(self, challenge: Challenge) -> None:
        """Raises NnmissError for a challenge that has no ET, or not the label that would replace it."""
        for label in ("et", "ncr") if self.replace == "ncr" else ("et",):
            if label not in challenge.labels:
                raise NnmissError(f"{challenge.title} has no label {label}, so the ET rule cannot be used: "
                                  "leave --et_min_voxels out")

    def apply(self, labels: np.ndarray, challenge: Challenge) -> tuple[np.ndarray, bool]:
        """(labels with the rule applied, whether it took ET away); `labels` has the challenge's integers, uint8."""
        enhancing = labels == challenge.labels["et"]
        if not 0 < np.count_nonzero(enhancing) < self.min_voxels:
            return labels, False
        replaced = labels.copy()
        replaced[enhancing] = challenge.labels["ncr"] if self.replace == "ncr" else 0
        return replaced, True
