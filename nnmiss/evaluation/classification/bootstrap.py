"""Bootstrap intervals: seeded resamples that all models, labels and metrics of the same samples share."""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nnmiss.evaluation.classification.conventions import Conventions
from nnmiss.evaluation.classification.metrics import estimates
from nnmiss.inference.prediction_files import Predictions
from nnmiss.seeding import derive_seed

CHUNK = 500_000  # weights held at once: small enough for a processor's cache, which decides the speed
FEWEST = 40  # defined resamples; fewer have no 2.5 % percentile


@dataclass(frozen=True)
class Measured:
    """One metric of one class on one subset: its value and its interval.

    low, high: NaN without an interval. resamples: in how many the metric is defined.
    """

    value: float
    low: float
    high: float
    resamples: int


@dataclass(frozen=True)
class Sample:
    """What is resampled: n labelled samples of a truth, in the order of their ids.

    targets: as `metrics.estimates` takes them.
    """

    ids: list[str]
    subjects: list[str]
    targets: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Replicates:
    """values: (label, metric) -> plain value. drawn: the same -> (resamples,) values, NaN where undefined."""

    values: dict[tuple[str, str], float]
    drawn: dict[tuple[str, str], np.ndarray]

    def measured(self, key: tuple[str, str], level: float) -> Measured:
        """Value and interval."""
        return Measured(self.values[key], *interval(self.drawn[key], level, _centre(key, self.values[key])))

    def difference(self, other: Replicates, key: tuple[str, str], level: float) -> Measured:
        """This model minus another of the same samples; resamples where either is undefined do not count."""
        value, drawn = self.values[key] - other.values[key], self.drawn[key] - other.drawn[key]
        return Measured(value, *interval(drawn, level, _centre(key, value)))


def interval(drawn: np.ndarray, level: float, centre: float | None = None) -> tuple[float, float, int]:
    """(low, high, number of defined ones) of (R,) replicates: percentiles; NaN bounds with fewer than FEWEST.

    With `centre` they are moved by the bias of the resampling, the replicates' mean minus `centre`.
    """
    drawn = drawn[np.isfinite(drawn)]
    if len(drawn) < FEWEST:
        return np.nan, np.nan, len(drawn)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2]) - (0 if centre is None else drawn.mean() - centre)
    return float(low), float(high), len(drawn)


def _centre(key: tuple[str, str], value: float) -> float | None:
    """The value, for a calibration error: a resample has fewer different samples per bin, so its error is higher."""
    return value if key[1] == "ece" else None


def resampled_weights(sample: Sample, conventions: Conventions) -> Iterator[np.ndarray]:
    """(n, R) parts of the resamples: how often each holds each sample. The same ids give the same resamples.

    With `resample="subject"` subjects are drawn, each with all of its samples, which samples of one subject that resemble
    each other need for honest intervals.
    """
    units = np.arange(len(sample))
    if conventions.resample == "subject":
        units = np.unique(sample.subjects, return_inverse=True)[1]
    count = int(units.max()) + 1 if len(units) else 0
    generator = np.random.default_rng(derive_seed("classification bootstrap", conventions.seed))
    size = max(1, CHUNK // max(1, len(sample)))
    for start in range(0, conventions.resamples if count else 0, size):
        part = min(size, conventions.resamples - start)
        drawn = generator.integers(0, count, (part, count)) + count * np.arange(part)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=part * count).reshape(part, count)
        yield np.ascontiguousarray(counts.T[units], dtype=np.float64)


def replicate(sample: Sample, predictions: list[Predictions], task: str, classes: list[str],
              label_groups: dict[str, list[str]], conventions: Conventions) -> list[Replicates]:
    """The metrics of several models on the same samples and the same resamples.

    Args:
        predictions: of each model; each has every id of `sample`.
    """
    scores = [_rows_of(one, sample.ids) for one in predictions]

    def values(weights: np.ndarray) -> list[dict]:
        return [estimates(task, classes, sample.targets, p, weights, label_groups, conventions.ece_bins) for p in scores]

    plain = values(np.ones((len(sample), 1)))
    parts = [values(weights) for weights in resampled_weights(sample, conventions)]
    return [Replicates({key: float(value[0]) for key, value in of_model.items()},
                       {key: np.concatenate([part[m][key] for part in parts]) if parts else np.zeros(0)
                        for key in of_model}) for m, of_model in enumerate(plain)]


def _rows_of(predictions: Predictions, ids: list[str]) -> np.ndarray:
    place = {name: i for i, name in enumerate(predictions.ids)}
    return predictions.probabilities[[place[name] for name in ids]]
