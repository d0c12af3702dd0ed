"""What every encoder of one modality offers, and a batch normalisation that survives a batch of one."""
from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nnmiss.errors import NnmissError


class Encoder(nn.Module):
    """Turns one modality into a feature vector.

    Sub-classes take the shape of one sample first, then named options with defaults (the plan's "encoder" entry), and
    set `features`, the length of the vector.

    Attributes:
        rank: numbers in the shape of a sample that the encoder reads, or None for any.
        any_length: whether the first of them may be None: samples of unlike length.
        head_hidden, head_dropout: the published fully connected layers after it when it classifies alone.
    """

    rank: int | None = None
    any_length = False
    head_hidden: tuple[int, ...] = ()
    head_dropout: float | tuple[float, ...] = 0.0
    features: int

    def forward(self, values: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Features (P, features) of values (P, *shape); `lengths` (P,) long of series, None elsewhere."""
        raise NotImplementedError


class _LoneSamples:
    """Normalises a single training sample by the running statistics, which it leaves as they are.

    Modalities are encoded for the rows that have them, so a rare one often comes alone in a batch. One sample has no
    spread of its own to be normalised by (torch refuses it where a single value per channel is left). Gradients flow as
    usual. Whoever trains with batches of one throughout trains without normalisation.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.training and len(x) == 1:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
        return super().forward(x)


class BatchNorm2d(_LoneSamples, nn.BatchNorm2d):
    """torch's, with the same names of weights, for batches of one too."""


def require_size(name: str, size: tuple[int, ...], smallest: int) -> None:
    """Raises NnmissError where an axis of an image is too short for the layers of encoder `name`."""
    if min(size) < smallest:
        raise NnmissError(f"encoder {name} needs at least {smallest} pixels along each axis, the modality has "
                          f"{' x '.join(map(str, size))}: set a larger \"size\" in dataset.json or choose resnet3")


def fully_connected(sizes: list[int], dropout: float | tuple[float, ...]) -> nn.Sequential:
    """Linear, ReLU, dropout between each two neighbours of `sizes`; `dropout` is one rate or one per layer."""
    rates = [dropout] * (len(sizes) - 1) if isinstance(dropout, (int, float)) else list(dropout)
    if len(rates) != len(sizes) - 1:
        raise NnmissError(f"{len(rates)} dropout rates for {len(sizes) - 1} hidden layers: give one for all or one each")
    layers: list[nn.Module] = []
    for before, after, rate in zip(sizes, sizes[1:], rates):
        layers += [nn.Linear(before, after), nn.ReLU()] + ([nn.Dropout(rate)] if rate else [])
    return nn.Sequential(*layers)


def num_values(shape: tuple[int, ...]) -> int:
    """Values of one sample of this shape."""
    return math.prod(shape)


@torch.no_grad()
def initialise_convolutions(network: nn.Module) -> None:
    """He's normal initialisation of convolutions by their outputs, as torchvision's ResNets have it."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Conv3d)):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
