"""Class weights, sampler weights and SMOTE against their definitions."""
from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny_samples import tiny_samples

from nnmiss.classification.balance import class_weights, sample_weights, smote
from nnmiss.classification.sample_set import SampleSet, StoredModality
from nnmiss.classification.tasks import TaskLoss
from nnmiss.errors import NnmissError

CLASSES = ["a", "b", "c"]


def test_class_weights_give_every_class_the_same_sum():
    targets = torch.tensor([0] * 6 + [1] * 3 + [2] + [-1] * 4)
    weights = class_weights("multiclass", targets, CLASSES)
    sums = [float(weights[c] * (targets == c).sum()) for c in range(3)]
    assert sums == pytest.approx([10 / 3] * 3)
    assert class_weights("multiclass", torch.tensor([0, 0, 1]), CLASSES)[2] == 1  # no sample of it: never used
    assert class_weights("multiclass", torch.full((4,), -1), CLASSES) is None


def test_binary_and_multilabel_weights_balance_positives_and_negatives():
    binary = torch.tensor([1.0, 0, 0, 0, float("nan")])[:, None]
    assert class_weights("binary", binary, ["no", "yes"]).tolist() == pytest.approx([4 / 6, 2])
    labels = torch.tensor([[1.0, 0, 1], [0, 0, 1], [0, 0, 1], [0, float("nan"), 1]])
    assert class_weights("multilabel", labels, CLASSES).tolist() == [3, 1, 1]  # one value only: nothing to balance


def test_weights_fit_the_loss():
    for task, outputs in (("multiclass", 3), ("binary", 1), ("multilabel", 3)):
        samples = tiny_samples(("table",), task=task)
        weights = class_weights(task, samples.targets, CLASSES[:2] if task == "binary" else CLASSES)
        assert TaskLoss(task, weights)(torch.zeros(len(samples), outputs), samples.targets).isfinite()


def test_sampler_draws_classes_alike():
    targets = torch.tensor([0] * 90 + [1] * 9 + [2] + [-1] * 5)
    weights = sample_weights("multiclass", targets, CLASSES)
    drawn = torch.multinomial(weights, 3000, replacement=True, generator=torch.Generator().manual_seed(0))
    counts = torch.bincount(targets[drawn], minlength=3)  # -1 would fail
    assert counts.float().div(3000).tolist() == pytest.approx([1 / 3] * 3, abs=0.04)
    labels = torch.tensor([[1.0, float("nan")], [0, 1], [0, 1], [0, 0], [float("nan")] * 2])
    assert sample_weights("multilabel", labels, ["x", "y"]).tolist() == pytest.approx(
        [1, (1 / 3 + 1 / 2) / 2, (1 / 3 + 1 / 2) / 2, (1 / 3 + 1) / 2, 0])


def imbalanced(seed: int = 0) -> SampleSet:
    """60 samples of two tables, classes 40, 14 and 6, of which every third lacks the second table. One-hot in the first."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.tensor([0] * 40 + [1] * 14 + [2] * 6)
    category = torch.nn.functional.one_hot(torch.randint(0, 3, (60,), generator=generator), 3).float()
    first = torch.cat([torch.randn(60, 2, generator=generator) + labels[:, None], category], 1)
    has = torch.arange(60) % 3 > 0
    row = torch.where(has, has.cumsum(0) - 1, -1)
    second = torch.randn(int(has.sum()), 4, generator=generator)
    return SampleSet([f"s{i}" for i in range(60)], [f"p{i}" for i in range(60)], labels,
                     {"t": StoredModality(first, torch.arange(60)), "u": StoredModality(second, row)})


@pytest.fixture
def imblearn():
    return pytest.importorskip("imblearn")


def test_smote_fills_up_classes_within_what_training_samples_have(imblearn):
    samples = imbalanced()
    rows = torch.arange(0, 60)[torch.arange(60) % 10 != 9]  # six samples are not of training
    grown, new_rows = smote(samples, rows, seed=3)
    counts = torch.bincount(grown.targets[new_rows])
    assert counts.tolist() == [int((samples.targets[rows] == 0).sum())] * 3
    assert torch.equal(new_rows[:len(rows)], rows) and len(grown.ids) == len(set(grown.ids)) == len(grown.available)
    made = torch.arange(60, len(grown))
    for label in (1, 2):
        mine = rows[samples.targets[rows] == label]
        its = made[grown.targets[made] == label]
        share, expected = grown.available[its, 1].float().mean(), samples.available[mine, 1].float().mean()
        assert abs(share - expected) < 0.05 and grown.available[its, 0].all()
        for has in (True, False):  # within the box of the real samples with the same modalities
            real = samples.inputs(mine[samples.available[mine, 1] == has])
            new = grown.inputs(its[grown.available[its, 1] == has])
            for old, young in zip(real, new):
                low, high = old.values.amin(0) - 1e-5, old.values.amax(0) + 1e-5
                assert ((low <= young.values) & (young.values <= high)).all()
    category = grown.modalities["t"].values[:, 2:]
    assert set(category.unique().tolist()) == {0.0, 1.0} and (category.sum(1) == 1).all()
    assert torch.equal(grown.inputs(torch.arange(60))[1].values, samples.inputs(torch.arange(60))[1].values)


def test_smote_lies_on_a_line_between_two_neighbours(imblearn):
    """Slow reference: each new vector is a + u (b - a) of two samples of its class, b among the five nearest of a."""
    values = torch.randn(60, 3, generator=torch.Generator().manual_seed(1))
    samples = replace(imbalanced(), modalities={"u": StoredModality(values, torch.arange(60))})
    grown, _ = smote(samples, torch.arange(60), seed=0)
    values = grown.modalities["u"].values
    real = values[:60][samples.targets == 1]
    for new in values[60:][grown.targets[60:] == 1]:
        found = False
        for a in real:
            nearest = (real - a).norm(dim=1).argsort()[1:6]
            for b in real[nearest]:
                u = (new - a) @ (b - a) / ((b - a) @ (b - a))
                found |= bool(-1e-4 <= u <= 1 + 1e-4 and (a + u * (b - a) - new).norm() < 1e-4)
        assert found


def test_smote_is_replayed_by_its_seed_and_never_sees_other_samples(imblearn):
    samples, rows = imbalanced(), torch.arange(0, 60, 2)
    first, second = (smote(samples, rows, seed)[0].modalities["t"].values for seed in (1, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, smote(samples, rows, 2)[0].modalities["t"].values)
    changed = samples.modalities["t"].values.clone()
    changed[1::2] = 1e6
    other = smote(samples.with_modality("t", StoredModality(changed, torch.arange(60))), rows, 1)[0]
    assert torch.equal(other.modalities["t"].values[60:], first[60:])


def test_smote_leaves_a_class_of_one_alone(imblearn):
    samples = imbalanced()
    rows = torch.cat([torch.arange(20), torch.tensor([59])])
    grown, new_rows = smote(samples, rows, 0)
    assert grown is samples and torch.equal(new_rows, rows)


@pytest.mark.parametrize("samples", [tiny_samples(("table",), task="multilabel"), tiny_samples(("image", "table")),
                                     tiny_samples(("series", "table"))])
def test_smote_refuses_what_it_cannot_interpolate(samples):
    with pytest.raises(NnmissError, match="class_balance=weights"):
        smote(samples, torch.arange(len(samples)), 0)
