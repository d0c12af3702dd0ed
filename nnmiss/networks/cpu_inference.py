"""Convolutions, and normalisation when no gradient is asked for, that are faster on a CPU; same values."""
from __future__ import annotations

import torch
from dynamic_network_architectures.building_blocks.simple_conv_blocks import ConvDropoutNormReLU
from torch import Tensor, nn
from torch.nn import functional as F

from nnmiss.networks.modality_norm import ModalityNorm

BLOCK = 1 << 18  # numbers worked on at a time: 1 MB stays in the processor's second-level cache
LEAST_WIDTH = 64  # narrower rows are joined, because loops over a handful of channels are slow
NATIVE_LIMIT = 20480  # torch leaves 3D convolutions of one sample with fewer values (C * D * H) to its own slow loops


def quicken(network: nn.Module) -> nn.Module:
    """Lets the convolutions and instance normalisations of nnU-Net's blocks take the fast paths of this file.

    Only the classes of these modules change: parameters and names stay, and so does all that happens on CUDA. With
    gradients, in half precision or in another memory layout only lone small samples take another path. Returns the network.
    """
    for module in network.modules():
        if isinstance(module, ConvDropoutNormReLU):  # what its convolution gives belongs to nobody else
            norm = getattr(module, "norm", None)
            if type(norm) in NORMS:
                norm.__class__ = NORMS[type(norm)]
        if type(module) is nn.Conv3d:
            module.__class__ = QuickConv3d
    return network


def is_quick(x: Tensor) -> bool:
    """Whether the fast paths hold for this tensor: 4D or 5D float32 on the CPU, channels last, no gradients."""
    layout = {4: torch.channels_last, 5: torch.channels_last_3d}.get(x.ndim)
    return (not torch.is_grad_enabled() and x.device.type == "cpu" and x.dtype == torch.float32 and layout is not None
            and x.is_contiguous(memory_format=layout))


def by_voxel(x: Tensor) -> Tensor:
    """(N, C, *spatial) channels last -> (N, voxels, C), a view."""
    return x.movedim(1, -1).flatten(1, -2)


class QuickConv3d(nn.Conv3d):
    """Kernels of one voxel are a matrix product; what torch would convolve with slow loops is two samples."""

    def forward(self, x):
        plain = self.stride == self.dilation == (1, 1, 1) and self.groups == 1 and self.padding_mode == "zeros" \
            and isinstance(self.padding, tuple)
        if is_quick(x) and plain and self.kernel_size == (1, 1, 1) and self.padding == (0, 0, 0):
            return F.linear(x.movedim(1, -1), self.weight.flatten(1), self.bias).movedim(-1, 1)
        if not self.is_slow(x):
            return super().forward(x)
        if plain and x.shape[2] % 2 == 0 and self.kernel_size[0] == 2 * self.padding[0] + 1:
            return self.in_halves(x)
        return super().forward(x.expand(2, -1, -1, -1, -1))[:1]

    def is_slow(self, x: Tensor) -> bool:
        """Whether torch leaves this input to its own loops: on the CPU a lone small sample, and a kernel of 3."""
        return (x.device.type == "cpu" and len(x) == 1 and x[0, :, :, :, 0].numel() <= NATIVE_LIMIT
                and self.groups == 1 and max(self.kernel_size) == 3)

    def in_halves(self, x: Tensor) -> Tensor:
        """(1, C, D, H, W) -> (1, C', D, H, W), as a batch of its two halves along D with what the kernel sees beyond.

        torch convolves one small sample with loops of its own that take 2 to 10 times as long as oneDNN does for two.
        """
        half, beyond = x.shape[2] // 2, self.padding[0]
        x = F.pad(x, (0, 0, 0, 0, beyond, beyond))
        halves = torch.cat([x[:, :, : half + 2 * beyond], x[:, :, half:]])  # (2, C, half + 2 beyond, H, W)
        out = F.conv3d(halves, self.weight, self.bias, padding=(0, *self.padding[1:])).movedim(1, -1)
        return out.reshape(1, -1, *out.shape[2:]).movedim(-1, 1)  # a view in channels-last order


class InPlaceNorm:
    """Mixed in before an instance normalisation: in place and block by block, as torch's own copies its input twice."""

    def forward(self, x):
        if not is_quick(x) or self.track_running_stats:
            return super().forward(x)
        normalise_(x, self.weight, self.bias, self.eps)
        return x


class InPlaceInstanceNorm2d(InPlaceNorm, nn.InstanceNorm2d):
    """nn.InstanceNorm2d, in place where that is fast."""


class InPlaceInstanceNorm3d(InPlaceNorm, nn.InstanceNorm3d):
    """nn.InstanceNorm3d, in place where that is fast."""


class InPlaceModalityNorm(ModalityNorm):
    """ModalityNorm, in place where that is fast."""

    def forward(self, x):
        if not is_quick(x):
            return super().forward(x)
        normalise_(x, *self.affine(), self.eps)
        return x


NORMS = {nn.InstanceNorm2d: InPlaceInstanceNorm2d, nn.InstanceNorm3d: InPlaceInstanceNorm3d,
         ModalityNorm: InPlaceModalityNorm}


def normalise_(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> None:
    """Instance normalisation in place: mean, then variance about it, then scale and shift.

    Args:
        x: (N, C, *spatial) float32, channels last.
        weight, bias: (C,), (N, C) or None.
        eps: added to the variance.
    """
    rows = by_voxel(x)  # (N, V, C)
    samples, voxels, channels = rows.shape
    join = 1  # voxels per row
    while channels * join < LEAST_WIDTH and voxels % (2 * join) == 0:
        join *= 2
    rows = rows.view(samples, voxels // join, join * channels)

    def per_channel(sums: Tensor) -> Tensor:  # (n, 1, join * C) -> means (n, 1, join * C)
        return (sums.unflatten(2, (join, channels)).sum(2) / voxels).repeat(1, 1, join)

    scale = torch.ones(channels) if weight is None else weight.detach()
    shift = torch.zeros(channels) if bias is None else bias.detach()
    each = [rows, *(values.expand(samples, -1).repeat(1, join)[:, None] for values in (scale, shift))]  # (N, 1, join * C)
    at_once = max(1, BLOCK // rows[0].numel())  # samples
    for group, scale, shift in zip(*(part.split(at_once) for part in each)):
        blocks = group.split(max(1, BLOCK // rows.shape[2]), 1)
        mean = per_channel(group.sum(1, keepdim=True))
        squares = torch.zeros_like(mean)
        scratch = torch.empty_like(blocks[0])
        for block in blocks:
            block.sub_(mean)
            squares += torch.mul(block, block, out=scratch[:, : block.shape[1]]).sum(1, keepdim=True)
        factor = (per_channel(squares) + eps).rsqrt_() * scale
        for block in blocks:
            torch.addcmul(shift, block, factor, out=block)
