"""SMIL's two encoders of the 1,500-pair audiovision-MNIST: a LeNet for digits, a small network for MFCC.

Architectures as in the public code of SMIL (Ma et al., AAAI 2021), `lenet5.py` and `snet.py`; written anew.
"""
from __future__ import annotations

from torch import Tensor, nn

from .base import BatchNorm2d, Encoder, require_size


class LeNet(Encoder):
    """Two 5x5 convolutions with pooling before the ReLU: 160 features of 28 x 28 pixels, 1,390 parameters.

    Args:
        shape: (C, H, W), at least 16 pixels along each axis.
        dropout: of single values of the second convolution, before pooling.
    """

    rank = 3
    head_hidden = (32,)

    def __init__(self, shape: tuple[int, ...], dropout: float = 0.5):
        super().__init__()
        channels, *size = shape
        require_size("lenet", size, 16)
        self.layers = nn.Sequential(nn.Conv2d(channels, 5, 5), nn.MaxPool2d(2), nn.ReLU(),
                                    nn.Conv2d(5, 10, 5), nn.Dropout(dropout), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten())
        height, width = (((s - 4) // 2 - 4) // 2 for s in size)
        self.features = 10 * height * width

    def forward(self, values: Tensor, lengths: Tensor | None = None) -> Tensor:
        return self.layers(values)


class SoundNet(Encoder):
    """Three 2x2 convolutions with batch normalisation: 320 features of 20 x 20 coefficients, 10,412 parameters.

    The pooling takes windows of 2 with a stride of 4, as published: 320 depends on it.

    Args:
        shape: (C, H, W), at least 5 along each axis.
        dropout: of single values after the pooling.
    """

    rank = 3
    head_hidden = (160, 32)
    head_dropout = (0.25, 0.4)

    def __init__(self, shape: tuple[int, ...], dropout: float = 0.25):
        super().__init__()
        channels, *size = shape
        require_size("sound_net", size, 5)
        layers: list[nn.Module] = []
        for before, after in zip((channels, 32, 48), (32, 48, 20)):
            layers += [nn.Conv2d(before, after, 2), BatchNorm2d(after), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.MaxPool2d(2, stride=4), nn.Dropout(dropout), nn.Flatten())
        height, width = ((s - 5) // 4 + 1 for s in size)
        self.features = 20 * height * width

    def forward(self, values: Tensor, lengths: Tensor | None = None) -> Tensor:
        return self.layers(values)
