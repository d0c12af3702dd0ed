"""MetaKD's outer problem: which gradient moves the importance weights, when, and what it leaves alone."""
from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from tiny_trainers import make_batch, make_trainer

from nnmiss.trainers.modality_importance import frozen


@pytest.fixture
def trainer(tmp_path, monkeypatch):
    trainer = make_trainer(tmp_path, monkeypatch, "metakd")
    trainer.meta_loader = iter([make_batch(trainer)] * 100)
    return trainer


def test_an_update_moves_w_and_nothing_else(trainer):
    network, w = copy.deepcopy(trainer.network.state_dict()), trainer.importance.raw.detach().clone()
    trainer.update_importance(0)
    assert not torch.equal(trainer.importance.raw, w)
    assert all(torch.equal(v, network[n]) for n, v in trainer.network.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in trainer.network.parameters())


def test_the_update_follows_the_derivative_of_the_loss_of_weighted_features(trainer):
    """Against finite differences in double precision; nnU-Net's loss computes in single, so another stands in."""
    trainer.network.double()
    trainer.importance.double()
    trainer.loss = lambda logits, target: sum((out.sigmoid() - 0.3).square().mean() for out in logits)
    batch = make_batch(trainer)
    batch["data"] = batch["data"].double()
    trainer.meta_loader = iter([batch])

    def meta_loss(raw):
        with torch.no_grad():
            return float(trainer.loss(trainer.network(batch["data"], importance=raw.softmax(0)), None))

    raw, numeric = trainer.importance.raw.detach().clone(), torch.zeros(4, dtype=torch.double)
    for i, step in enumerate(1e-5 * torch.eye(4, dtype=torch.double)):
        numeric[i] = (meta_loss(raw + step) - meta_loss(raw - step)) / 2e-5
    trainer.importance_optimizer = torch.optim.SGD(trainer.importance.parameters(), lr=1.0)
    trainer.update_importance(0)
    moved = raw - trainer.importance.raw.detach()
    assert moved.abs().max() > 1e-5
    assert torch.allclose(moved, numeric, rtol=1e-4, atol=1e-9)


def test_w_has_no_gradient_from_the_training_loss(trainer):
    trainer.train_step(make_batch(trainer))
    before = trainer.importance.raw.grad
    parts = trainer.losses(trainer.network, *trainer.to_device(make_batch(trainer)), torch.ones(2, 4, dtype=torch.bool))
    parts["loss"].backward()
    assert trainer.importance.raw.grad is before


def test_w_is_updated_at_least_ten_times_in_a_short_stage_and_every_hundred_iterations_in_a_long_one(trainer):
    updates = []
    seen = torch.zeros(4, 1), torch.ones(1, 4, dtype=torch.bool)
    trainer.update_importance = lambda step: updates.append(step) or seen
    trainer.log_importance = lambda *_: None
    for epochs, iterations, expected in ((2, 25, 10), (1, 10, 10), (1, 5, 5), (400, 250, 1000)):
        trainer.num_epochs, trainer.num_iterations_per_epoch = epochs, iterations
        updates.clear()
        for trainer.iteration in range(epochs * iterations):
            trainer.before_iteration()
        assert len(updates) == expected


def test_the_official_preset_takes_twenty_steps(tmp_path, monkeypatch):
    from nnmiss.trainers import method_class
    from nnmiss.trainers.settings import resolve_settings

    cls = method_class("metakd")
    settings = resolve_settings(cls.known_settings(), cls.presets, "official", {}, ("warmup", "missing"))
    assert settings["warmup"]["meta_interval"] == 100
    assert settings["missing"]["meta_interval"] == 500
    assert settings["missing"]["meta_weight_decay"] == 5e-4
    trainer = make_trainer(tmp_path, monkeypatch, "metakd", **{
        k: v for k, v in settings["missing"].items() if k not in cls.network_settings})
    trainer.meta_loader = iter([make_batch(trainer, 1)] * 20)
    trainer.before_iteration()
    assert next(trainer.meta_loader, None) is None
    assert len(trainer.progress.tables["importance_weights"]["rows"]) == 1


def test_what_fig_4_and_5_show_is_logged(trainer):
    trainer.before_iteration()
    weights = trainer.progress.tables["importance_weights"]
    assert weights["columns"] == trainer.modalities
    assert sum(weights["rows"][0][1:]) == pytest.approx(1, abs=1e-5)
    columns = trainer.progress.tables["features"]["columns"]
    assert "collapse:std between cases" in columns
    assert sum("cosine similarity" in c for c in columns) == 4


def test_distillation_at_every_stage_reaches_the_first_stage(tmp_path, monkeypatch):
    for places, expected in (("bottleneck", 1), ("every_stage", 3)):
        trainer = make_trainer(tmp_path, monkeypatch, "metakd", places=places)
        x, target = trainer.to_device(make_batch(trainer))
        seen = []
        monkeypatch.setattr("nnmiss.trainers.metakd.pairwise_distillation",
                            lambda f, *rest, seen=seen: seen.append(f.shape) or f.sum() * 0)
        trainer.losses(trainer.network, x, target, torch.ones(2, 4, dtype=torch.bool))
        assert len(set(seen)) == expected


def test_the_meta_gradient_survives_half_precision(trainer):
    """The gradient is taken of the scaled loss and scaled back, as GradScaler does for the network."""
    moved = []
    for scale in (None, 4096.0):
        trainer.importance.raw.data = torch.linspace(0, 1, 4)
        trainer.importance_optimizer = torch.optim.SGD(trainer.importance.parameters(), lr=1.0)
        trainer.grad_scaler = None if scale is None else SimpleNamespace(get_scale=lambda scale=scale: scale)
        trainer.update_importance(0)
        moved.append(trainer.importance.raw.detach() - torch.linspace(0, 1, 4))
    assert torch.allclose(*moved, rtol=1e-3, atol=1e-7)


def test_an_overflowing_meta_gradient_is_skipped(trainer):
    trainer.grad_scaler = SimpleNamespace(get_scale=lambda: float("inf"))
    before = trainer.importance.raw.detach().clone()
    trainer.update_importance(0)
    assert torch.equal(trainer.importance.raw, before)


def test_features_of_all_meta_steps_are_logged_together(trainer):
    """With one case per step, as in the official code, the spread between cases still shows."""
    trainer.meta_steps = 3
    batches = [make_batch(trainer, 1, [key]) for key in ("case_0", "case_1", "case_2")]
    for factor, batch in enumerate(batches):
        batch["data"] = torch.roll(batch["data"], factor, -1)
    trainer.meta_loader = iter(batches)
    trainer.before_iteration()
    table = trainer.progress.tables["features"]
    assert table["rows"][0][1 + table["columns"].index("collapse:std between cases")] > 0


def test_freezing_is_undone_after_an_error():
    layer = torch.nn.Linear(2, 2)
    with pytest.raises(RuntimeError), frozen(layer):
        assert not layer.weight.requires_grad
        raise RuntimeError
    assert layer.weight.requires_grad
