"""The moving average of the weights: what it is, that it is what predicts, and that a resume goes on with both."""
from __future__ import annotations

import pytest
import torch
from tiny_trainers import make_batch, make_trainer

from nnmiss.inference.checkpoints import read_checkpoint
from nnmiss.trainers import METHODS
from nnmiss.trainers.weight_average import WeightAverage


@pytest.fixture
def trainer_of(tmp_path, monkeypatch):
    def build(*args, **kwargs):
        trainer = make_trainer(tmp_path, monkeypatch, *args, **kwargs)
        trainer.before_iteration = lambda: None  # needs data on disk
        return trainer

    return build


def test_the_average_is_the_written_recursion():
    network = torch.nn.Linear(1, 1, bias=False)
    average, expected = WeightAverage(network, 0.9), None
    for step, value in enumerate([3.0, -1.0, 4.0, 1.0, -5.0, 9.0] * 30):
        with torch.no_grad():
            network.weight.fill_(value)
        average.update(network)
        factor = min(0.9, (1 + step) / (10 + step))
        expected = value if expected is None else factor * expected + (1 - factor) * value
    assert average.network.weight.item() == pytest.approx(expected, rel=1e-5)
    assert not average.network.weight.requires_grad and network.weight.requires_grad


def test_the_average_has_no_dropout_and_begins_with_weights_that_came_later():
    network = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(0.5))
    average, x = WeightAverage(network, 0.9), torch.ones(8, 4)
    network[0].weight.data.fill_(2.0)  # as from the stage before
    average.begin(network)
    assert torch.equal(average.network(x), network[0](x))
    average.update(network)
    network[0].weight.data.fill_(3.0)
    average.begin(network)
    assert float(average.network[0].weight[0, 0]) == 2


@pytest.mark.parametrize("method", METHODS)
def test_a_resume_goes_on_with_weights_and_average(trainer_of, method, tmp_path):
    def steps(trainer, number):
        for _ in range(number):
            trainer.train_step(make_batch(trainer))

    whole, first, second = (trainer_of(method, ema_decay=0.8) for _ in range(3))
    steps(whole, 4)
    steps(first, 2)
    first.save_checkpoint(str(tmp_path / "c.pth"))
    second.load_checkpoint(str(tmp_path / "c.pth"))
    second.iteration, second.current_epoch = first.iteration, first.current_epoch
    steps(second, 2)
    for name in ("inference_network", "validated_network"):
        one, other = (getattr(trainer, name).state_dict() for trainer in (whole, second))
        assert all(torch.equal(one[key], other[key]) for key in one), name
    stored = read_checkpoint(str(tmp_path / "c.pth"))
    raw, averaged = stored["nnmiss"]["average"]["last_weights"], stored["network_weights"]
    assert any(not torch.equal(raw[key], averaged[key]) for key in raw)


def test_what_is_validated_is_the_average(trainer_of):
    trainer = trainer_of("modality_dropout", ema_decay=0.99)
    batch = make_batch(trainer)
    trainer.train_step(batch)
    trainer.train_step(batch)
    with torch.no_grad():
        before = trainer.validation_step(batch)["loss"]
        for parameter in trainer.bare_network.parameters():
            parameter.zero_()
        assert trainer.validation_step(batch)["loss"] == before
        for parameter in trainer.average.network.parameters():
            parameter.zero_()
        assert trainer.validation_step(batch)["loss"] != before


def test_a_run_without_average_takes_one_with(trainer_of, tmp_path):
    """As when the last stage alone has it: what goes on is the last step's weights."""
    with_average, without = trainer_of("modality_dropout", ema_decay=0.9), trainer_of("modality_dropout")
    with_average.train_step(make_batch(with_average))
    with_average.train_step(make_batch(with_average))
    with_average.save_checkpoint(str(tmp_path / "c.pth"))
    without.load_checkpoint(str(tmp_path / "c.pth"))
    now, then = without.bare_network.state_dict(), with_average.bare_network.state_dict()
    assert all(torch.equal(now[key], then[key]) for key in now)
