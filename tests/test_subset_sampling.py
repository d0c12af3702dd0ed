"""What training shows a case: the laws of the three samplings, and that each can be replayed."""
from __future__ import annotations

from collections import Counter

import pytest
import torch
from tiny_trainers import make_batch, make_trainer

from nnmiss.availability import all_subsets
from nnmiss.errors import NnmissError
from nnmiss.seeding import torch_generator
from nnmiss.trainers.subset_sampling import SAMPLINGS, SubsetSampler

DRAWS = 20000


def shares(sampler, available=(True,) * 4):
    drawn = sampler.draw(torch.tensor([available] * DRAWS), torch_generator("draws"))
    return {subset: count / DRAWS for subset, count in Counter(tuple(row) for row in drawn.tolist()).items()}


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_draws_are_replayable_never_empty_and_within_what_a_case_has(sampling):
    sampler = SubsetSampler(sampling, 5)
    available = torch.rand(500, 5, generator=torch_generator(1)) < 0.5
    available[~available.any(1), 2] = True
    first, again = (sampler.draw(available, torch_generator("x", 3)) for _ in range(2))
    assert torch.equal(first, again)
    assert first.any(1).all() and not (first & ~available).any()
    assert not torch.equal(first, sampler.draw(available, torch_generator("x", 4)))


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_a_row_is_drawn_alike_whatever_the_others_have(sampling):
    """So that a process which knows only its own rows draws them as one process does."""
    sampler = SubsetSampler(sampling, 4)
    available = torch.rand(6, 4, generator=torch_generator(2)) < 0.6
    available[~available.any(1), 0] = True
    whole = sampler.draw(available, torch_generator("row"))
    for row in range(6):
        alone = torch.ones_like(available)
        alone[row] = available[row]
        assert torch.equal(sampler.draw(alone, torch_generator("row"))[row], whole[row])


def test_the_laws():
    by_subset = shares(SubsetSampler("subsets", 4))
    assert len(by_subset) == 15 and all(abs(share - 1 / 15) < 0.008 for share in by_subset.values())
    sizes = Counter()
    for subset, share in shares(SubsetSampler("counts", 4)).items():
        sizes[sum(subset)] += share
    assert all(abs(share - 1 / 4) < 0.015 for share in sizes.values())
    of_two = shares(SubsetSampler("subsets", 4), (True, False, True, False))
    assert all(abs(share - 1 / 3) < 0.015 for share in of_two.values()) and len(of_two) == 3


def test_weakest_prefers_what_is_behind():
    sampler = SubsetSampler("weakest", 4)
    subsets = all_subsets(4)
    assert torch.equal(sampler.shares(), torch.ones(15))  # nothing is known yet
    for number, subset in enumerate(subsets):
        sampler.saw(torch.tensor([subset]), 1.0 if number == 3 else 0.0)
    sampler.saw(torch.tensor([subsets[5]]), float("nan"))
    assert torch.equal(sampler.shares(), torch.ones(15))  # renewed when the epoch ends
    sampler.end_epoch(sampler.seen)
    share = shares(sampler)
    expected = torch.tensor([2.718281828 ** (2 if number == 3 else 0) for number in range(15)])
    expected /= expected.sum()
    assert all(abs(share[subset] - float(p)) < 0.015 for subset, p in zip(subsets, expected))


@pytest.mark.parametrize("sampling", ["subsets", "weakest"])
def test_too_many_modalities_to_list_their_subsets(sampling):
    with pytest.raises(NnmissError, match=f"subset_sampling={sampling} .* has 20: use subset_sampling=counts"):
        SubsetSampler(sampling, 20)
    assert SubsetSampler("counts", 20).draw(torch.ones(3, 20, dtype=torch.bool), torch_generator(1)).any(1).all()


def test_the_losses_are_in_the_checkpoint(tmp_path, monkeypatch):
    a, b = (make_trainer(tmp_path, monkeypatch, "modality_dropout", subset_sampling="weakest") for _ in range(2))
    for _ in range(3):
        a.train_step(make_batch(a))
    a.sampler.end_epoch(a.sampler.seen)
    a.save_checkpoint(str(tmp_path / "c.pth"))
    b.load_checkpoint(str(tmp_path / "c.pth"))
    assert not a.sampler.loss.isnan().all()
    assert torch.equal(a.sampler.loss.nan_to_num(-1), b.sampler.loss.nan_to_num(-1))


def test_a_process_with_more_of_the_batch_notes_the_same_loss(tmp_path, monkeypatch):
    """In several processes what a step returns is weighed by the process's part of the batch; means of subsets are not."""
    noted = []
    for weight in (1.0, 4 / 3):
        trainer = make_trainer(tmp_path, monkeypatch, "modality_dropout", subset_sampling="weakest")
        trainer.part_weight = weight
        trainer.train_step(make_batch(trainer))
        noted.append(trainer.sampler.seen[0][1])
    assert noted[0] == pytest.approx(noted[1], rel=1e-5)


def test_the_full_set_beside_a_subset(tmp_path, monkeypatch):
    """`full_task` of the baseline: both losses are those of two separate calls."""
    trainer = make_trainer(tmp_path, monkeypatch, "modality_dropout", full_task=0.5)
    batch = make_batch(trainer)
    x, target = trainer.to_device(batch)
    available = trainer.available_of(batch["keys"])
    drawn = trainer.draw(available)
    with torch.no_grad():
        losses = trainer.losses(trainer.network, x, target, **drawn)
        subset = trainer.loss(trainer.network(x, drawn["present"]), target)
        full = trainer.loss(trainer.network(x, available), target)
    assert float(losses["task"]) == pytest.approx(float(subset), rel=1e-5)
    assert float(losses["full"]) == pytest.approx(float(full), rel=1e-5)
    assert float(losses["loss"]) == pytest.approx(float(subset + 0.5 * full), rel=1e-5)
    trainer.train_step(batch)
