"""MetaKD, LCKD and SimMLM for classification: what every method must hold, and each one's own rules."""
from __future__ import annotations

import math

import pytest
import torch
from tiny_classification import make_classifier, tiny_fold, train
from tiny_samples import tiny_samples
from torch.nn import functional as F

from nnmiss.classification.sample_set import ModalityInput
from nnmiss.errors import NnmissError
from nnmiss.losses.more_versus_fewer import ranking_loss
from nnmiss.networks.base import item_index
from nnmiss.trainers import CLASSIFIERS
from nnmiss.trainers.lckd import true_probability
from nnmiss.trainers.simmlm import draw_nested

ELSEWHERE = {"unimodal", "mind", "mke", "ts", "ume", "vanilla", "vanilla_3h"}  # need a modality or teachers: test_mind*.py
METHODS = sorted(set(CLASSIFIERS) - ELSEWHERE)
CASES = [(("image", "table"), "multiclass"), (("image", "sound", "series"), "binary"),
         (("table", "table_b", "series", "volume"), "multilabel")]


def one_batch(trainer):
    trainer.on_train_start()
    batch = trainer.next_batch(trainer.dataloader_train, 0, 0, "train")
    x, target = trainer.to_device(batch)
    return batch, x, target, trainer.available_of(batch["keys"])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("modalities, task", CASES)
def test_losses_are_finite_and_reach_every_part(method, modalities, task):
    trainer = make_classifier(method, tiny_fold(modalities, task, classes=3))
    batch, x, target, available = one_batch(trainer)
    trainer.batch_rows = batch["rows"]
    trainer.before_iteration()
    losses = trainer.losses(trainer.network, x, target, **trainer.draw(available))
    assert math.isfinite(float(losses["loss"].detach()))
    losses["loss"].backward()
    without = [name for name, p in trainer.network.named_parameters() if p.grad is None]
    assert not without


@pytest.mark.parametrize("method", METHODS)
def test_what_is_absent_changes_nothing(method):
    trainer = make_classifier(method, tiny_fold(("image", "series", "table"), absent=0.5))
    _, x, target, available = one_batch(trainer)
    drawn = trainer.draw(available)
    shown = drawn["present"]
    assert not shown.all()
    seen = []
    for fill in (0.0, float("nan")):
        torch.manual_seed(0)
        changed = [ModalityInput(torch.where(shown[:, m].view(-1, *[1] * (part.values.ndim - 1)), part.values, fill),
                                 part.lengths) for m, part in enumerate(x)]
        seen.append(trainer.losses(trainer.network, changed, target, **drawn)["loss"].detach())
    assert torch.equal(*seen) and torch.isfinite(seen[0])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("task", ["multiclass", "binary", "multilabel"])
def test_learns_what_can_be_told_apart(method, task):
    samples = tiny_samples(("table", "table_b"), 60, task, 2, absent=0.3)
    fold = tiny_fold(task=task, classes=2, samples=samples)
    for stage in make_classifier(method, fold, initialize=False).stages:
        last = train(make_classifier(method, fold, stage.name, num_epochs=25, initial_lr=1e-2, keep="last"))
    assert last.curves.columns["train_losses"][-1] < 0.6 * last.curves.columns["train_losses"][0]


def test_metakd_is_equation_4():
    trainer = make_classifier("metakd", tiny_fold(("image", "table", "series")), drop=False, alpha=0.7)
    _, x, target, available = one_batch(trainer)
    trainer.network.eval()
    with torch.no_grad():
        trainer.importance.raw.copy_(torch.tensor([0.5, -1.0, 0.2]))
        losses = trainer.losses(trainer.network, x, target, available)
        logits, (features,) = trainer.network(x, available, return_features=True)
        w, index, distance = trainer.importance(), item_index(available), 0.0
        for row in index.tolist():
            for i in range(3):
                for j in range(3):
                    if i != j:
                        distance += float(w[i] / w[j] * (features[row[i]] - features[row[j]]).abs().mean())
    assert float(losses["distillation"]) == pytest.approx(distance / len(index), rel=1e-5)
    expected = F.cross_entropy(logits, target, weight=trainer.loss.class_weights)
    assert float(losses["loss"]) == pytest.approx(float(expected) + 0.7 * distance / len(index), rel=1e-5)


def test_metakd_updates_w_alone_on_validation_samples():
    fold = tiny_fold(("image", "sound"), n=40)
    trainer = make_classifier("metakd", fold)
    one_batch(trainer)
    before = {name: value.clone() for name, value in trainer.network.state_dict().items()}
    w, seen = trainer.importance.raw.detach().clone(), []
    original = trainer.batch_of
    trainer.batch_of = lambda rows: seen.append(rows) or original(rows)
    trainer.network.train()
    trainer.before_iteration()
    assert not torch.equal(w, trainer.importance.raw.detach())
    assert all(torch.equal(value, before[name]) for name, value in trainer.network.state_dict().items())  # BatchNorm too
    used = {fold.samples.ids[row] for rows in seen for row in rows.tolist()}
    assert used and used <= set(fold.validation)
    assert all(trainer.update_importance(step)[1].all() for step in range(5))  # shown all that they have
    assert trainer.network.training and all(p.requires_grad for p in trainer.network.parameters())


def test_metakd_weighs_the_informative_modality_more():
    samples = tiny_samples(("table", "table_b"), 200, classes=2)
    noise = samples.modalities["table_b"]
    shuffled = noise.values[torch.randperm(200, generator=torch.Generator().manual_seed(1))]
    samples = samples.with_modality("table_b", type(noise)(shuffled, noise.row))
    trainer = train(make_classifier("metakd", tiny_fold(samples=samples, classes=2), num_epochs=20, meta_interval=1))
    assert trainer.importance()[0] > trainer.importance()[1] + 0.05


def test_metakd_refuses_a_fold_without_labels_to_validate_on():
    samples = tiny_samples(("table", "table_b"), 24)
    samples.targets[12:18] = -1
    with pytest.raises(NnmissError, match="importance weights"):
        make_classifier("metakd", tiny_fold(samples=samples))


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_lckd_elects_the_informative_modality(task):
    samples = tiny_samples(("table", "table_b"), 120, task, 2)
    noise = samples.modalities["table"]
    shuffled = noise.values[torch.randperm(120, generator=torch.Generator().manual_seed(1))]
    samples = samples.with_modality("table", type(noise)(shuffled, noise.row))
    trainer = train(make_classifier("lckd", tiny_fold(task=task, samples=samples, classes=2), num_epochs=15,
                                    initial_lr=1e-2, election_interval=1))
    assert trainer.teachers == [1] * (2 if task == "multilabel" else 1)
    again = make_classifier("lckd", tiny_fold(task=task, samples=samples, classes=2))
    again.load_method_state(trainer.method_state())
    assert again.teachers == trainer.teachers


def test_lckd_lets_labelled_validation_samples_vote():
    samples = tiny_samples(("table", "table_b"), 24)
    samples.targets[12] = -1
    trainer = make_classifier("lckd", tiny_fold(samples=samples))
    assert [samples.ids[row] for row in trainer.voters] == trainer.data.validation[1:]
    assert trainer.scores_of_single_modalities().shape == (5, 2, 1)


def test_true_probability_by_hand():
    logits = torch.tensor([[[0.0, math.log(3.0)], [0.0, 0.0]]])  # (1, 2, 2)
    assert torch.allclose(true_probability(logits, torch.tensor([1, -1]), "multiclass")[0, :, 0],
                          torch.tensor([0.75, float("nan")]), equal_nan=True)
    target = torch.tensor([[1.0, 0.0], [float("nan"), 1.0]])
    expected = torch.tensor([[0.5, 0.25], [float("nan"), 0.5]])
    assert torch.allclose(true_probability(logits, target, "multilabel")[0], expected, equal_nan=True)


def test_simmlm_task_and_mofe_by_hand():
    trainer = make_classifier("simmlm", tiny_fold(("table", "table_b")), mofe=0.5, class_balance="none")
    _, x, target, available = one_batch(trainer)
    fewer = available & torch.tensor([True, False])
    trainer.network.eval()
    losses = trainer.losses(trainer.network, x, target, available, fewer)
    of_more = F.cross_entropy(trainer.network(x, available), target, reduction="none")
    of_fewer = F.cross_entropy(trainer.network(x, fewer), target, reduction="none")
    mofe = sum(max(float(a) - float(b), 0) for a, b in zip(of_more.detach(), of_fewer.detach())) / len(target)
    assert float(losses["mofe"].detach()) == pytest.approx(mofe, rel=1e-5, abs=1e-7)
    task = float((of_more.mean() + of_fewer.mean()).detach()) / 2
    assert float(losses["loss"].detach()) == pytest.approx(task + 0.5 * mofe, rel=1e-5)
    assert float(ranking_loss(torch.tensor([1.0, 3.0]), torch.tensor([2.0, 1.0]))) == 1.0


@pytest.mark.parametrize("detach", [False, True])
def test_mofe_reaches_the_side_with_fewer_modalities_unless_detached(detach):
    trainer = make_classifier("simmlm", mofe_detach=detach)
    target = torch.zeros(4, dtype=torch.long)
    more = (-5.0 * F.one_hot(target, 3)).requires_grad_()  # the true class is the least likely
    fewer = torch.zeros(4, 3, requires_grad=True)
    trainer.ranking(more, fewer, target).backward()
    assert more.grad.any() and (fewer.grad is None) is detach


def test_simmlm_joint_stage_starts_from_the_experts(tmp_path):
    fold = tiny_fold(("table", "table_b"))
    experts = {f"expert_{m}": train(make_classifier("simmlm", fold, f"expert_{m}", tmp_path)) for m in ("table", "table_b")}
    joint = make_classifier("simmlm", fold, "joint")
    joint.begin_stage(lambda stage: {"network_weights": experts[stage].network.state_dict()})
    x = fold.samples.inputs(torch.arange(6))
    joint.network.eval()
    for m, expert in enumerate(experts.values()):
        expert.network.eval()
        alone = torch.arange(2).expand(6, -1) == m
        assert torch.allclose(joint.network(x, alone), expert.network(x, alone))


def test_nested_subsets_are_nested_and_never_empty():
    available = torch.rand(500, 5, generator=torch.Generator().manual_seed(0)) < 0.5
    available[:, 0] = True
    more, fewer = draw_nested(available, torch.Generator().manual_seed(1))
    assert not (fewer & ~more).any() and not (more & ~available).any() and fewer.any(1).all()
    several = available.sum(1) > 1
    assert (more.sum(1) > fewer.sum(1))[several].all() and torch.equal(more[~several], fewer[~several])
