"""What every method must do, run over all of them: a new method in METHODS is tested here without a new test."""
from __future__ import annotations

import copy

import pytest
import torch
from tiny_trainers import make_batch, make_trainer

from nnmiss.networks.base import MissingModalityNetwork
from nnmiss.trainers import METHODS, method_of_trainer
from nnmiss.trainers.settings import common_settings

PRESETS = [(method, preset) for method, trainer in METHODS.items()
           for preset in dict.fromkeys(["paper", trainer.default_preset])]
EVERY = [(method, preset, stage.name) for method, preset in PRESETS
         for stage in METHODS[method].stages_of(["m0", "m1"], common_settings(
             METHODS[method].known_settings(), METHODS[method].presets, preset, {}))]
SHAPES = [(2, 3, "regions"), (3, 2, "labels"), (4, 3, "ignore"), (4, 2, "regions"), (8, 3, "labels")]


@pytest.fixture
def trainer_of(tmp_path, monkeypatch):
    def build(*args, **kwargs):
        trainer = make_trainer(tmp_path, monkeypatch, *args, **kwargs)
        trainer.before_iteration = lambda: None  # needs data on disk; test_metakd.py and test_training.py cover it
        return trainer

    return build


@pytest.mark.parametrize("method, preset, stage", EVERY)
@pytest.mark.parametrize("m, dim, labels", SHAPES)
def test_a_training_step_is_finite_and_changes_every_part(trainer_of, method, preset, stage, m, dim, labels):
    rows = {"case_0": [True] * m, "case_1": [True] * (m - 1) + [False]}  # completing cases needs an incomplete one
    trainer = trainer_of(method, m, dim, labels, stage=stage, preset=preset, available=rows)
    before = copy.deepcopy(trainer.network.state_dict())
    learning = {name for name, parameter in
                trainer.network.named_parameters(remove_duplicate=False) if parameter.requires_grad}
    logged = [trainer.train_step(make_batch(trainer)) for _ in range(3)]
    assert all(torch.isfinite(torch.tensor(list(parts.values()))).all() for parts in logged)
    after = trainer.network.state_dict()
    # nnU-Net gives the coarsest output no weight, and a bias before a normalisation moves nothing but by weight decay
    same = {n for n in before if torch.equal(before[n], after[n])}
    assert {n for n in learning & same if "seg_layers.0." not in n and "bias" not in n} == set()
    assert before.keys() - learning <= same  # what is frozen stays


@pytest.mark.parametrize("method, preset, stage", EVERY)
@pytest.mark.parametrize("filling", [float("nan"), 1e6])
def test_absent_modalities_change_neither_loss_nor_gradient(trainer_of, method, preset, stage, filling):
    rows = {"case_0": [True, False, True, False], "case_1": [False, False, False, True], "case_2": [True] * 4}
    gradients, losses = [], []
    for fill in (None, filling):
        trainer = trainer_of(method, preset=preset, stage=stage, available=rows)
        batch = make_batch(trainer)
        if fill is not None:
            batch["data"][~trainer.available_of(batch["keys"])] = fill
        x, target = trainer.to_device(batch)
        parts = trainer.losses(trainer.network, x, target, **trainer.draw(trainer.available_of(batch["keys"])))
        parts["loss"].backward()
        losses.append(float(parts["loss"].detach()))
        gradients.append([p.grad for p in trainer.network.parameters() if p.grad is not None])
    assert losses[0] == losses[1]
    assert all(torch.equal(a, b) for a, b in zip(*gradients))


@pytest.mark.parametrize("method, preset, stage", EVERY)
@pytest.mark.parametrize("kept", [1, 4])
def test_single_and_all_modalities_train(trainer_of, method, preset, stage, kept):
    trainer = trainer_of(method, preset=preset, stage=stage)
    trainer.draw_present = lambda available: torch.arange(4).expand(2, 4) < kept
    assert torch.isfinite(torch.tensor(trainer.train_step(make_batch(trainer))["loss"]))


@pytest.mark.parametrize("method, preset", PRESETS)
def test_validation_shows_a_fixed_cycle_of_subsets(trainer_of, method, preset):
    trainer = trainer_of(method, preset=preset, num_val_iterations_per_epoch=15)
    assert len({trainer.validation_subset(i) for i in range(15)}) == 15
    with torch.no_grad():
        out = trainer.validation_step({**make_batch(trainer), "number": 3})
    assert torch.isfinite(torch.tensor(out["loss"]))
    few = trainer_of(method, preset=preset, m=8, num_val_iterations_per_epoch=10)
    assert len({few.validation_subset(i) for i in range(10)}) == 10


@pytest.mark.parametrize("method, preset", PRESETS)
def test_the_network_offers_the_three_steps_and_one_fresh_tensor(trainer_of, method, preset):
    trainer = trainer_of(method, preset=preset)
    network, x = trainer.inference_network, make_batch(trainer)["data"]
    assert isinstance(network, MissingModalityNetwork)
    assert isinstance(network(x), list)
    trainer.set_deep_supervision_enabled(False)
    out = network(x)
    first = out.clone()
    out += 1  # nnU-Net's predictor adds in place
    assert torch.equal(network(x), first)


@pytest.mark.parametrize("method, preset", PRESETS)
def test_the_network_can_be_rebuilt_from_the_plans_alone(trainer_of, method, preset):
    trainer = trainer_of(method, preset=preset)
    rebuilt = method_of_trainer(type(trainer).__name__).build_network_architecture(
        trainer.plans_manager, trainer.configuration_manager, 4, trainer.label_manager.num_segmentation_heads, False)
    rebuilt.load_state_dict(trainer.inference_network.state_dict())


@pytest.mark.parametrize("method, preset, stage", EVERY)
def test_a_checkpoint_brings_everything_back(trainer_of, method, preset, stage, tmp_path):
    a = trainer_of(method, preset=preset, stage=stage)
    a.train_step(make_batch(a))
    a.current_epoch = 4
    a.save_checkpoint(str(tmp_path / "c.pth"))
    b = trainer_of(method, preset=preset, stage=stage)
    b.load_checkpoint(str(tmp_path / "c.pth"))
    assert b.current_epoch == 5
    a.iteration = b.iteration = 7
    a.current_epoch = b.current_epoch
    assert a.train_step(make_batch(a)) == b.train_step(make_batch(b))
    for x, y in zip(a.network.state_dict().values(), b.network.state_dict().values()):
        assert torch.equal(x, y)


def test_a_checkpoint_of_another_method_is_refused(trainer_of, tmp_path):
    a = trainer_of("modality_dropout")
    a.save_checkpoint(str(tmp_path / "c.pth"))
    with pytest.raises(Exception, match="was trained by modality_dropout, expected metakd"):
        trainer_of("metakd").load_checkpoint(str(tmp_path / "c.pth"))


def test_the_plans_micro_batch_is_for_the_network_it_was_planned_for(trainer_of):
    assert trainer_of("metakd", micro_batch=1).micro_batch == 1
    assert trainer_of("modality_dropout", micro_batch=1).micro_batch == 2  # stock's network fits with the whole batch


def test_micro_batches_give_the_gradient_of_the_whole_batch(trainer_of):
    steps = []
    for micro_batch in (1, 2):
        trainer = trainer_of("modality_dropout")
        trainer.micro_batch = micro_batch
        trainer.train_step(make_batch(trainer))
        steps.append(torch.cat([p.detach().flatten() for p in trainer.network.parameters()]))
    assert torch.allclose(*steps, atol=1e-5)
