"""Terms that keep distilled features from collapsing, and where the foreground is, for distilling there alone."""
from __future__ import annotations

import torch
from torch import Tensor

GUARDS = ("none", "variance", "between_cases", "foreground")
LEAST_SHARE = 0.5  # of a channel's spread that is between cases; without distillation the prototype's was 0.65


def variance_hinge(features: Tensor) -> Tensor:
    """Mean over channels of relu(1 - standard deviation over items and voxels) (VICReg, Bardes et al. 2022, Eq. 1).

    Args:
        features: (n, C, *spatial); n = 0 gives 0.
    """
    if not len(features):
        return features.float().sum()
    return (1 - (_variance(features.float()) + 1e-4).sqrt()).relu().mean()


def between_cases_hinge(features: Tensor, index: Tensor) -> Tensor:
    """Mean over channels of relu(1/2 - share of the standard deviation that is between the cases of a batch).

    L1 distillation collapses features to one pattern in space that no longer depends on the case. Instance norm keeps the
    deviation over space, so `variance_hinge` does not see that; this does.

    Args:
        features: (P, C, *spatial) packed features.
        index: (B, M) long, item of each sample's modality, -1 where absent. A modality that a single sample is shown
            says nothing; without any other the result is 0.
    """
    hinges = []
    for items in (column[column >= 0].tolist() for column in index.T):
        if len(items) > 1:
            maps = features[items].float()  # (n, C, *spatial)
            between = (_mean((maps - maps.mean(0)).square()) + 1e-6).sqrt()  # (C,)
            whole = (_variance(maps.detach()) + 1e-6).sqrt()
            hinges.append((LEAST_SHARE - between / whole).relu().mean())
    return torch.stack(hinges).mean() if hinges else features[:0].float().sum()


def _mean(maps: Tensor) -> Tensor:
    """(C,), over items and voxels."""
    return maps.mean((0, *range(2, maps.ndim)))


def _variance(maps: Tensor) -> Tensor:
    """(C,), over items and voxels; torch's own takes longer on the CPU."""
    centre = _mean(maps).view(-1, *[1] * (maps.ndim - 2))
    return _mean((maps - centre).square())


def region_truth(target: Tensor | list[Tensor], labels) -> Tensor:
    """Where every region or foreground label is: (B, K, *patch) bool, in the order of the network's outputs.

    Args:
        target: as nnU-Net's loss takes it; of several scales the finest counts.
        labels: nnU-Net's LabelManager.
    """
    finest = target[0] if isinstance(target, list) else target
    if labels.has_regions:
        return finest[:, : len(labels.foreground_regions)] > 0
    return torch.cat([finest == value for value in labels.foreground_labels], 1)


def counted_voxels(target: Tensor | list[Tensor], labels) -> Tensor | None:
    """(B, *patch) bool, voxels without the ignore label; None where there is no such label. Args as `region_truth`."""
    if not labels.has_ignore_label:
        return None
    finest = target[0] if isinstance(target, list) else target
    return finest[:, -1] == 0 if labels.has_regions else finest[:, 0] != labels.ignore_label
