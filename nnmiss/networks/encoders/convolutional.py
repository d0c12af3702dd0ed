"""Plain stacks of strided convolutions for images and volumes."""
from __future__ import annotations

from torch import Tensor, nn

from .base import Encoder, initialise_convolutions


class ConvolutionalEncoder(Encoder):
    """Convolutions of stride 2, each normalised over channels and space of a sample, then the mean over space.

    Each sample is normalised by itself, so small batches of volumes do no harm, and over all channels together, so that
    a map of a single voxel can be normalised too.

    Args:
        shape: (C, *spatial), any size.
        channels: of each layer; the last is the number of features.
    """

    convolution: type[nn.Module]

    def __init__(self, shape: tuple[int, ...], channels: list[int]):
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in zip((shape[0], *channels), channels):
            layers += [self.convolution(before, after, 3, stride=2, padding=1), nn.GroupNorm(1, after), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.features = channels[-1]
        initialise_convolutions(self)

    def forward(self, values: Tensor, lengths: Tensor | None = None) -> Tensor:
        return self.layers(values).flatten(2).mean(2)


class Cnn2d(ConvolutionalEncoder):
    """Two layers unless told otherwise: the image part of SimMLM's gate (supplement, Table A1)."""

    rank = 3
    convolution = nn.Conv2d

    def __init__(self, shape: tuple[int, ...], channels: list[int] = (32, 128)):
        super().__init__(shape, channels)


class Cnn3d(ConvolutionalEncoder):
    """Four layers unless told otherwise, for volumes."""

    rank = 4
    convolution = nn.Conv3d

    def __init__(self, shape: tuple[int, ...], channels: list[int] = (16, 32, 64, 128)):
        super().__init__(shape, channels)
