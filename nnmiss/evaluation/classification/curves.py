"""AUROC and average precision of many weightings of the same samples at once: what a bootstrap needs."""
from __future__ import annotations

import numpy as np


def auroc_and_auprc(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Areas under the ROC and the precision-recall curve, with as many weights per sample as there are resamples.

    Samples are ordered once; a resample is then two cumulative sums of its weights. Equal scores are one threshold, so
    ties count half in the AUROC (Mann-Whitney), and the area under the precision-recall curve is the average precision,
    the sum over thresholds of the recall gained times the precision: scikit-learn's definitions.

    Args:
        scores: (n,) float, higher for positives.
        positive: (n,) bool.
        weights: (n, R) float64, how often each resample holds each sample.

    Returns:
        AUROC (R,), NaN where a resample lacks positives or negatives; average precision (R,), NaN without positives or
        without negatives (it would be 1 whatever the scores are).
    """
    order = np.argsort(-scores, kind="stable")
    scores, positive, weights = scores[order], positive[order], weights[order]
    ends = np.flatnonzero(np.append(scores[1:] != scores[:-1], True)) if len(scores) else np.zeros(0, int)  # last of ties
    owners = np.flatnonzero(positive)
    if not len(owners):
        return np.full(weights.shape[1], np.nan), np.full(weights.shape[1], np.nan)
    threshold = np.searchsorted(ends, owners)  # (P,) of each positive
    first = np.flatnonzero(np.append(True, threshold[1:] != threshold[:-1]))
    threshold = threshold[first]  # (T,) thresholds at which positives are gained
    gained = np.add.reduceat(weights[owners], first, 0)  # (T, R)
    found = np.cumsum(gained, 0)
    seen = np.vstack([np.zeros((1, weights.shape[1])), np.cumsum(weights, 0)])  # (n + 1, R)
    up_to, before = seen[ends[threshold] + 1], seen[np.where(threshold > 0, ends[threshold - 1] + 1, 0)]
    positives = found[-1]
    negatives = seen[-1] - positives
    false, false_before = up_to - found, before - (found - gained)  # (T, R) negatives at least this high
    with np.errstate(divide="ignore", invalid="ignore"):
        auroc = np.einsum("tr,tr->r", gained, negatives - (false + false_before) / 2) / (positives * negatives)
        precision = np.divide(found, up_to, out=np.zeros_like(found), where=up_to > 0)
        auprc = np.where(negatives > 0, np.einsum("tr,tr->r", gained, precision) / positives, np.nan)
    return auroc, auprc
