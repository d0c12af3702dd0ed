"""Every choice an evaluation makes, in one frozen object that is written beside each result."""
from __future__ import annotations

from dataclasses import asdict, dataclass, fields

from nnmiss.errors import NnmissError
from nnmiss.evaluation.lesion_rules import find_rules

CHOICES = {
    "hd95": ("brats2020", "brats2023", "none"),
    "empty": ("brats", "nan"),
    "hd95_unit": ("mm", "voxels"),
    "et_replace": ("background", "ncr"),
}

FLAGS = {"hd95": "--hd95", "empty": "--empty", "hd95_unit": "--hd95_unit", "et_threshold": "--et_min_voxels",
         "ece_bins": "--ece_bins", "et_replace": "--et_replace", "lesionwise": "--lesionwise"}
"""Field of `Conventions` -> how nnmiss_evaluate calls it, in messages; the percentile has no flag."""

LESION_METRICS = ("lesion_dice", "lesion_hd95", "lesion_tp", "lesion_fp", "lesion_fn")
METRICS = ("dice", "hd95", "sensitivity", "specificity", *LESION_METRICS, "ece")  # the order of results.csv

TABLE_METRICS = ("dice", "hd95", "lesion_dice", "lesion_hd95", "ece")  # those that have a table, where there are values
LOWER_IS_BETTER = ("hd95", "lesion_hd95", "ece")
PERCENT = ("dice", "lesion_dice", "ece", "sensitivity", "specificity")  # from 0 to 1, shown times 100

TITLES = {"dice": "Dice", "hd95": "HD95", "lesion_dice": "lesion-wise Dice", "lesion_hd95": "lesion-wise HD95",
          "sensitivity": "sensitivity", "specificity": "specificity", "lesion_tp": "lesions found",
          "lesion_fp": "false lesions", "lesion_fn": "lesions missed", "ece": "ECE"}

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
    """Predicted enhancing tumours of fewer voxels are suppressed in a column of their own; None: there is none."""
    ece_bins: int = 15
    """Bins of the expected calibration error, see `calibration.bin_sums`; it matters only where probabilities are."""
    et_replace: str = "background"
    """What suppressed enhancing tumour becomes in that column: "background" or "ncr"; see `suppression`."""
    lesionwise: str | None = None
    """Rules of the lesion-wise metrics, as "2023-GLI", see `lesion_rules`; None: they are not computed."""

    def __post_init__(self) -> None:
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise NnmissError(f"{FLAGS[name]} is {getattr(self, name)!r}, expected one of: {', '.join(known)}")
        if not 0 <= self.percentile <= 100:
            raise NnmissError(f"percentile is {self.percentile}, expected a number from 0 to 100")
        if self.et_threshold is not None and (type(self.et_threshold) is not int or self.et_threshold < 1):
            raise NnmissError(f"{FLAGS['et_threshold']} is {self.et_threshold!r}, expected a whole number of voxels from 1 "
                              "on; without it nothing is suppressed")
        if self.lesionwise is not None:
            object.__setattr__(self, "lesionwise", find_rules(self.lesionwise).name)
        if not isinstance(self.ece_bins, int) or not 1 <= self.ece_bins <= 1000:
            raise NnmissError(f"{FLAGS['ece_bins']} is {self.ece_bins!r}, expected a whole number from 1 to 1000")

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

    def differences(self, others: Conventions, but: tuple[str, ...] = ()) -> list[str]:
        """The fields in which two differ, by their flags, each as "--hd95 is brats2020, theirs brats2023"."""
        pairs = {f.name: (getattr(self, f.name), getattr(others, f.name)) for f in fields(self) if f.name not in but}
        return [f"{FLAGS.get(name, name)} is {_given(ours)}, theirs {_given(theirs)}"
                for name, (ours, theirs) in pairs.items() if ours != theirs]

    def sentence(self, metric: str) -> str:
        """What a table caption says of them, for a metric of `TABLE_METRICS`: definition and suppression."""
        return "; ".join([self.definition(metric), *([] if metric == "ece" else [self.suppression()])])

    def definition(self, metric: str) -> str:
        """How a metric of `TABLE_METRICS` is computed."""
        if metric == "ece":
            return (f"expected calibration error in {self.ece_bins} equal bins of the confidence max(p, 1 - p) from 0.5 "
                    "to 1, p the region's probability, over the voxels that are foreground in ground truth or "
                    "prediction; cases without such voxels are left out")
        if metric in LESION_METRICS:
            if self.lesionwise is None:
                return "lesion-wise, by rules that were not recorded"
            return find_rules(self.lesionwise).sentence(metric)
        empty = EMPTY_TEXT[self.empty, metric]
        if metric != "hd95":
            return empty
        return f"{HD95_TEXT[self.hd95].format(percentile=self.percentile)}, in {unit_of(metric, self)}; {empty}"

    def suppression(self) -> str:
        """What becomes of small enhancing tumours, whatever the metric."""
        if self.et_threshold is None:
            return "no suppression of small enhancing tumours"
        return (f"in columns called suppressed a predicted enhancing tumour of fewer than {self.et_threshold} voxels "
                + ("is left out, and in no other" if self.et_replace == "background" else "counts as NCR"))


def _given(value: object) -> str:
    return "not given" if value is None else str(value)


def scale_of(metric: str) -> int:
    """What values of a metric are multiplied with where they are shown: 100 for those in percent."""
    return 100 if metric in PERCENT else 1


def unit_of(metric: str, conventions: Conventions | None = None) -> str:
    """"%", "mm" or "voxels", in which values are shown; "" for counts, and for HD95 where the conventions are not known.

    Lesion-wise HD95 is in mm, as the challenges' rules are, whatever the unit of HD95.
    """
    if metric == "hd95":
        return conventions.hd95_unit if conventions else ""
    return "%" if metric in PERCENT else "mm" if metric == "lesion_hd95" else ""


def metric_title(metric: str, conventions: Conventions | None = None) -> str:
    """How a metric is headed: "Dice (%)", "HD95 (mm)"; an unknown one by its own name."""
    unit = unit_of(metric, conventions)
    return TITLES.get(metric, metric.replace("_", " ")) + (f" ({unit})" if unit else "")
