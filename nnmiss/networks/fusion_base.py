"""What all fusions have in common, and those that are linear in the features."""
from __future__ import annotations

import torch
from torch import Tensor, nn

from nnmiss.networks.weighted_sums import weighted_sums


class Fusion(nn.Module):
    """Base: fuses the present modalities' features of one scale.

    Args:
        num_modalities: M.
        channels: C.
        impute: whether Eq. 2 fills in missing features, where that makes a difference.
        weigh: whether importance weights count at this scale; None: where features are imputed, because there the features
            of Eq. 2 to 4 live.
    """

    def __init__(self, num_modalities: int, channels: int, impute: bool = True, weigh: bool | None = None):
        super().__init__()
        self.num_modalities = num_modalities
        self.channels = channels
        self.impute = impute
        self.weigh = impute if weigh is None else weigh

    def forward(self, features: Tensor, rows: list[list[int]], importance: Tensor | None = None) -> Tensor:
        """Fuses sample by sample, so that no batch of M times the channels ever exists.

        Args:
            features: (P, C, *spatial) of packed items.
            rows: B lists of M numbers: the item of each modality, -1 where it is not shown. Samples may share items.
            importance: (M,) float or None, factor of each modality's features, if weights count here.

        Returns:
            (B, C, *spatial).
        """
        return self.fused(features, rows, importance if self.weigh else None)

    def fused(self, features: Tensor, rows: list[list[int]], importance: Tensor | None) -> Tensor:
        """As `forward`, with an importance that does count here."""
        raise NotImplementedError


class FusionByMaps(Fusion):
    """A sum of the present modalities' features, each times a matrix or number that depends only on which are present.

    Being linear in the features, it can be shared between subsets (nnmiss.networks.shared_subsets).
    """

    def fused(self, features, rows, importance):
        """In the memory layout of the features."""
        maps = self.maps(shown_in(rows, features.device), importance)
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


def shown_in(rows: list[list[int]], device: torch.device) -> Tensor:
    """(B, M) bool: which modalities have an item."""
    return (torch.tensor(rows) >= 0).to(device, non_blocking=True)  # else the host would wait for the GPU


def mean_shares(shown: Tensor, importance: Tensor | None) -> Tensor:
    """(B, M) float: shares of the present modalities in their mean, in proportion to importance; 0 of absent ones."""
    factor = shown.float() if importance is None else importance.float() * shown
    return factor / factor.sum(1, keepdim=True).clamp_min(1e-6)
