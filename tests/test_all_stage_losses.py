"""All-stage's losses and masks against slow references and values worked out by hand."""
from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from nnmiss.losses.margin_aware_distillation import margin_aware_distillation, prediction_entropy, voxels_at
from nnmiss.losses.reconstruction import reconstruction_loss
from nnmiss.networks.masked_autoencoder import draw_patches, patch_grid, voxels_of
from nnmiss.seeding import torch_generator


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch_generator("all-stage losses", seed, *shape))


# ---- Eq. 1 ------------------------------------------------------------------------------------------------------------


def test_reconstruction_by_hand():
    images = torch.tensor([[[[1.0, 2.0]], [[float("nan"), 9.0]]], [[[0.0, 0.0]], [[4.0, 4.0]]]])  # (2, 2, 1, 2)
    made = torch.tensor([[[[1.0, 4.0]], [[7.0, 7.0]]], [[[1.0, 1.0]], [[4.0, 1.0]]]])
    available = torch.tensor([[True, False], [True, True]])
    # sample 0: (0 + 4) / 2 = 2 of its one modality; sample 1: (1 + 4.5) / 2 = 2.75; their mean
    assert float(reconstruction_loss(made, images, available)) == pytest.approx((2 + 2.75) / 2)


@pytest.mark.parametrize("spatial", [(3, 4, 5), (6, 7)])
def test_reconstruction_against_loops(spatial):
    made, images = random(3, 4, *spatial), random(3, 4, *spatial, seed=1)
    available = torch.tensor([[1, 0, 0, 1], [0, 1, 1, 1], [1, 1, 1, 1]], dtype=torch.bool)
    samples = [np.mean([np.mean((made[b, m].numpy() - images[b, m].numpy()) ** 2) for m in range(4) if available[b, m]])
               for b in range(3)]
    assert float(reconstruction_loss(made, images, available)) == pytest.approx(np.mean(samples), rel=1e-5)


def test_absent_modalities_neither_teach_nor_spoil_a_reconstruction():
    made, images = random(1, 2, 4, 4).requires_grad_(), random(1, 2, 4, 4, seed=1)
    images[0, 1] = float("nan")
    reconstruction_loss(made, images, torch.tensor([[True, False]])).backward()
    assert made.grad[0, 0].abs().min() > 0
    assert torch.equal(made.grad[0, 1], torch.zeros(4, 4))


# ---- Eq. 4 ------------------------------------------------------------------------------------------------------------


def slow_mad(student, teacher, probabilities, regions):
    """(N, C), (N, C'), (N, K) of one sample, all voxels: the notes' formula, a loop per pair of voxels."""
    def relations(f):
        gram = np.array([[float(np.dot(a, b)) for b in f] for a in f])
        return np.array([row / np.linalg.norm(row) for row in gram])

    entropy = []
    for p in probabilities:
        bits = [-q * math.log(q) - (1 - q) * math.log(1 - q) for q in p] if regions else [-q * math.log(q) for q in p]
        entropy.append(np.mean(bits) if regions else np.sum(bits))
    weights = np.array(entropy) / np.sum(entropy)
    a, b = relations(student), relations(teacher)
    return sum(weights[i] * (a[i, j] - b[i, j]) ** 2 for i in range(len(a)) for j in range(len(a)))


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("spatial", [(2, 3, 4), (4, 5)])
def test_distillation_against_loops(regions, spatial):
    student, teacher, logits = random(2, 5, *spatial), random(2, 7, *spatial, seed=1), 2 * random(2, 3, *spatial, seed=2)
    value = margin_aware_distillation(student, teacher, logits, torch.rand(2, 64), regions)
    chances = logits.double().sigmoid() if regions else logits.double().softmax(1)
    expected = np.mean([slow_mad(*(t[b].flatten(1).T.double().numpy() for t in (student, teacher, chances)), regions)
                        for b in range(2)])
    assert float(value) == pytest.approx(expected, rel=1e-4)


def test_distillation_by_hand():
    """Two voxels: relations of the student are the identity, of the teacher all 1/sqrt(2)."""
    student = torch.eye(2)[None]  # (1, C, V): two orthogonal voxels
    teacher = torch.ones(1, 3, 2)
    logits = torch.tensor([[[0.0, 100.0], [0.0, 0.0]]])  # voxel 0 is uncertain, voxel 1 sure: only row 0 counts
    value = margin_aware_distillation(student[..., None], teacher[..., None], logits[..., None], torch.zeros(1, 2), False)
    half = 1 / math.sqrt(2)
    assert float(value) == pytest.approx((1 - half) ** 2 + half**2, rel=1e-5)


def test_distillation_teaches_the_student_only_and_survives_certainty():
    student, teacher = random(2, 4, 4, 4).requires_grad_(), random(2, 4, 4, 4, seed=1).requires_grad_()
    logits = (1e4 * random(2, 3, 8, 8)).requires_grad_()  # probabilities of exactly 0 and 1, on a finer grid
    margin_aware_distillation(student, teacher, logits, torch.rand(2, 9), False).backward()
    assert torch.isfinite(student.grad).all()
    assert teacher.grad is None
    assert logits.grad is None
    zeros = torch.zeros(1, 2, 4, 4, requires_grad=True)
    margin_aware_distillation(zeros, random(1, 2, 4, 4), random(1, 3, 4, 4), torch.rand(1, 9), True).backward()
    assert torch.isfinite(zeros.grad).all()


def test_distillation_of_equal_features_is_zero_and_of_all_others_bounded():
    features = random(2, 4, 6, 6)
    assert float(margin_aware_distillation(features, features, random(2, 2, 6, 6), torch.rand(2, 8), True)) == 0
    assert 0 < float(margin_aware_distillation(-1e3 * features.flip(1), features, random(2, 2, 6, 6), torch.rand(2, 8),
                                               True)) <= 4


def test_entropy():
    assert float(prediction_entropy(torch.zeros(1, 4), False)) == pytest.approx(math.log(4))
    assert float(prediction_entropy(torch.zeros(1, 4), True)) == pytest.approx(math.log(2))
    assert float(prediction_entropy(torch.full((1, 4), 1e4), True)) == 0


def test_every_voxel_is_drawn_at_most_once_and_all_equally_often():
    values = torch.arange(7 * 11).view(1, 1, 7, 11)
    counts = np.zeros(77)
    generator = torch_generator("voxels")
    for _ in range(2000):
        drawn = voxels_at(values, torch.rand(1, 10, generator=generator)).flatten().tolist()
        assert len(set(drawn)) == 10
        counts[drawn] += 1
    assert counts.min() > 0.7 * counts.mean()
    assert counts.max() < 1.3 * counts.mean()
    assert voxels_at(values, torch.rand(1, 100)).flatten().tolist() == list(range(77))
    nearly_one = torch.full((1, 10), 1 - 2**-24)
    assert voxels_at(values, nearly_one).max() == 76


# ---- masks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("m, spatial", [(4, (128, 128, 128)), (2, (16, 16)), (8, (32, 48, 40)), (4, (5, 64, 64))])
def test_the_number_of_visible_patches_is_exact_in_every_sample(m, spatial):
    present = torch.rand(6, m, generator=torch_generator("present")) < 0.6
    present[:, 0] = True
    present[0, 1:] = False
    tokens = math.prod(patch_grid(spatial))
    patches = draw_patches(present, spatial, 0.875, torch_generator("patches"))
    counts = patches.flatten(2).sum(2)  # (B, M)
    assert counts.sum(1).tolist() == [min(round(0.125 * m * tokens), int(row.sum()) * tokens) for row in present]
    assert (counts[~present] == 0).all()
    assert not torch.equal(patches[1], patches[2])
    assert torch.equal(patches, draw_patches(present, spatial, 0.875, torch_generator("patches")))


def test_m3ae_shows_256_of_2048_patches_of_16_voxels():
    patches = draw_patches(torch.ones(1, 4, dtype=torch.bool), (128,) * 3, 0.875, torch_generator("m3ae"))
    assert patches.shape == (1, 4, 8, 8, 8)
    assert int(patches.sum()) == 256
    voxels = voxels_of(patches, (128,) * 3)
    assert torch.equal(voxels[..., ::16, ::16, ::16], patches)
    assert int(voxels.sum()) == 256 * 16**3


@pytest.mark.parametrize("spatial, grid", [((128, 128, 128), (8, 8, 8)), ((5, 20, 33), (5, 8, 8)), ((64, 40), (8, 8))])
def test_patches_scale_with_the_plan(spatial, grid):
    assert patch_grid(spatial) == grid
    numbers = torch.arange(math.prod(grid)).view(1, 1, *grid)
    sizes = torch.bincount(voxels_of(numbers, spatial).flatten()).view(grid)
    assert voxels_of(numbers, spatial).shape[2:] == spatial
    for axis, (size, count) in enumerate(zip(spatial, grid)):  # along each axis patches differ by at most a voxel
        lengths = sizes.movedim(axis, 0).flatten(1)[:, 0] * size // sizes.movedim(axis, 0).flatten(1)[:, 0].sum()
        assert len(lengths) == count
        assert lengths.max() - lengths.min() <= 1


def test_something_is_always_visible():
    patches = draw_patches(torch.tensor([[False, True]]), (2, 2), 0.9999, torch_generator("few"))
    assert int(patches.sum()) == 1
    assert patches[0, 1].any()
