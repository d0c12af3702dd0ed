"""Distillation and importance weights against hand-computed values and slow references."""
from __future__ import annotations

import math

import pytest
import torch

from nnmiss.errors import NnmissError
from nnmiss.losses.feature_statistics import collapse_statistics, generation_statistics
from nnmiss.losses.importance import LARGEST_RATIO, ImportanceWeights
from nnmiss.losses.pairwise_distillation import pairwise_distillation
from nnmiss.networks.base import item_index
from nnmiss.seeding import torch_generator

PRESENT = torch.tensor([[True, False, True, True], [False, True, False, False], [True, True, False, False]])


def packed(*shape):
    return torch.randn(int(PRESENT.sum()), *shape, generator=torch_generator("features"), requires_grad=True)


def slow_distillation(features, present, ratios, p, direction):
    """Eq. 4's sum over ordered pairs, written as it stands."""
    index, total = item_index(present), 0.0
    for b in range(len(present)):
        for i in range(4):
            for j in range(4):
                if i == j or not (present[b, i] and present[b, j]):
                    continue
                if direction == "stronger" and not ratios[i, j] > 1:
                    continue
                difference = features[int(index[b, i])] - features[int(index[b, j])]
                total += ratios[i, j] * difference.abs().pow(p).mean()
    return total / len(present)


@pytest.mark.parametrize("shape", [(5,), (3, 4), (3, 4, 4, 2)])  # no spatial axes: classification
@pytest.mark.parametrize("direction", ["detached", "symmetric", "stronger"])
@pytest.mark.parametrize("p", [1, 2])
def test_distillation_equals_equation_4(shape, direction, p):
    features = packed(*shape)
    w = torch.tensor([0.4, 0.1, 0.3, 0.2])
    ratios = w[:, None] / w[None]
    loss = pairwise_distillation(features, item_index(PRESENT), ratios, p, direction)
    assert math.isclose(float(loss), float(slow_distillation(features, PRESENT, ratios, p, direction)), rel_tol=1e-5)


def test_distillation_by_hand():
    features = torch.tensor([[1.0, 2.0], [4.0, 2.0]])  # mean |difference| = 1.5
    w = torch.tensor([0.75, 0.25])  # ratios 3 and 1/3
    index = torch.tensor([[0, 1]])
    assert float(pairwise_distillation(features, index, w[:, None] / w[None])) == pytest.approx(1.5 * (3 + 1 / 3))
    assert float(pairwise_distillation(features, index, w[:, None] / w[None], p=2)) == pytest.approx(4.5 * (3 + 1 / 3))


def test_teachers_get_no_gradient_and_the_stronger_never_learns_from_the_weaker():
    w = torch.tensor([0.75, 0.25])
    for direction, expected in (("detached", (1 / 3, 3)), ("symmetric", (10 / 3, 10 / 3)), ("stronger", (0, 3))):
        features = torch.tensor([[1.0], [2.0]], requires_grad=True)
        pairwise_distillation(features, torch.tensor([[0, 1]]), w[:, None] / w[None], 1, direction).backward()
        assert features.grad.abs().flatten().tolist() == pytest.approx(expected), direction


def test_samples_with_one_modality_give_zero_that_can_be_backpropagated():
    features = torch.randn(2, 3, requires_grad=True)
    loss = pairwise_distillation(features, torch.tensor([[0, -1], [-1, 1]]), torch.ones(2, 2))
    loss.backward()
    assert float(loss) == 0
    assert features.grad.abs().sum() == 0


def test_unknown_direction_and_norm_are_refused():
    with pytest.raises(NnmissError, match="symmetric"):
        pairwise_distillation(packed(2), item_index(PRESENT), torch.ones(4, 4), direction="symetric")
    with pytest.raises(NnmissError, match="p must be 1 or 2"):
        pairwise_distillation(packed(2), item_index(PRESENT), torch.ones(4, 4), p=3)


def test_softmax_importance_sums_to_one_and_ratios_have_no_gradient():
    importance = ImportanceWeights(4, generator=torch_generator("w"))
    assert float(importance().sum().detach()) == pytest.approx(1)
    ratios = importance.ratios()
    assert not ratios.requires_grad
    assert torch.allclose(ratios * ratios.T, torch.ones(4, 4), atol=1e-5)
    w = importance().detach()
    assert float(ratios[0, 2]) == pytest.approx(float(w[0] / w[2]), rel=1e-5)


@pytest.mark.parametrize("normalisation", ["softmax", "relu", "sigmoid"])
def test_ratios_are_finite_whatever_the_raw_weights(normalisation):
    importance = ImportanceWeights(3, normalisation)
    importance.raw.data = torch.tensor([-80.0, 0.0, 80.0])
    ratios = importance.ratios()
    assert torch.isfinite(ratios).all()
    assert ratios.max() <= LARGEST_RATIO
    assert ratios.min() >= 1 / LARGEST_RATIO
    assert torch.equal(ratios.diagonal(), torch.ones(3))


def test_collapse_statistics_see_a_collapse_that_keeps_its_size():
    present = torch.ones(3, 2, dtype=torch.bool)
    pattern = torch.randn(4, 5)
    varied = torch.randn(6, 4, 5)
    collapsed = collapse_statistics(pattern.expand(6, -1, -1), item_index(present))
    healthy = collapse_statistics(varied, item_index(present))
    assert collapsed == {"std_between_cases": 0.0, "difference_between_modalities": 0.0}
    assert healthy["std_between_cases"] == pytest.approx(float(
        torch.stack([varied[0::2].std(0).mean(), varied[1::2].std(0).mean()]).mean()), rel=1e-5)
    assert healthy["difference_between_modalities"] > 0.5


def test_generated_features_are_the_mean_of_the_others():
    f = torch.tensor([[1.0, 0.0], [3.0, 0.0], [5.0, 4.0]])
    statistics = generation_statistics(f, torch.tensor([[0, 1, 2]]))
    distance, cosine = statistics[2]  # generated (2, 0), true (5, 4)
    assert distance == pytest.approx((3 + 4) / 2)
    assert cosine == pytest.approx(5 / math.hypot(5, 4), rel=1e-5)
    assert generation_statistics(f[:1], torch.tensor([[0, -1, -1]])) == {}
