"""How the features of the present modalities of one scale become one feature map; chosen by name."""
from __future__ import annotations

import torch
from torch import Tensor, nn

from nnmiss.errors import NnmissError, nearest_names
from nnmiss.networks.fusion_base import Fusion, FusionByMaps, mean_shares
from nnmiss.networks.voxelwise_fusions import GatedFusion, MeanVarianceFusion


def imputing_shares(shown: Tensor) -> Tensor:
    """(B, M, M) float: how often a present modality's features stand for each modality, themselves and missing ones.

    Eq. 2 gives a missing modality the mean of the k present ones, so each of these stands for it 1 / k times.
    """
    shown = shown.float()
    return torch.eye(shown.shape[1], device=shown.device) + (1 - shown)[:, None] / shown.sum(1).view(-1, 1, 1)


class MeanFusion(FusionByMaps):
    """The mean over all modalities; imputing missing ones by the present ones' mean (Eq. 2) leaves it unchanged.

    With `importance` w the sum over modalities of w_i f_i, missing ones imputed, over the sum of w. The paper's
    concatenation has no such normalisation, but a mean without it would change its scale with w. Without `impute` both
    sums are over the present ones alone.
    """

    def maps(self, shown, importance):
        if importance is None:
            return shown / shown.sum(1, keepdim=True)  # (B, M)
        if not self.impute:
            return mean_shares(shown, importance)
        factor = (imputing_shares(shown) * importance.float()).sum(2) * shown
        return factor / factor.sum(1, keepdim=True).clamp_min(1e-6)


class LinearFusions(FusionByMaps):
    """What `concat` and `linear` share: one linear map C -> C per modality.

    The maps start as identity / M, so that training starts from the mean of the modalities.
    """

    def __init__(self, num_modalities: int, channels: int, impute: bool = True, weigh: bool | None = None):
        super().__init__(num_modalities, channels, impute, weigh)
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
    Without `impute` a missing modality contributes nothing, so at the start k present ones give k / M times their mean;
    `linear` is the same sum with that factor taken out. (The official code does not impute skips either, but feeds the
    encoder's answer to an all-zero image; we never encode what is not there.)
    """

    def maps(self, shown, importance):
        if not self.impute:
            weight = self.weight if importance is None else self.weight * importance.view(-1, 1, 1)
            return weight.expand(len(shown), -1, -1, -1)
        return self.mixed(imputing_shares(shown), importance)


class LinearFusion(LinearFusions):
    """M / k times the sum over the k present modalities of one linear map each: no imputation, scale kept.

    Linear in the features with factors that do not mix modalities, so what follows can be shared between subsets.
    """

    def maps(self, shown, importance):
        scale = self.num_modalities / shown.sum(1)  # (B,)
        weight = self.weight if importance is None else self.weight * importance.view(-1, 1, 1)
        return weight * scale.view(-1, 1, 1, 1)


class ConditionalFusion(LinearFusions):
    """As `linear`, but a modality's map also depends on what is missing: W_m + sum of V_mn over the missing n.

    Eq. 2 does this with V_mn = W_n / k, tied to the maps themselves; here V is learned and starts at 0. One network of
    all subsets then has weights of its own for each pair (seen, missing), at the cost of `linear`: what a modality says
    may count for more, or for another region, when the one that says it better is not there.
    """

    def __init__(self, num_modalities: int, channels: int, impute: bool = True, weigh: bool | None = None):
        super().__init__(num_modalities, channels, impute, weigh)
        self.without = nn.Parameter(torch.zeros(num_modalities, num_modalities, channels, channels))  # V (M, M, C, C)

    def maps(self, shown, importance):
        missing = (~shown).to(self.without.dtype)  # (B, M)
        weight = self.weight + torch.einsum("bn,mnoc->bmoc", missing, self.without)  # (B, M, C, C)
        weight = weight if importance is None else weight * importance.view(-1, 1, 1)
        return weight * (self.num_modalities / shown.sum(1)).view(-1, 1, 1, 1)


FUSIONS = {"concat": ConcatFusion, "mean": MeanFusion, "linear": LinearFusion, "conditional": ConditionalFusion,
           "gated": GatedFusion, "mean_variance": MeanVarianceFusion}


def fusion_class(name: str) -> type[Fusion]:
    """The fusion of this name. Raises NnmissError with the known names."""
    if name not in FUSIONS:
        raise NnmissError(f"fusion {name!r} is unknown. {nearest_names(name, list(FUSIONS))}")
    return FUSIONS[name]
