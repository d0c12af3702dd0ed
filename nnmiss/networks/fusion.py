"""How the features of the present modalities of one scale become one feature map; chosen by name."""
from __future__ import annotations

import torch
from torch import Tensor, nn

from nnmiss.errors import NnmissError, nearest_names
from nnmiss.networks.weighted_sums import weighted_sums


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
            (B, C, *spatial), in the memory layout of the features.
        """
        # without non_blocking the host would wait for the GPU
        shown = (torch.tensor(rows) >= 0).to(features.device, non_blocking=True)  # (B, M)
        maps = self.maps(shown, importance if self.impute else None)
        return weighted_sums(features, maps, rows, getattr(self, "bias", None))

    def maps(self, shown: Tensor, importance: Tensor | None) -> Tensor:
        """What each present modality's features are multiplied by; entries of absent ones do not matter.

        Args:
            shown: (B, M) bool.
            importance: (M,) float or None.

        Returns:
            (B, M, C, C) or (B, M) float.
        """
        raise NotImplementedError


def imputing_shares(shown: Tensor) -> Tensor:
    """(B, M, M) float: how often a present modality's features stand for each modality, themselves and missing ones.

    Eq. 2 gives a missing modality the mean of the k present ones, so each of these stands for it 1 / k times.
    """
    shown = shown.float()
    return torch.eye(shown.shape[1], device=shown.device) + (1 - shown)[:, None] / shown.sum(1).view(-1, 1, 1)


class MeanFusion(Fusion):
    """The mean over all modalities; imputing missing ones by the present ones' mean (Eq. 2) leaves it unchanged.

    With `importance` w the sum over modalities of w_i f_i, missing ones imputed, over the sum of w. The paper's
    concatenation has no such normalisation, but a mean without it would change its scale with w.
    """

    def maps(self, shown, importance):
        if importance is None:
            return shown / shown.sum(1, keepdim=True)  # (B, M)
        factor = (imputing_shares(shown) * importance.float()).sum(2) * shown
        return factor / factor.sum(1, keepdim=True).clamp_min(1e-6)


class LinearFusions(Fusion):
    """What `concat` and `linear` share: one linear map C -> C per modality.

    The maps start as identity / M, so that training starts from the mean of the modalities.
    """

    def __init__(self, num_modalities: int, channels: int, impute: bool = True):
        super().__init__(num_modalities, channels, impute)
        self.weight = nn.Parameter(torch.eye(channels).repeat(num_modalities, 1, 1) / num_modalities)  # (M, C, C)
        self.bias = nn.Parameter(torch.zeros(channels))  # (C,)

    def mixed(self, shares: Tensor, importance: Tensor | None) -> Tensor:
        """(B, M, C, C): for each (sample, modality) the sum of the modalities' maps, weighted by `shares` (B, M, M)."""
        if importance is not None:
            shares = shares * importance
        return torch.einsum("bmn,noc->bmoc", shares, self.weight)


class ConcatFusion(LinearFusions):
    """Concatenation of all M features, then a 1x1x1 convolution (MetaKD Eq. 3; LCKD's and MetaKD's official code).

    A 1x1x1 convolution of a concatenation is a sum of one linear map W_m per modality. A missing modality's feature
    is the mean of the k present ones (Eq. 2), so its map is shared among them: W_m becomes W_m + sum(W_missing) / k.
    Without `impute` a missing modality contributes nothing. (The official code does not impute skips either, but
    feeds the encoder's answer to an all-zero image; we never encode what is not there.)
    """

    def maps(self, shown, importance):
        if not self.impute:
            return self.weight.expand(len(shown), -1, -1, -1)
        return self.mixed(imputing_shares(shown), importance)


class LinearFusion(LinearFusions):
    """M / k times the sum over the k present modalities of one linear map each: no imputation, scale kept.

    Linear in the features with factors that do not mix modalities, so what follows can be shared between subsets.
    """

    def maps(self, shown, importance):
        scale = self.num_modalities / shown.sum(1)  # (B,)
        weight = self.weight if importance is None else self.weight * importance.view(-1, 1, 1)
        return weight * scale.view(-1, 1, 1, 1)


FUSIONS = {"concat": ConcatFusion, "mean": MeanFusion, "linear": LinearFusion}


def fusion_class(name: str) -> type[Fusion]:
    """The fusion of this name. Raises NnmissError with the known names."""
    if name not in FUSIONS:
        raise NnmissError(f"fusion {name!r} is unknown. {nearest_names(name, list(FUSIONS))}")
    return FUSIONS[name]
