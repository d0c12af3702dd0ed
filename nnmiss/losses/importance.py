"""MetaKD's importance weight vector: one learned number per modality, normalised (Eq. 6)."""
from __future__ import annotations

import torch
from torch import Tensor, nn

from nnmiss.errors import NnmissError, nearest_names

NORMALISATIONS = {
    "softmax": lambda raw: raw.softmax(0),
    "relu": lambda raw: raw.relu(),
    "sigmoid": lambda raw: raw.sigmoid(),
}
LARGEST_RATIO = 100.0


class ImportanceWeights(nn.Module):
    """The importance weight vector w of MetaKD (section 3.2).

    Args:
        num_modalities: M.
        normalisation: "softmax" (Eq. 6), or "relu", "sigmoid" (Table 6).
        generator: draws the start, uniform in [0, 1) as the official code does ("randomly initialised" in the paper).

    Raises:
        NnmissError: unknown normalisation.
    """

    def __init__(self, num_modalities: int, normalisation: str = "softmax", generator: torch.Generator | None = None):
        super().__init__()
        if normalisation not in NORMALISATIONS:
            raise NnmissError(f"normalisation {normalisation!r} is unknown. "
                              + nearest_names(normalisation, list(NORMALISATIONS)))
        self.normalisation = normalisation
        self.raw = nn.Parameter(torch.rand(num_modalities, generator=generator))  # (M,)

    def forward(self) -> Tensor:
        """Normalised w, (M,) float >= 0."""
        return NORMALISATIONS[self.normalisation](self.raw)

    def ratios(self) -> Tensor:
        """w_i / w_j as (M, M), without gradient; entry [i, j] weighs modality i teaching modality j.

        ReLU can give 0 and softmax nearly so: ratios are kept within [1/100, 100], and 0/0 counts as 1.
        """
        w = self().detach()
        teacher, student = w[:, None].clamp_min(1e-12), w[None, :].clamp_min(1e-12)
        return (teacher / student).clamp(1 / LARGEST_RATIO, LARGEST_RATIO)
