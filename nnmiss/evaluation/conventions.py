"""Every choice an evaluation makes, in one frozen object that is written beside each result."""
from __future__ import annotations

from dataclasses import asdict, dataclass, fields

from nnmiss.errors import NnmissError

CHOICES = {
    "hd95": ("brats2020", "brats2023", "none"),
    "empty": ("brats", "nan"),
    "hd95_unit": ("mm", "voxels"),
}

LOWER_IS_BETTER = ("hd95", "ece")
PERCENT = ("dice", "ece")  # from 0 to 1, shown times 100

HD95_TEXT = {
    "brats2020": "HD95 as BraTS 2020 (percentile {percentile:g} of both directed border distances pooled)",
    "brats2023": "HD95 as BraTS 2023 (larger of the two directed, surface-weighted percentiles {percentile:g})",
    "none": "no HD95",
}

EMPTY_TEXT = {
    ("brats", "dice"): "empty regions by the BraTS rule (both empty: Dice 1, one empty: 0)",
    ("brats", "hd95"): "empty regions by the BraTS rule (both empty: HD95 0, one empty: the image's diagonal)",
    ("nan", "dice"): "cases where both masks are empty are left out",
    ("nan", "hd95"): "cases where either mask is empty are left out",
}


@dataclass(frozen=True)
class Conventions:
    """The conventions of one evaluation; two results may be compared only where these are equal.

    Raises NnmissError for a value that does not exist.
    """

    hd95: str = "brats2020"
    """Definition of HD95: "brats2020" (= medpy), "brats2023" (= DeepMind surface-distance) or "none"."""
    empty: str = "brats"
    """What empty regions score: "brats" (1 / 0 / image diagonal) or "nan" (left out of means, as nnU-Net)."""
    hd95_unit: str = "mm"
    """"mm" (by the ground truth's spacing) or "voxels" (spacing 1, as the BraTS 2020 tool)."""
    percentile: float = 95.0
    """Percentile of the border distances, 0 to 100."""
    et_threshold: int | None = None
    """Smallest enhancing tumour kept, in voxels. Only None: nothing is suppressed."""
    ece_bins: int = 15
    """Bins of the expected calibration error, see `calibration.bin_sums`; it matters only where probabilities are."""

    def __post_init__(self) -> None:
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise NnmissError(f"convention {name} is {getattr(self, name)!r}, expected one of: {', '.join(known)}")
        if not 0 <= self.percentile <= 100:
            raise NnmissError(f"convention percentile is {self.percentile}, expected a number from 0 to 100")
        if self.et_threshold is not None:
            raise NnmissError("convention et_threshold: suppression of small enhancing tumours is not implemented, "
                              "only None is accepted")
        if not isinstance(self.ece_bins, int) or not 1 <= self.ece_bins <= 1000:
            raise NnmissError(f"convention ece_bins is {self.ece_bins!r}, expected a whole number from 1 to 1000")

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics an evaluation computes, in the order of results.csv; ECE only where probabilities are."""
        return ("dice", *(() if self.hd95 == "none" else ("hd95",)), "sensitivity", "specificity", "ece")

    def as_dict(self) -> dict:
        """For summary.json; `from_dict` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: dict) -> Conventions:
        """The conventions of a summary.json; keys it lacks, as earlier versions', have their default.

        Raises NnmissError for unknown keys or values.
        """
        unknown = set(content) - {f.name for f in fields(cls)}
        if unknown:
            raise NnmissError(f"unknown conventions {sorted(unknown)}: the summary was written by another version")
        return cls(**content)

    def sentence(self, metric: str) -> str:
        """What a table caption says of them, for "dice", "hd95" or "ece"."""
        if metric == "ece":
            return (f"expected calibration error in {self.ece_bins} equal bins of the confidence max(p, 1 - p) from 0.5 "
                    "to 1, p the region's probability, over the voxels that are foreground in ground truth or "
                    "prediction; cases without such voxels are left out")
        parts = [EMPTY_TEXT[self.empty, metric]]
        if metric == "hd95":
            unit = "in mm" if self.hd95_unit == "mm" else "in voxels"
            parts.insert(0, HD95_TEXT[self.hd95].format(percentile=self.percentile) + f", {unit}")
        if self.et_threshold is None:
            parts.append("no suppression of small enhancing tumours")
        return "; ".join(parts)
