"""Decodes many subsets of the same images together: what is linear in the skips is computed once for all subsets.

The first convolution of a decoder stage reads [up; skip], so it is conv_u(up) + conv_s(skip), and the skip of a subset is
a sum of linear maps of the modalities' features. The skips of all subsets are therefore combinations of the skips of a
few (the basis): M for the fusions `mean` and `linear`, M (M + 1) / 2, the singles and pairs, for `concat` with Eq. 2.
conv_s runs on these alone. Fusions that are not linear in the features (`gated`, `mean_variance`) have no basis: conv_s
runs on each subset's skip. On the CPU, conv_u and the transposed convolution before it become one transposed convolution
with 16 instead of 29 operations for each pair of channels and voxel.
"""
from __future__ import annotations

from collections.abc import Callable
from math import prod

import torch
from dynamic_network_architectures.building_blocks.simple_conv_blocks import ConvDropoutNormReLU
from torch import Tensor, nn
from torch.nn import functional as F

from nnmiss.networks.cpu_inference import NATIVE_LIMIT
from nnmiss.networks.fusion_base import FusionByMaps

LEAST_VOXELS = 1000  # stages with fewer are so cheap that joining kernels does not pay
PAYS = 0.8  # the basis is used where it has at most this share of the subsets


def basis(maps: Tensor) -> tuple[list[int], Tensor] | None:
    """Subsets of whose fused features those of all subsets are combinations, by pivoted Cholesky elimination.

    Args:
        maps: (S, M, C, C) or (S, M), the maps of every subset's modalities, 0 where not shown.

    Returns:
        (R numbers of subsets, (S, R) float32 coefficients that sum to 1 for each subset, so that biases come out right), or
        None where R would not be much below S.
    """
    rows = maps.flatten(1).double()
    rows = torch.cat([rows / rows.norm(dim=1).mean().clamp_min(1e-30), torch.ones(len(rows), 1, device=rows.device)], 1)
    left = (rows @ rows.T).cpu()  # (S, S), what is not explained yet
    tolerance = 1e-11 * left.diagonal().max()
    gram, chosen = left.clone(), []
    while (pivot := int(left.diagonal().argmax())) not in chosen and left[pivot, pivot] > tolerance:
        if len(chosen) + 1 > PAYS * len(rows):
            return None
        chosen.append(pivot)
        left = left - torch.outer(left[:, pivot], left[pivot]) / left[pivot, pivot]
    within = gram[chosen][:, chosen]
    return chosen, torch.linalg.lstsq(within, gram[chosen]).solution.T.float()


class SubsetDecoder:
    """Decodes subsets of images whose modalities are encoded.

    Args:
        network: a SharedEncoderUNet in evaluation mode, deep supervision off.
        presents: (S, M) bool with no empty row.
        device: of the features.
    """

    def __init__(self, network: nn.Module, presents: Tensor, device: torch.device):
        self.decoder, self.fusions = network.decoder, network.fusions
        self.num_subsets = len(presents)
        self.shown = presents
        self.kept = network.__dict__.setdefault("_kept_for_subsets", {})
        self.shared = [remembered(self.kept, f"basis {i}", (presents, *fusion.parameters()),
                                  lambda fusion=fusion: basis(self._maps(fusion)))
                       if isinstance(fusion, FusionByMaps) else None for i, fusion in enumerate(self.fusions)]
        self.coefficients = [found and found[1].to(device) for found in self.shared]
        self.deepest = len(self.fusions) - 1

    def _maps(self, fusion: FusionByMaps) -> Tensor:
        maps = fusion.maps(self.shown, None)
        return maps * self.shown.view(*self.shown.shape, *[1] * (maps.ndim - 2))

    def decode(self, features: list[Tensor], index: list[list[int]], batch: int) -> Tensor:
        """Logits of every image's subsets.

        Args:
            features: as `encode` returns them.
            index: which item is the modality of each (image, subset), image by image; -1 where it is not shown.
            batch: how many (image, subset) pairs are decoded at once.

        Returns:
            (T*S, K, *spatial) float32.
        """
        subsets = self.num_subsets
        images = [index[start : start + subsets] for start in range(0, len(index), subsets)]
        at_once, parts = max(1, batch // subsets), []
        room = 3 * batch * features[0][0].numel()
        for start in range(0, len(images), at_once):
            some = images[start : start + at_once]
            skips = [self._basis_skips(i, scale, some, room) for i, scale in enumerate(features)]
            # several images come with all their subsets at once, a single one with some after the other
            parts += [self._decode_pairs(features, skips, some, range(subsets)[a : a + batch])
                      for a in range(0, subsets, batch)]
        return torch.cat(parts)

    def _basis_skips(self, i: int, features: Tensor, images: list[list[list[int]]], room: int) -> list[Tensor] | None:
        """(R, C, *spatial) of each image at scale i, convolved; None where nothing is shared or there is no room."""
        chosen = self.shared[i] and self.shared[i][0]
        if not chosen or len(chosen) * len(images) * features[0].numel() > room:
            return None
        rows = [rows[s] for rows in images for s in chosen]
        return list(self._skips(i, features, rows).chunk(len(images)))

    def _skips(self, i: int, features: Tensor, rows: list[list[int]]) -> Tensor:
        """What the rows' skips add to the decoder at scale i; at the deepest scale the fused features themselves."""
        fused = self.fusions[i](features, rows)
        return fused if i == self.deepest else self._convolved(fused, self.deepest - 1 - i)

    def _decode_pairs(self, features: list[Tensor], skips: list, images: list[list[list[int]]], subsets: range) -> Tensor:
        """(images times subsets, K, *spatial)."""
        rows = [rows[s] for rows in images for s in subsets]

        def skip(i: int, target: Tensor | None) -> Tensor:
            if skips[i] is None:
                own = self._skips(i, features[i], rows)
                return own if target is None else target.add_(own)
            factors = self.coefficients[i][subsets.start : subsets.stop]
            if target is None:
                return torch.cat([_combined(factors, maps) for maps in skips[i]])
            for part, maps in zip(target.chunk(len(images)), skips[i]):
                _add_combined(part, factors, maps)
            return target

        x = skip(self.deepest, None)
        for s, stage in enumerate(self.decoder.stages):
            i = self.deepest - 1 - s
            x = skip(i, self._upsampled(x, s, features[i].shape[2:]))
            first, *others = stage.convs
            for part in list(first.all_modules)[1:]:
                x = part(x)
            for block in others:
                x = block(x)
        return self.decoder.seg_layers[-1](x).float()

    # ---- the first convolution of a stage, in two halves ---------------------------------------------------------

    def _convolved(self, skip: Tensor, s: int) -> Tensor:
        """conv_s(skip), with every constant that the stage's first convolution adds."""
        conv, transposed = self.decoder.stages[s].convs[0].conv, self.decoder.transpconvs[s]
        weight = conv.weight[:, conv.in_channels // 2 :]
        out = _convolve(skip, weight, conv.bias, conv.padding)
        if transposed.bias is not None and self._joins(s, skip.shape[2:], skip):
            half = conv.weight[:, : conv.in_channels // 2]
            one_channel = torch.einsum("oc...,c->o...", half, transposed.bias)[:, None]
            ones = torch.ones((1, 1, *skip.shape[2:]), dtype=skip.dtype, device=skip.device)
            out += _convolve(ones.expand(2, *ones.shape[1:]), one_channel, None, conv.padding)[:1]
        return out

    def _upsampled(self, x: Tensor, s: int, spatial: torch.Size) -> Tensor:
        """conv_u(transposed convolution of x), without the constants of `_convolved`."""
        conv, transposed = self.decoder.stages[s].convs[0].conv, self.decoder.transpconvs[s]
        if self._joins(s, spatial, x):
            deconvolve = F.conv_transpose3d if x.ndim == 5 else F.conv_transpose2d
            return deconvolve(x, self._joined(s), None, transposed.stride, conv.padding)
        return _convolve(transposed(x), conv.weight[:, : conv.in_channels // 2], None, conv.padding)

    def _joins(self, s: int, spatial: torch.Size, x: Tensor) -> bool:
        return x.device.type == "cpu" and prod(spatial) >= LEAST_VOXELS

    def _joined(self, s: int) -> Tensor:
        """The kernel of both convolutions in one, (C_below, C, *stride + kernel - 1)."""
        conv, transposed = self.decoder.stages[s].convs[0].conv, self.decoder.transpconvs[s]

        def join() -> Tensor:
            half = conv.weight[:, : conv.in_channels // 2].transpose(0, 1)
            compose = F.conv_transpose3d if half.ndim == 5 else F.conv_transpose2d
            kernel = compose(transposed.weight, half.flip(tuple(range(2, half.ndim))))
            return kernel.contiguous(memory_format=_layout(kernel))

        return remembered(self.kept, f"kernel {s}", (conv.weight, transposed.weight), join)


def remembered(kept: dict[str, tuple], key: str, made_of: tuple[Tensor, ...], make: Callable):
    """What `make` gives; not made again while the tensors it is made of keep their values."""
    old, value = kept.get(key, (None, None))
    if old is not None and all(a.shape == b.shape and a.device == b.device and torch.equal(a, b)
                               for a, b in zip(old, made_of)):
        return value
    value = make()
    kept[key] = tuple(tensor.detach().clone() for tensor in made_of), value
    return value


def can_share(network: nn.Module) -> bool:
    """Whether the network's decoder is nnU-Net's, whose stages begin with a convolution of [up; skip]."""
    blocks = [stage.convs[0] if hasattr(stage, "convs") else None for stage in network.decoder.stages]
    known = all(isinstance(b, ConvDropoutNormReLU) and b.conv.groups == 1 and {*b.conv.stride, *b.conv.dilation} == {1}
                and all(size % 2 for size in b.conv.kernel_size) for b in blocks)
    return known and not network.training and not network.decoder.deep_supervision and not torch.is_grad_enabled()


def _layout(x: Tensor) -> torch.memory_format:
    return torch.channels_last_3d if x.ndim == 5 else torch.channels_last


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None, padding) -> Tensor:
    weight = weight.contiguous(memory_format=_layout(weight)) if x.device.type == "cpu" else weight
    run = F.conv3d if x.ndim == 5 else F.conv2d
    if len(x) == 1 and x.device.type == "cpu" and x.ndim == 5 and x[0, ..., 0].numel() <= NATIVE_LIMIT:
        return run(x.expand(2, *x.shape[1:]), weight, bias, 1, padding)[:1]
    return run(x, weight, bias, 1, padding)


def _rows(x: Tensor, layout: torch.memory_format) -> Tensor:
    """(N, values) of a tensor in this layout, a view if it is in it."""
    x = x.contiguous(memory_format=layout)
    return (x if layout == torch.contiguous_format else x.movedim(1, -1)).view(len(x), -1)


def _layout_of(x: Tensor) -> torch.memory_format:
    return torch.contiguous_format if x.is_contiguous() else _layout(x)


def _combined(factors: Tensor, maps: Tensor) -> Tensor:
    """(n, R) times (R, C, *spatial): (n, C, *spatial) in the layout of the maps."""
    layout = _layout_of(maps)
    out = maps.new_empty((len(factors), *maps.shape[1:])).contiguous(memory_format=layout)
    torch.mm(factors.to(maps.dtype), _rows(maps, layout), out=_rows(out, layout))
    return out


def _add_combined(target: Tensor, factors: Tensor, maps: Tensor) -> None:
    """Adds (n, R) times (R, C, *spatial) to the target (n, C, *spatial), in place."""
    if not (target.is_contiguous() or target.is_contiguous(memory_format=_layout(target))):
        target += _combined(factors, maps)  # a view of another layout cannot be written through rows
        return
    layout = _layout_of(target)
    _rows(target, layout).addmm_(factors.to(target.dtype), _rows(maps.to(target.dtype), layout))
