"""Which subset of its modalities a case is shown in training."""
from __future__ import annotations

import math

import torch
from torch import Tensor

from nnmiss.availability import all_subsets, draw_present
from nnmiss.errors import NnmissError

SAMPLINGS = ("counts", "subsets", "weakest")
MOST_MODALITIES = 10  # of which all subsets are listed
SHARPNESS = 2.0  # how strongly "weakest" prefers a subset whose loss is one above the others'
MEMORY = 0.95  # of the running mean of a subset's loss


class SubsetSampler:
    """Draws what each sample is shown, never nothing.

    - "counts": how many modalities is uniform, then which (MetaKD section 8: 0 to 3 of 4 are dropped).
    - "subsets": uniform over the subsets, so that what all subsets' mean Dice averages is what is trained.
    - "weakest": in proportion to exp(2 x running mean of the loss of the batches that showed the subset), so that
      subsets which are behind come more often. The means are renewed after each epoch; they are in the checkpoint.

    Args:
        sampling: one of SAMPLINGS.
        num_modalities: M.

    Raises:
        NnmissError: "subsets" or "weakest" of more than ten modalities, which would list thousands of subsets.
    """

    def __init__(self, sampling: str, num_modalities: int):
        if sampling != "counts" and num_modalities > MOST_MODALITIES:
            raise NnmissError(f"subset_sampling={sampling} lists all subsets, for at most {MOST_MODALITIES} modalities, "
                              f"but the data set has {num_modalities}: use subset_sampling=counts")
        self.sampling = sampling
        self.subsets = torch.tensor(all_subsets(num_modalities) if sampling != "counts" else [], dtype=torch.bool)
        self.loss = torch.full((len(self.subsets),), float("nan"))  # running mean; NaN: not seen yet
        self.seen: list[tuple[list[int], float]] = []  # this epoch's batches: the subsets that were shown, and the loss

    def draw(self, available: Tensor, generator: torch.Generator) -> Tensor:
        """(B, M) bool on the device of `available`, a non-empty subset of each of its rows."""
        if self.sampling == "counts":
            return draw_present(available, generator)
        have = available.cpu()
        possible = ~(self.subsets[None] & ~have[:, None]).any(2)  # (B, S)
        chosen = torch.multinomial(possible * self.shares(), 1, generator=generator)[:, 0]
        return self.subsets[chosen].to(available.device)

    def shares(self) -> Tensor:
        """(S,) float: how much likelier a subset is than others."""
        if self.sampling == "subsets" or self.loss.isnan().all():
            return torch.ones(len(self.subsets))
        known = self.loss[~self.loss.isnan()]
        loss = self.loss.nan_to_num(float(known.max()))  # what was never shown comes first
        return torch.exp(SHARPNESS * (loss - loss.max())).clamp_min(1e-3)

    def saw(self, present: Tensor, loss: float) -> None:
        """Keeps the loss of a batch for the subsets that were shown in it, until the epoch ends."""
        if self.sampling == "weakest" and math.isfinite(loss):
            shown = (self.subsets[None] == present.cpu()[:, None]).all(2).any(0)  # (S,)
            self.seen.append((shown.nonzero()[:, 0].tolist(), loss))

    def end_epoch(self, seen: list[tuple[list[int], float]]) -> None:
        """Takes the epoch's batches, of all training processes, into the running means."""
        for subsets, loss in seen:
            for subset in subsets:
                old = float(self.loss[subset])
                self.loss[subset] = loss if math.isnan(old) else MEMORY * old + (1 - MEMORY) * loss
        self.seen = []
