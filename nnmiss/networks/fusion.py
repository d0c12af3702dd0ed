"""How the features of the present modalities of one scale become one feature map; chosen by name."""
from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nnmiss.errors import NnmissError, nearest_names


class Fusion(nn.Module):
    """Base: fuses one scale. `impute` says whether Eq. 2 fills in missing features where that makes a difference."""

    def __init__(self, num_modalities: int, channels: int, impute: bool = True):
        super().__init__()
        self.num_modalities = num_modalities
        self.channels = channels
        self.impute = impute

    def forward(self, features: Tensor, rows: list[list[int]], importance: Tensor | None = None) -> Tensor:
        """Fuses sample by sample, so that no batch of M times the channels ever exists.

        Args:
            features: (P, C, *spatial) of packed items.
            rows: B lists of M numbers: the item of each modality, -1 where it is not shown.
            importance: (M,) float or None, factor of each modality's features; only where features are imputed, because
                there the features of Eq. 2 to 4 live.

        Returns:
            (B, C, *spatial).
        """
        importance = importance if self.impute else None
        samples = []
        for row in rows:
            shown, absent = ([m for m, item in enumerate(row) if (item >= 0) == here] for here in (True, False))
            samples.append(self.fuse_sample(_pick(features, [row[m] for m in shown]), shown, absent, importance))
        return torch.stack(samples)

    def fuse_sample(self, items: Tensor, shown: list[int], absent: list[int], importance: Tensor | None) -> Tensor:
        """One sample: items (k, C, *spatial) of the k modalities `shown` -> (C, *spatial); `absent` are the others."""
        raise NotImplementedError


def _pick(features: Tensor, items: list[int]) -> Tensor:
    """features[items]; neighbours, as in training, come as a view, so that no second copy of the features exists."""
    if items == list(range(items[0], items[0] + len(items))):
        return features[items[0] : items[-1] + 1]
    return features[items]


class MeanFusion(Fusion):
    """The mean over all modalities; imputing missing ones by the present ones' mean (Eq. 2) leaves it unchanged.

    With `importance` w the sum over modalities of w_i f_i, missing ones imputed, over the sum of w. The paper's
    concatenation has no such normalisation, but a mean without it would change its scale with w.
    """

    def fuse_sample(self, items, shown, absent, importance):
        if importance is None:
            return items.mean(0)  # (C, ...)
        factor = importance[shown] + importance[absent].sum() / len(items)  # (k,)
        factor = factor / factor.sum().clamp_min(1e-6)
        return torch.tensordot(factor.to(items.dtype), items, 1)  # (C, ...)


class LinearFusions(Fusion):
    """What `concat` and `linear` share: one linear map C -> C per modality.

    The maps start as identity / M, so that training starts from the mean of the modalities.
    """

    def __init__(self, num_modalities: int, channels: int, impute: bool = True):
        super().__init__(num_modalities, channels, impute)
        self.weight = nn.Parameter(torch.eye(channels).repeat(num_modalities, 1, 1) / num_modalities)  # (M, C, C)
        self.bias = nn.Parameter(torch.zeros(channels))  # (C,)

    def maps(self, shown: list[int], absent: list[int], importance: Tensor | None) -> Tensor:
        """(k, C, C): the linear map of each present modality of one sample."""
        raise NotImplementedError

    def fuse_sample(self, items, shown, absent, importance):
        maps = self.maps(shown, absent, importance)  # (k, C, C)
        kernel = maps.transpose(0, 1).reshape(self.channels, -1)  # (C, k*C)
        kernel = kernel.reshape(*kernel.shape, *[1] * (items.ndim - 2))  # (C, k*C, 1, ...)
        convolve = F.conv3d if items.ndim == 5 else F.conv2d
        return convolve(items.flatten(0, 1)[None], kernel, self.bias)[0]  # (C, ...)


class ConcatFusion(LinearFusions):
    """Concatenation of all M features, then a 1x1x1 convolution (MetaKD Eq. 3; LCKD's and MetaKD's official code).

    A 1x1x1 convolution of a concatenation is a sum of one linear map W_m per modality. A missing modality's feature
    is the mean of the k present ones (Eq. 2), so its map is shared among them: W_m becomes W_m + sum(W_missing) / k.
    Without `impute` a missing modality contributes nothing. (The official code does not impute skips either, but
    feeds the encoder's answer to an all-zero image; we never encode what is not there.)
    """

    def maps(self, shown, absent, importance):
        weight = self.weight if importance is None else self.weight * importance.view(-1, 1, 1)
        if not self.impute:
            return weight[shown]
        return weight[shown] + weight[absent].sum(0) / len(shown)


class LinearFusion(LinearFusions):
    """M / k times the sum over the k present modalities of one linear map each: no imputation, scale kept.

    Linear in the features with factors that do not mix modalities, so what follows can be shared between subsets.
    """

    def maps(self, shown, absent, importance):
        weight = self.weight if importance is None else self.weight * importance.view(-1, 1, 1)
        return weight[shown] * (self.num_modalities / len(shown))


FUSIONS = {"concat": ConcatFusion, "mean": MeanFusion, "linear": LinearFusion}


def fusion_class(name: str) -> type[Fusion]:
    """The fusion of this name. Raises NnmissError with the known names."""
    if name not in FUSIONS:
        raise NnmissError(f"fusion {name!r} is unknown. {nearest_names(name, list(FUSIONS))}")
    return FUSIONS[name]
