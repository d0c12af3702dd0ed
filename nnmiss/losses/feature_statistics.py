"""What shows whether distillation works or collapses: statistics of features, computed without gradient."""
from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor


@torch.no_grad()
def collapse_statistics(features: Tensor, index: Tensor) -> dict[str, float]:
    """How much features differ between cases and between modalities.

    L1 distillation can pull all features to one input-independent pattern while their size stays the same; then
    `std_between_cases` falls towards 0.

    Args:
        features: (P, C, *spatial) packed features.
        index: (B, M) long, item of each sample's modality, -1 where absent.

    Returns:
        "std_between_cases": standard deviation over the samples that have a modality, averaged over elements and
        modalities; "difference_between_modalities": mean |f_i - f_j| over pairs within a sample. NaN where no
        modality is shared by two samples, or no sample has two modalities.
    """
    columns = [index[:, m][index[:, m] >= 0] for m in range(index.shape[1])]
    between_cases = [features[items].float().std(0).mean() for items in columns if len(items) > 1]
    pairs = [(features[row[i]].float() - features[row[j]].float()).abs().mean()
             for row in index.tolist() for i, j in combinations(range(len(row)), 2) if row[i] >= 0 and row[j] >= 0]
    return {"std_between_cases": _mean(between_cases), "difference_between_modalities": _mean(pairs)}


@torch.no_grad()
def generation_statistics(features: Tensor, index: Tensor) -> dict[int, tuple[float, float]]:
    """How near Eq. 2's generated features come to the true ones (MetaKD Fig. 5).

    Args:
        features: (P, C, *spatial) packed features of everything the samples have.
        index: (B, M) long.

    Returns:
        Modality -> (mean L1 distance, mean cosine similarity) between its true feature and the mean of the others'
        features of the same sample, over the samples that have it and at least one other.
    """
    result: dict[int, tuple[float, float]] = {}
    for m in range(index.shape[1]):
        distances, cosines = [], []
        for row in index.tolist():
            others = [item for k, item in enumerate(row) if k != m and item >= 0]
            if row[m] < 0 or not others:
                continue
            true, generated = features[row[m]].float(), features[others].float().mean(0)
            distances.append((true - generated).abs().mean())
            cosines.append(torch.cosine_similarity(true.flatten(), generated.flatten(), dim=0))
        if distances:
            result[m] = (_mean(distances), _mean(cosines))
    return result


def _mean(values: list[Tensor]) -> float:
    return float(torch.stack(values).mean()) if values else float("nan")
