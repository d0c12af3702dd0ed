"""ResNets of basic blocks for images of any size; 10, 18 and 34 layers carry torchvision's names of weights."""
from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from nnmiss.errors import NnmissError, nearest_names

from .base import BatchNorm2d, Encoder, initialise_convolutions

STEMS = ("auto", "3x3", "7x7")
SMALL = 64  # pixels up to which "auto" keeps the resolution; ImageNet's stem would divide it by 4 at once


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; names as torchvision's."""

    def __init__(self, before: int, after: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.bn1 = BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.bn2 = BatchNorm2d(after)
        self.downsample = None
        if stride > 1 or before != after:
            self.downsample = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + shortcut)


class ResNet(Encoder):
    """A stem, one to four stages of basic blocks with 64, 128, 256, 512 channels, and the mean over the image.

    Args:
        shape: (C, H, W), any size.
        stem: "7x7" (with a 3x3 max pooling, as on ImageNet), "3x3" (no pooling, as on CIFAR), or "auto": 3x3 for images
            up to 64 pixels and for ResNet-3 and -6, which are published with it.
        stem_stride: of the stem's convolution; 0: 2 for 7x7, 1 for 3x3.
    """

    rank = 3
    blocks: tuple[int, ...]
    always_small = False

    def __init__(self, shape: tuple[int, ...], stem: str = "auto", stem_stride: int = 0):
        super().__init__()
        if stem not in STEMS:
            raise NnmissError(f"stem {stem!r} of a ResNet is unknown. {nearest_names(str(stem), STEMS)}")
        if stem == "auto":
            stem = "3x3" if self.always_small or max(shape[1:]) <= SMALL else "7x7"
        kernel, stride = (7, stem_stride or 2) if stem == "7x7" else (3, stem_stride or 1)
        self.conv1 = nn.Conv2d(shape[0], 64, kernel, stride, padding=kernel // 2, bias=False)
        self.bn1 = BatchNorm2d(64)
        self.pooled = stem == "7x7"
        self.features = before = 64
        for i, depth in enumerate(self.blocks):
            width = 64 * 2**i
            blocks = [BasicBlock(before if j == 0 else width, width, 2 if i and j == 0 else 1) for j in range(depth)]
            setattr(self, f"layer{i + 1}", nn.Sequential(*blocks))
            self.features = before = width
        initialise_convolutions(self)

    def forward(self, values: Tensor, lengths: Tensor | None = None) -> Tensor:
        x = F.relu(self.bn1(self.conv1(values)))
        if self.pooled:
            x = F.max_pool2d(x, 3, stride=2, padding=1)
        for i in range(len(self.blocks)):
            x = getattr(self, f"layer{i + 1}")(x)
        return x.mean((2, 3))


class ResNet3(ResNet):
    """One block; MIND's encoder of S-MNIST, rebuilt from its published size (151 k parameters for the whole model)."""

    blocks = (1,)
    always_small = True


class ResNet6(ResNet):
    """Two stages of one block; MIND's encoder of CREMA-D, rebuilt from its published size (612 k)."""

    blocks = (1, 1)
    always_small = True


class ResNet10(ResNet):
    """Four stages of one block, 4.9 M parameters."""

    blocks = (1, 1, 1, 1)


class ResNet18(ResNet):
    """Torchvision's resnet18 without its last layer, 11.2 M parameters."""

    blocks = (2, 2, 2, 2)


class ResNet34(ResNet):
    """Torchvision's resnet34 without its last layer, 21.3 M parameters."""

    blocks = (3, 4, 6, 3)
