"""A moving average of a network's weights, which is validated and predicted with instead of the last step's weights."""
from __future__ import annotations

from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class WeightAverage:
    """The exponential moving average of a network's parameters over training steps (Polyak and Juditsky 1992).

    Early on the average looks back over about a tenth of the steps so far, as the first weights are random: the factor of
    step n is min(decay, (1 + n) / (10 + n)).

    Args:
        network: what is trained; it is copied.
        decay: factor of the old average in each step, in (0, 1); .99 looks back over about 100 steps.
    """

    def __init__(self, network: nn.Module, decay: float):
        self.decay = decay
        self._averaged = AveragedModel(network, multi_avg_fn=self._average)
        self.network.requires_grad_(False).eval()  # nobody trains it, so nobody switches its dropout off

    @property
    def network(self) -> nn.Module:
        """The network with averaged weights."""
        return self._averaged.module

    def update(self, network: nn.Module) -> None:
        """Takes in the weights after a step."""
        self._averaged.update_parameters(network)

    def begin(self, network: nn.Module) -> None:
        """Before the first step the average is the network; later this changes nothing."""
        if not self._averaged.n_averaged:
            self.network.load_state_dict(network.state_dict())

    def state(self) -> dict:
        """Plain values and tensors, for the checkpoint; the averaged weights themselves are stored as the network's."""
        return {"steps": int(self._averaged.n_averaged)}

    def load(self, weights: dict, state: dict) -> None:
        """Goes on from averaged weights and what `state` gave."""
        self.network.load_state_dict(weights)
        self._averaged.n_averaged.fill_(state["steps"])

    def _average(self, averaged: list, current: list, steps) -> None:
        n = int(steps)
        get_ema_multi_avg_fn(min(self.decay, (1 + n) / (10 + n)))(averaged, current, n)
