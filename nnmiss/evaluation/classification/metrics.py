"""The metrics of a classification, of all resamples at once: each sample counts as often as a resample holds it."""
from __future__ import annotations

import numpy as np

from nnmiss.evaluation.classification.conventions import ALL
from nnmiss.evaluation.classification.curves import auroc_and_auprc
from nnmiss.inference.prediction_files import predicted

Estimates = dict[tuple[str, str], np.ndarray]  # (label or ALL, metric) -> (R,) values, NaN where undefined


def estimates(task: str, classes: list[str], targets: np.ndarray, probabilities: np.ndarray, weights: np.ndarray,
              label_groups: dict[str, list[str]] | None = None, ece_bins: int = 15) -> Estimates:
    """All metrics over all classes, of each class or label, and of groups of these.

    What the metrics mean stands in `conventions.DEFINITIONS`.

    Args:
        targets: (n,) int >= 0 for a multiclass task; else (n, L) float 0/1, NaN where unknown.
        probabilities: (n, C) float.
        weights: (n, R) float64, how often each resample holds each sample; a column of ones gives the plain metrics.
        label_groups: name -> labels; a group's value is the mean of its labels' values.

    Returns:
        (label or ALL or group, metric) -> (R,) values; NaN where a metric is undefined.
    """
    probabilities = np.asarray(probabilities, float)
    of_task = _of_labels if task == "multilabel" else _of_classes
    overall, per_label = of_task(task, np.asarray(targets), probabilities, weights, ece_bins)
    found = {(ALL, metric): values for metric, values in overall.items()}
    for group, members in (label_groups or {}).items():
        places = [classes.index(name) for name in members]
        found |= {(group, "macro_f1" if metric == "f1" else metric): nan_mean(values[places])
                  for metric, values in per_label.items()}
    for place, name in enumerate(classes):
        found |= {(name, metric): values[place] for metric, values in per_label.items()}
    return found


def nan_mean(values: np.ndarray) -> np.ndarray:
    """(K, R) -> (R,) mean of what is defined; NaN where nothing is."""
    defined = np.isfinite(values)
    return _ratio(np.where(defined, values, 0).sum(0), defined.sum(0))


def calibration_bins(task: str, targets: np.ndarray, probabilities: np.ndarray, bins: int) -> np.ndarray:
    """What a reliability diagram shows, (3, bins): samples, sum of confidences, number right (or positive).

    Multiclass: confidence of the most probable class and whether it is right. Binary and multilabel: probability of the
    positive and whether it is there, all labels together.
    """
    confidence, right, known = _confidences(task, np.asarray(targets), np.asarray(probabilities, float))
    place = _bin(confidence[known], bins)
    return np.stack([np.bincount(place, w, bins) for w in (None, confidence[known], right[known])])


def _of_classes(task: str, targets: np.ndarray, p: np.ndarray, weights: np.ndarray,
                bins: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Classes that exclude each other: (metric -> (R,), metric -> (C, R))."""
    truth = targets.astype(int) if task == "multiclass" else targets[:, 0].astype(int)
    is_class, chosen = np.eye(p.shape[1])[truth], np.eye(p.shape[1])[predicted(p, task)]  # (n, C)
    hits, there, said = (one.T @ weights for one in (is_class * chosen, is_class, chosen))  # (C, R)
    f1 = _ratio(2 * hits, there + said)
    overall = {"accuracy": _ratio(hits.sum(0), weights.sum(0)), "balanced_accuracy": nan_mean(_ratio(hits, there)),
               "macro_f1": nan_mean(f1)}
    confidence, right, _ = _confidences(task, targets, p)
    if task == "binary":
        overall["auroc"], overall["auprc"] = auroc_and_auprc(p[:, 1], truth == 1, weights)
        overall["ece"] = _ece(confidence[:, 0], right[:, 0], weights, bins)
        return overall, {"f1": f1}
    areas = [auroc_and_auprc(p[:, c], truth == c, weights) for c in range(p.shape[1])]
    per_class = {"f1": f1, "auroc": np.stack([a for a, _ in areas]), "auprc": np.stack([a for _, a in areas])}
    overall |= {"auroc": nan_mean(per_class["auroc"]), "auprc": nan_mean(per_class["auprc"]),
                "ece": _ece(confidence, right, weights, bins)}
    return overall, per_class


def _of_labels(task: str, targets: np.ndarray, p: np.ndarray, weights: np.ndarray,
               bins: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Labels of which a sample may have any number, each on the samples where it is known."""
    rows = []
    for truth, scores in zip(targets.T, p.T):
        known = ~np.isnan(truth)
        truth, scores, w = truth[known] == 1, scores[known], weights if known.all() else weights[known]
        chosen = predicted(scores, task)
        hits, there, said = ((one.astype(float) @ w) for one in (truth & chosen, truth, chosen))  # (R,)
        n = w.sum(0)
        rejected = n - there - said + hits  # rightly
        auroc, auprc = auroc_and_auprc(scores, truth, w)
        rows.append({"accuracy": _ratio(hits + rejected, n),
                     "balanced_accuracy": nan_mean(np.stack([_ratio(hits, there), _ratio(rejected, n - there)])),
                     "f1": _ratio(2 * hits, there + said), "auroc": auroc, "auprc": auprc,
                     "ece": _ece(scores, truth.astype(float), w, bins)})
    per_label = {metric: np.stack([row[metric] for row in rows]) for metric in rows[0]}
    return {"macro_f1" if m == "f1" else m: nan_mean(values) for m, values in per_label.items()}, per_label


def _confidences(task: str, targets: np.ndarray, p: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(confidence, right 0/1, known) of the calibration: (n,) for a multiclass task, else (n, labels)."""
    if task == "multiclass":
        return p.max(1), (p.argmax(1) == targets).astype(float), targets >= 0
    confidence = p[:, 1:] if task == "binary" else p
    return confidence, (targets == 1).astype(float), ~np.isnan(targets)


def _ece(confidence: np.ndarray, right: np.ndarray, weights: np.ndarray, bins: int) -> np.ndarray:
    """(R,) sum over bins of |sum of right - sum of confidence| / n: the ECE of Guo et al. (2017)."""
    gap = np.zeros((bins, len(confidence)))
    gap[_bin(confidence, bins), np.arange(len(confidence))] = right - confidence
    return _ratio(np.abs(gap @ weights).sum(0), weights.sum(0))


def _bin(confidence: np.ndarray, bins: int) -> np.ndarray:
    """Which of the bins (0, 1/bins], ... each confidence is in; 0 itself is in the first."""
    return np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], confidence)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, NaN where whole is 0."""
    return np.divide(part, whole, out=np.full(np.broadcast(part, whole).shape, np.nan), where=whole > 0)
