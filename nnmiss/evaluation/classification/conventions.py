"""What the numbers of a classification's evaluation mean, and the settings that may be chosen."""
from __future__ import annotations

from dataclasses import asdict, dataclass

from nnmiss.errors import NnmissError

ALL = "all"  # in the column `label` of results: over all classes
METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "auroc", "auprc", "ece")
TITLES = {"accuracy": "Accuracy", "balanced_accuracy": "Balanced accuracy", "macro_f1": "F1", "f1": "F1", "auroc": "AUROC",
          "auprc": "AUPRC", "ece": "ECE"}
LOWER_IS_BETTER = ("ece",)
RESAMPLE = ("sample", "subject")
DEFINITIONS = {
    "accuracy": "share of samples whose most probable class is theirs (binary: p >= 0.5); multilabel: the share of right "
                "decisions (p >= 0.5) of a label, mean over the labels",
    "balanced_accuracy": "mean over the classes of the share of a class that is found; multilabel: of both values of a "
                         "label, mean over the labels",
    "macro_f1": "F1 of each class, mean over the classes that occur in truth or predictions; multilabel: over the labels",
    "auroc": "area under the ROC curve, ties half; multiclass: each class against the rest, mean over the classes; "
             "multilabel: mean over the labels; of classes or labels that have both positives and negatives",
    "auprc": "average precision (sum over thresholds of recall gained times precision), means as of AUROC",
    "ece": "expected calibration error, equal bins of 0 to 1: mean over the samples of |confidence - accuracy| of their "
           "bin; multiclass: confidence of the most probable class; binary and multilabel: probability of the positive "
           "against the share of positives, multilabel mean over the labels"}


@dataclass(frozen=True)
class Conventions:
    """Settings of an evaluation.

    Attributes:
        resamples: of the bootstrap, shared by all models, labels and metrics.
        seed: of the resamples.
        resample: what is drawn: samples, or subjects with all their samples.
        level: of the percentile intervals.
        ece_bins: number of equal bins of 0 to 1.
        with_incomplete: count samples that lack a part of a subset too, predicted with the rest.
    """

    resamples: int = 1000
    seed: int = 0
    resample: str = "sample"
    level: float = 0.95
    ece_bins: int = 15
    with_incomplete: bool = False

    def __post_init__(self):
        for name, least in (("resamples", 0), ("ece_bins", 1)):
            if getattr(self, name) < least:
                raise NnmissError(f"{name} is {getattr(self, name)}, expected at least {least}")
        if self.resample not in RESAMPLE:
            raise NnmissError(f"resample is {self.resample!r}, expected one of {', '.join(RESAMPLE)}")

    def as_dict(self) -> dict:
        """For summary.json."""
        return {**asdict(self), "definitions": DEFINITIONS,
                "interval": "percentile of the bootstrap; resamples in which a metric is undefined are left out of it and "
                            "the rest is counted (column resamples); of the ECE moved by the resamples' bias (their mean "
                            "minus the value), as resamples, which hold samples twice, have a higher ECE",
                "subset": "samples that were predicted with the whole subset" + (
                    ", or with what they have of it" if self.with_incomplete else "")}

    def sentence(self) -> str:
        """For captions."""
        drawn = f"{100 * self.level:g} % intervals: percentiles of {self.resamples} resamples of {self.resample}s"
        return drawn if self.resamples else "no intervals"
