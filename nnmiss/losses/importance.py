"""MetaKD's importance weight vector: one number per modality, learned (Eq. 6) or from scores of held-out cases."""
from __future__ import annotations

import torch
from torch import Tensor, nn

from nnmiss.errors import NnmissError, nearest_names

NORMALISATIONS = {
    "softmax": lambda raw: raw.softmax(0),
    "relu": lambda raw: raw.relu(),
    "sigmoid": lambda raw: raw.sigmoid(),
}
WEIGHTINGS = ("bilevel", "averaged", "forward", "leave_one_out", "equal")
LARGEST_RATIO = 100.0
MEMORY = 0.5  # how much of the scores before an update stays in the mean: the network gets better all the time


class Ratios(nn.Module):
    """What every kind of importance weights offers: w itself, w of regions, and their ratios.

    Args:
        largest_ratio: ratios are kept within [1 / this, this].
    """

    def __init__(self, largest_ratio: float = LARGEST_RATIO):
        super().__init__()
        self.largest_ratio = largest_ratio

    def forward(self) -> Tensor:
        """w, (M,) float >= 0."""
        raise NotImplementedError

    def table(self) -> Tensor:
        """w of every region, (K, M) float >= 0; K = 1 without regions."""
        return self()[None]

    def ratios(self) -> Tensor:
        """w_i / w_j as (M, M), without gradient; entry [i, j] weighs modality i teaching modality j.

        ReLU can give 0 and softmax nearly so: ratios are clamped, and 0/0 counts as 1.
        """
        return self._within(self().detach()[None])[0]

    def region_ratios(self) -> Tensor:
        """`ratios` of every region, (K, M, M)."""
        return self._within(self.table().detach())

    def set_ratios(self, more: Tensor, fewer: Tensor) -> Tensor:
        """w of a set over w of another, where a set has the mean w of its modalities; without gradient.

        The w_i / w_j of two sets: above 1 where the larger set has what counts and the smaller does not.

        Args:
            more, fewer: (n, M) bool with no empty row.

        Returns:
            (n, K) float, within the limits of the ratios.
        """
        w = self.table().detach().T.clamp_min(1e-12)  # (M, K)
        of_more, of_fewer = ((s[..., None] * w).sum(1) / s.sum(1, keepdim=True) for s in (more, fewer))
        return (of_more / of_fewer).clamp(1 / self.largest_ratio, self.largest_ratio)

    def _within(self, w: Tensor) -> Tensor:
        """(K, M, M) of (K, M)."""
        teacher, student = w[:, :, None].clamp_min(1e-12), w[:, None].clamp_min(1e-12)
        return (teacher / student).clamp(1 / self.largest_ratio, self.largest_ratio)


class ImportanceWeights(Ratios):
    """The importance weight vector w of MetaKD (section 3.2), which a gradient moves.

    Args:
        num_modalities: M.
        normalisation: "softmax" (Eq. 6), or "relu", "sigmoid" (Table 6).
        generator: draws the start, uniform in [0, 1) as the official code does ("randomly initialised" in the paper).
        mean_one: w starts equal and is kept at a mean of 1, so that weighted features keep their size.
        largest_ratio: see Ratios.

    Raises:
        NnmissError: unknown normalisation.
    """

    def __init__(self, num_modalities: int, normalisation: str = "softmax", generator: torch.Generator | None = None,
                 mean_one: bool = False, largest_ratio: float = LARGEST_RATIO):
        super().__init__(largest_ratio)
        if normalisation not in NORMALISATIONS:
            raise NnmissError(f"normalisation {normalisation!r} is unknown. "
                              + nearest_names(normalisation, list(NORMALISATIONS)))
        self.normalisation, self.mean_one = normalisation, mean_one
        start = torch.ones(num_modalities) if mean_one else torch.rand(num_modalities, generator=generator)
        self.raw = nn.Parameter(start)  # (M,)

    def forward(self) -> Tensor:
        """Normalised w, (M,) float >= 0."""
        w = NORMALISATIONS[self.normalisation](self.raw)
        return w / w.mean().clamp_min(1e-6) if self.mean_one else w


class ScoredImportance(Ratios):
    """w from what each modality is worth on held-out cases, without a gradient; 1 for all before the first update.

    w = softmax(score / temperature), times M, so that its mean is 1; temperature 0: w in proportion to the score.

    Args:
        num_modalities: M.
        num_regions: K vectors, one per region; 1: one for all.
        temperature, largest_ratio: see above, and Ratios.
    """

    def __init__(self, num_modalities: int, num_regions: int = 1, temperature: float = 0.25,
                 largest_ratio: float = LARGEST_RATIO):
        super().__init__(largest_ratio)
        self.temperature = temperature
        self.register_buffer("scores", torch.zeros(num_regions, num_modalities))
        self.register_buffer("updates", torch.zeros(num_regions, num_modalities, dtype=torch.long))

    def update(self, scores: Tensor) -> None:
        """Takes scores (K, M) float into the moving mean; NaN where nothing is known, which leaves it as it is."""
        scores = scores.to(self.scores)
        known = ~scores.isnan()
        mixed = torch.where(self.updates > 0, MEMORY * self.scores + (1 - MEMORY) * scores, scores)
        self.scores.copy_(torch.where(known, mixed, self.scores))
        self.updates += known

    def table(self) -> Tensor:
        """(K, M), mean 1 in every region; a modality of which nothing is known has the mean score of the others."""
        known = self.updates > 0
        mean = torch.where(known, self.scores, 0).sum(1, keepdim=True) / known.sum(1, keepdim=True).clamp_min(1)
        scores = torch.where(known, self.scores, mean)
        if self.temperature > 0:
            w = (scores / self.temperature).softmax(1)
        else:
            w = scores.clamp_min(0) + 1e-6
        return w / w.mean(1, keepdim=True)

    def forward(self) -> Tensor:
        """(M,), the mean over regions."""
        return self.table().mean(0)
