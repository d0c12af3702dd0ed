"""Fusions that look at the features of each voxel: a gate over the modalities, and their mean and variance."""
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nnmiss.networks.fusion_base import Fusion, mean_shares, shown_in
from nnmiss.networks.weighted_sums import weighted_sums

LARGEST_IN_HALF = 150.0  # deviation from the mean: its square, times k / (k - 1), must stay below float16's 65504


class GatedFusion(Fusion):
    """At each voxel a weighted sum of linear maps of the present modalities, with weights that the features choose.

    fused = sum_m g_m W_m f_m + bias, where g is the softmax over the present modalities of a score a_m f_m + c_m, a 1x1x1
    convolution of the modality's own features. Scores start at 0 and W_m as identity: training starts from the mean.

    No feature is generated for a missing modality: it takes no part in the softmax, so Eq. 2 (`impute`) changes nothing.
    Importance w multiplies the weights before they are normalised, w_m exp(score_m): as in the mean, which is the start,
    the scale of the sum does not change with w.
    """

    def __init__(self, num_modalities: int, channels: int, impute: bool = True, weigh: bool | None = None):
        super().__init__(num_modalities, channels, impute, weigh)
        self.weight = nn.Parameter(torch.eye(channels).repeat(num_modalities, 1, 1))  # (M, C, C)
        self.bias = nn.Parameter(torch.zeros(channels))  # (C,)
        self.gate_weight = nn.Parameter(torch.zeros(num_modalities, channels))  # a
        self.gate_bias = nn.Parameter(torch.zeros(num_modalities))  # c

    def fused(self, features, rows, importance):
        scores, mapped = self._score_and_map(features, rows)
        log_w = None if importance is None else importance.float().clamp_min(1e-6).log()  # (M,)
        fused = []
        for row in rows:
            shown = [(m, item) for m, item in enumerate(row) if item >= 0]
            score = torch.stack([scores[item] if log_w is None else scores[item] + log_w[m] for m, item in shown])  # (k, V)
            gates = score.softmax(0).to(features.dtype).unbind()
            total = weighted_sum(gates, [mapped[item] for _, item in shown])  # (C, V)
            fused.append(total + self.bias.to(total.dtype)[:, None])
        return torch.stack(fused).view(-1, *features.shape[1:])

    def _score_and_map(self, features: Tensor, rows: list[list[int]]) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
        """Item -> its score (V,) at every voxel, and item -> its mapped features (C, V); both in one product."""
        kernel = torch.cat([self.weight, self.gate_weight[:, None]], 1).unbind()  # M of (C + 1, C)
        modality = {item: m for row in rows for m, item in enumerate(row) if item >= 0}
        items = features.unbind()  # whose gradients are put together without zeros in between
        both = {item: kernel[m] @ items[item].flatten(1) for item, m in modality.items()}  # (C + 1, V)
        scores = {item: out[-1] + self.gate_bias[modality[item]] for item, out in both.items()}
        return scores, {item: out[:-1] for item, out in both.items()}


class MeanVarianceFusion(Fusion):
    """HeMIS (Havaei et al. 2016): mean and variance over the present modalities, then a 1x1x1 convolution 2C -> C.

    The variance is that of a sample, over k - 1, and 0 for a single modality. The convolution starts as identity on the
    mean and 0 on the variance. It need not know which modality is which, as nothing here depends on it.

    Only present modalities count: Eq. 2 (`impute`) would leave the mean and shrink the variance, and changes nothing here.
    Importance w weighs both: mean sum w f / sum w, variance sum w (f - mean)^2 / sum w times k / (k - 1). In float16
    deviations count at most LARGEST_IN_HALF, which normalised features reach where few voxels of an image stand out.
    """

    def __init__(self, num_modalities: int, channels: int, impute: bool = True, weigh: bool | None = None):
        super().__init__(num_modalities, channels, impute, weigh)
        self.weight = nn.Parameter(torch.cat([torch.eye(channels), torch.zeros(channels, channels)], 1))  # (C, 2C)
        self.bias = nn.Parameter(torch.zeros(channels))  # (C,)

    def fused(self, features, rows, importance):
        shares = mean_shares(shown_in(rows, features.device), importance).to(features.dtype)  # (B, M)
        means = weighted_sums(features, shares, rows).flatten(2).unbind()  # B of (C, V)
        items, fused = features.flatten(2).unbind(), []  # P of (C, V)
        of_mean, of_variance = self.weight.chunk(2, 1)
        for row, share, mean in zip(rows, shares.unbind(), means):
            shown = [(m, item) for m, item in enumerate(row) if item >= 0]
            out = of_mean @ mean + self.bias[:, None]
            if len(shown) > 1:
                deviations = [items[item] - mean for _, item in shown]
                if features.dtype == torch.float16:
                    deviations = [d.clamp(-LARGEST_IN_HALF, LARGEST_IN_HALF) for d in deviations]
                squares = [d.square() for d in deviations]
                unbiased = len(shown) / (len(shown) - 1)
                out = out + of_variance @ weighted_sum([share[m] * unbiased for m, _ in shown], squares)
            fused.append(out.to(features.dtype))
        return torch.stack(fused).view(-1, *features.shape[1:])


def weighted_sum(weights: Sequence[Tensor], values: Sequence[Tensor]) -> Tensor:
    """The sum of values, (C, V) each, times weights, () or (V,) each; of the values' type."""
    total = weights[0] * values[0]
    for weight, value in zip(weights[1:], values[1:]):
        total.addcmul_(weight, value)
    return total
