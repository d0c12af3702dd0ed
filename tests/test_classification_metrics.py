"""Metrics of classification against scikit-learn, resample by resample, and the bootstrap around them."""
from __future__ import annotations

import time
import warnings

import numpy as np
import pytest
from sklearn import metrics as sk

from nnmiss.evaluation.classification.bootstrap import FEWEST, Sample, interval, replicate, resampled_weights
from nnmiss.evaluation.classification.conventions import ALL, METRICS, Conventions
from nnmiss.evaluation.classification.curves import auroc_and_auprc
from nnmiss.evaluation.classification.metrics import calibration_bins, estimates
from nnmiss.inference.prediction_files import Predictions


def draws(n, count, seed=0):
    """`count` resamples of n samples, as indices and as weights (n, count)."""
    indices = np.random.default_rng(seed).integers(0, n, (count, n))
    return indices, np.stack([np.bincount(row, minlength=n) for row in indices], 1).astype(float)


@pytest.mark.parametrize("decimals", [9, 1])  # of which the second makes ties between and within classes
def test_areas_are_those_of_scikit_learn_in_every_resample(decimals):
    generator = np.random.default_rng(1)
    scores, positive = generator.random(60).round(decimals), generator.random(60) < 0.3
    indices, weights = draws(60, 50)
    auroc, auprc = auroc_and_auprc(scores, positive, weights)
    for r, rows in enumerate(indices):
        assert auroc[r] == pytest.approx(sk.roc_auc_score(positive[rows], scores[rows]), abs=1e-12)
        assert auprc[r] == pytest.approx(sk.average_precision_score(positive[rows], scores[rows]), abs=1e-12)


def test_areas_of_one_class_are_undefined():
    for positive in (np.zeros(5, bool), np.ones(5, bool)):
        auroc, auprc = auroc_and_auprc(np.arange(5.0), positive, np.ones((5, 2)))
        assert np.isnan(auroc).all() and np.isnan(auprc).all()
    weights = np.array([[1, 1], [1, 0], [1, 3]], float)  # the second resample lacks the only positive
    auroc, auprc = auroc_and_auprc(np.array([0.1, 0.9, 0.2]), np.array([False, True, False]), weights)
    assert auroc[0] == auprc[0] == 1 and np.isnan(auroc[1]) and np.isnan(auprc[1])


def slow(task, targets, p, ece_bins=15):
    """All metrics by scikit-learn and loops."""
    if task == "multilabel":
        columns = []
        for truth, scores in zip(targets.T, p.T):
            known = ~np.isnan(truth)
            columns.append(slow("binary", truth[known][:, None], np.stack([1 - scores[known], scores[known]], 1)))
            columns[-1]["macro_f1"] = sk.f1_score(truth[known], scores[known] >= 0.5, zero_division=np.nan)
        return {m: np.nanmean([c[m] for c in columns]) for m in columns[0]}
    truth = (targets if task == "multiclass" else targets[:, 0]).astype(int)
    chosen = p.argmax(1) if task == "multiclass" else (p[:, 1] >= 0.5).astype(int)
    found = {"accuracy": sk.accuracy_score(truth, chosen), "balanced_accuracy": sk.balanced_accuracy_score(truth, chosen),
             "macro_f1": sk.f1_score(truth, chosen, average="macro", labels=sorted({*truth, *chosen}))}
    if task == "multiclass":
        found["auroc"] = np.mean([sk.roc_auc_score(truth == c, p[:, c]) for c in range(p.shape[1])])
        found["auprc"] = np.mean([sk.average_precision_score(truth == c, p[:, c]) for c in range(p.shape[1])])
        confidence, right = p.max(1), chosen == truth
    else:
        found["auroc"], found["auprc"] = sk.roc_auc_score(truth, p[:, 1]), sk.average_precision_score(truth, p[:, 1])
        confidence, right = p[:, 1], truth == 1
    found["ece"] = 0
    for b in range(ece_bins):
        inside = (confidence > b / ece_bins) & (confidence <= (b + 1) / ece_bins) | ((confidence == 0) & (b == 0))
        found["ece"] += abs(right[inside].mean() - confidence[inside].mean()) * inside.mean() if inside.any() else 0
    return found


def made(task, n=80, classes=4, seed=0):
    """(targets, probabilities): better than chance, some ties; of a multilabel task some labels unknown."""
    generator = np.random.default_rng(seed)
    if task == "multiclass":
        targets = generator.integers(0, classes, n)
        p = generator.random((n, classes)).round(2) + 0.01 + 0.4 * np.eye(classes)[targets]
        return targets, p / p.sum(1, keepdims=True)
    columns = 1 if task == "binary" else classes
    targets = (generator.random((n, columns)) < 0.4).astype(float)
    p = np.clip(0.6 * generator.random((n, columns)).round(2) + 0.3 * targets, 0, 1)
    if task == "binary":
        return targets, np.hstack([1 - p, p])
    targets[generator.random(targets.shape) < 0.1] = np.nan
    return targets, p


@pytest.mark.parametrize("task", ["multiclass", "binary", "multilabel"])
def test_metrics_are_those_of_scikit_learn_in_every_resample(task):
    targets, p = made(task)
    indices, weights = draws(len(targets), 20)
    classes = ["no", "yes"] if task == "binary" else list("abcd")
    found = estimates(task, classes, targets, p, weights)
    plain = estimates(task, classes, targets, p, np.ones((len(targets), 1)))
    for metric in METRICS:
        assert plain[ALL, metric][0] == pytest.approx(slow(task, targets, p)[metric], abs=1e-12), metric
        for r, rows in enumerate(indices):
            expected = slow(task, targets[rows], p[rows])[metric]
            assert found[ALL, metric][r] == pytest.approx(expected, abs=1e-12), (metric, r)


def test_values_of_classes_and_groups():
    targets, p = made("multiclass")
    found = estimates("multiclass", list("abcd"), targets, p, np.ones((80, 1)))
    f1 = sk.f1_score(targets, p.argmax(1), average=None)
    for c, name in enumerate("abcd"):
        assert found[name, "f1"][0] == pytest.approx(f1[c], abs=1e-12)
        assert found[name, "auroc"][0] == pytest.approx(sk.roc_auc_score(targets == c, p[:, c]), abs=1e-12)
    targets, p = made("multilabel")
    found = estimates("multilabel", list("abcd"), targets, p, np.ones((80, 1)), {"few": ["a", "d"]})
    for metric, of_group in (("auroc", "auroc"), ("auprc", "auprc"), ("f1", "macro_f1"), ("ece", "ece")):
        assert found["few", of_group][0] == pytest.approx((found["a", metric][0] + found["d", metric][0]) / 2)


def test_a_class_nobody_has_is_left_out_of_means_and_undefined_itself():
    targets, p = np.array([0, 1, 0, 1]), np.array([[0.7, 0.2, 0.1], [0.2, 0.7, 0.1], [0.6, 0.3, 0.1], [0.4, 0.5, 0.1]])
    found = estimates("multiclass", list("abc"), targets, p, np.ones((4, 1)))
    assert found[ALL, "auroc"][0] == found[ALL, "macro_f1"][0] == found[ALL, "balanced_accuracy"][0] == 1
    assert np.isnan(found["c", "auroc"][0]) and np.isnan(found["c", "f1"][0])
    nothing = estimates("binary", ["no", "yes"], np.zeros((3, 1)), np.array([[0.9, 0.1]] * 3), np.ones((3, 1)))
    assert nothing[ALL, "accuracy"][0] == 1 and np.isnan(nothing[ALL, "auroc"][0])


def test_bins_of_the_reliability_diagram_add_up():
    for task in ("multiclass", "binary", "multilabel"):
        targets, p = made(task)
        n, confidence, right = calibration_bins(task, targets, p, 10)
        known = np.isfinite(targets).sum() if task != "multiclass" else len(targets)
        assert n.sum() == known and confidence.sum() <= known
        assert right.sum() == ((p.argmax(1) == targets).sum() if task == "multiclass" else np.nansum(targets))


# ---- bootstrap --------------------------------------------------------------------------------------------------


def as_predictions(ids, p):
    return Predictions(list(ids), p, ["a"] * len(ids))


def test_the_interval_of_an_accuracy_is_as_wide_as_theory_says():
    n, share = 400, 0.8
    targets = np.zeros(n, int)
    p = np.where((np.arange(n) < share * n)[:, None], [[0.9, 0.1]], [[0.1, 0.9]])
    ids = [f"s{i:04d}" for i in range(n)]
    [found] = replicate(Sample(ids, ids, targets), [as_predictions(ids, p)], "multiclass", ["a", "b"], {}, Conventions())
    m = found.measured((ALL, "accuracy"), 0.95)
    half = 1.96 * np.sqrt(share * (1 - share) / n)
    assert m.value == share and m.resamples == 1000
    assert m.low == pytest.approx(share - half, abs=0.006) and m.high == pytest.approx(share + half, abs=0.006)


def test_resamples_are_shared_by_models_and_do_not_depend_on_the_order_of_files():
    targets, p = made("binary", 50)
    ids = [f"s{i:02d}" for i in range(50)]
    sample, other = Sample(ids, ids, targets), np.flip(p, 1)
    turned = as_predictions(ids[::-1], p[::-1])
    conventions = Conventions(resamples=200)
    both = replicate(sample, [as_predictions(ids, p), as_predictions(ids, other)], "binary", ["a", "b"], {}, conventions)
    [again] = replicate(sample, [turned], "binary", ["a", "b"], {}, conventions)
    key = (ALL, "auroc")
    assert np.array_equal(both[0].drawn[key], again.drawn[key])
    d = both[0].difference(both[1], key, 0.95)
    low, high = np.quantile(both[0].drawn[key] - both[1].drawn[key], [0.025, 0.975])
    assert (d.low, d.high) == (low, high) and d.value == both[0].values[key] - both[1].values[key]
    same = both[0].difference(again, key, 0.95)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    [differs] = replicate(sample, [turned], "binary", ["a", "b"], {}, Conventions(resamples=200, seed=1))
    assert not np.array_equal(differs.drawn[key], again.drawn[key])


def test_subjects_are_drawn_with_all_their_samples():
    subjects = ["p1", "p1", "p1", "p2", "p3", "p3"]
    sample = Sample(list("abcdef"), subjects, np.zeros(6))
    weights = np.concatenate(list(resampled_weights(sample, Conventions(resamples=30, resample="subject"))), 1)
    assert weights.shape == (6, 30) and weights.max() > 1
    assert (weights[0] == weights[1]).all() and (weights[1] == weights[2]).all() and (weights[4] == weights[5]).all()
    assert (weights[[0, 3, 4]].sum(0) == 3).all()
    weights = np.concatenate(list(resampled_weights(sample, Conventions(resamples=30))), 1)
    assert (weights.sum(0) == 6).all() and not (weights[0] == weights[1]).all()


def test_parts_of_the_resamples_do_not_change_them(monkeypatch):
    sample = Sample([f"{i:03d}" for i in range(100)], ["p"] * 100, np.zeros(100))
    whole = np.concatenate(list(resampled_weights(sample, Conventions(resamples=50))), 1)
    monkeypatch.setattr("nnmiss.evaluation.classification.bootstrap.CHUNK", 700)
    assert np.array_equal(whole, np.concatenate(list(resampled_weights(sample, Conventions(resamples=50))), 1))


def test_degenerate_resamples_are_left_out_and_counted():
    targets, p = np.array([[1.0]] + [[0.0]] * 9), np.linspace(0.9, 0.1, 10)[:, None]
    ids = [f"s{i}" for i in range(10)]
    [found] = replicate(Sample(ids, ids, targets), [as_predictions(ids, np.hstack([1 - p, p]))], "binary", ["a", "b"], {},
                        Conventions())
    m = found.measured((ALL, "auroc"), 0.95)
    assert m.value == 1 and 600 < m.resamples < 700  # 1 - (9/10)^10 = 65 % hold the positive
    assert found.measured((ALL, "accuracy"), 0.95).resamples == 1000
    low, high, n = interval(np.array([0.5] * (FEWEST - 1) + [np.nan] * 9), 0.95)
    assert np.isnan([low, high]).all() and n == FEWEST - 1


def test_the_interval_of_a_calibration_error_holds_its_value():
    """Resamples have a higher ECE, and plain percentiles would lie above the value."""
    targets, p = made("multilabel", 120, 12)
    ids = [f"s{i:03d}" for i in range(120)]
    [found] = replicate(Sample(ids, ids, targets), [as_predictions(ids, p)], "multilabel", list("abcdefghijkl"), {},
                        Conventions())
    m, drawn = found.measured((ALL, "ece"), 0.95), found.drawn[ALL, "ece"]
    assert drawn.mean() > m.value and m.low < m.value < m.high
    assert m.high - m.low == pytest.approx(np.subtract(*np.quantile(drawn, [0.975, 0.025])))


def test_no_resamples_give_values_without_intervals():
    targets, p = made("binary", 30)
    ids = [f"s{i:02d}" for i in range(30)]
    [found] = replicate(Sample(ids, ids, targets), [as_predictions(ids, p)], "binary", ["a", "b"], {},
                        Conventions(resamples=0))
    m = found.measured((ALL, "auroc"), 0.95)
    assert np.isfinite(m.value) and np.isnan(m.low) and m.resamples == 0


def test_a_thousand_resamples_of_many_labels_take_seconds():
    targets, p = made("multilabel", 2000, 25)
    ids = [f"s{i:04d}" for i in range(2000)]
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        replicate(Sample(ids, ids, targets), [as_predictions(ids, p)], "multilabel", [f"l{i}" for i in range(25)], {},
                  Conventions())
    assert time.process_time() - start < 15  # measured: 0.6 s, and 84 s where scikit-learn is called per resample
