"""What every classification network offers: encode each modality, fuse a subset, decode; so that subsets share work."""
from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nnmiss.classification.sample_set import ModalityInput
from nnmiss.networks.base import item_index


class MissingModalityClassifier(nn.Module):
    """A network that is shown any non-empty subset of M modalities, each of its own kind and shape.

    Sub-classes write `encode_modality`, `fuse` and `decode`. A modality is encoded only for the rows that are shown it, so
    what stands in the others may be anything, NaN included. Packed items are in the order of
    `nnmiss.networks.base.item_index`, as in segmentation, so losses on features serve both.
    """

    def __init__(self, num_modalities: int, num_outputs: int):
        super().__init__()
        self.num_modalities, self.num_outputs = num_modalities, num_outputs

    def encode_modality(self, modality: int, shown: ModalityInput) -> Tensor:
        """Features (n, D) of the n rows that are shown this modality; D is the same for all modalities."""
        raise NotImplementedError

    def fuse(self, features: Tensor, index: Tensor, importance: Tensor | None = None) -> Tensor:
        """Combines the features of each sample's present modalities.

        Args:
            features: (P, D) as `encode` returns them.
            index: (B, M) long; which item is sample b's modality m, -1 where it is not shown. No empty row.
            importance: (M,) float or None; factor of each modality's features (MetaKD Eq. 4's w_i).

        Returns:
            (B, H).
        """
        raise NotImplementedError

    def decode(self, fused: Tensor) -> Tensor:
        """Logits (B, outputs)."""
        raise NotImplementedError

    def usable(self, shown: Tensor) -> Tensor:
        """Of subsets (..., M) bool, which this network can predict from: (...) bool. Any modality will do."""
        return shown.any(-1)

    def encode(self, x: list[ModalityInput], present: Tensor) -> Tensor:
        """Features of what is shown.

        Args:
            x: one input per modality, of B rows each.
            present: (B, M) bool.

        Returns:
            (P, D) packed, ordered by sample, then by modality.
        """
        return packed(x, present, self.encode_modality)

    def forward(self, x: list[ModalityInput], present: Tensor | None = None, importance: Tensor | None = None,
                return_features: bool = False, fewer: Tensor | None = None):
        """Logits of a batch in which every sample may be shown another subset.

        Args:
            x: M inputs of B rows.
            present: (B, M) bool with no empty row; None shows everything.
            importance: (M,) float or None, see `fuse`.
            return_features: also return the packed features of `encode`, in a list: the one "scale" of a classifier.
            fewer: (B, M) bool, non-empty subsets of `present`: also return the logits under these, from the same
                encoding.

        Returns:
            Logits (B, outputs); with `return_features` or `fewer` a tuple (logits, [logits under `fewer`], [features]).
        """
        if len(x) != self.num_modalities:
            raise ValueError(f"the network was built for {self.num_modalities} modalities, got {len(x)}")
        if present is None:
            present = torch.ones(len(x[0]), len(x), dtype=torch.bool, device=x[0].values.device)
        features, index = self.encode(x, present), item_index(present)
        logits = self.decode(self.fuse(features, index, importance))  # (B, outputs)
        more = []
        if fewer is not None:
            more.append(self.decode(self.fuse(features, torch.where(fewer, index, -1), importance)))
        more += [[features]] if return_features else []
        return (logits, *more) if more else logits

    def forward_subsets(self, x: list[ModalityInput], available: Tensor, subsets: Tensor) -> Tensor:
        """Logits of the same samples under several subsets; each modality is encoded once.

        Args:
            x: M inputs of B rows.
            available: (B, M) bool, what each sample has.
            subsets: (S, M) bool. A sample that lacks some of a subset is predicted with the rest of it.

        Returns:
            (S, B, outputs) float32, NaN where a sample has nothing of the subset that the network could use.
        """
        shown = available & subsets[:, None]  # (S, B, M)
        out = torch.full((*shown.shape[:2], self.num_outputs), torch.nan, device=available.device)
        needed = shown.any(0)  # (B, M)
        if not needed.any():
            return out
        features, index = self.encode(x, needed), item_index(needed)
        pairs = self.usable(shown).nonzero()  # (pairs, 2)
        picked = torch.where(shown[pairs[:, 0], pairs[:, 1]], index[pairs[:, 1]], -1)  # (pairs, M)
        if len(pairs):
            out[pairs[:, 0], pairs[:, 1]] = self.decode(self.fuse(features, picked)).float()
        return out


def packed(x: list[ModalityInput], present: Tensor, run: Callable[[int, ModalityInput], Tensor]) -> Tensor:
    """Runs each modality over the rows that are shown it: `run(modality, rows) -> (n, D)`, packed (P, D) as `encode`."""
    parts, order, index = [], [], item_index(present)
    for m, modality in enumerate(x):
        rows = present[:, m].nonzero()[:, 0]
        if len(rows):
            parts.append(run(m, modality if len(rows) == len(modality) else modality[rows]))
            order.append(index[rows, m])
    return torch.cat(parts)[torch.cat(order).argsort()]


def unpack(features: Tensor, index: Tensor) -> Tensor:
    """Packed features (P, D) in a table (B, M, D), zero where `index` (B, M) says -1."""
    return torch.where((index >= 0)[..., None], features[index.clamp_min(0)], 0)


def mix_probabilities(logits: Tensor, log_weights: Tensor, task: str) -> Tensor:
    """Logits of a mixture of probabilities, computed in logarithms so that nothing is cut off.

    Args:
        logits: (B, M, outputs) of M classifiers.
        log_weights: (B, M), logarithms of weights that sum to 1; -inf leaves one out.
        task: one of nnmiss.classification.tasks.TASKS.

    Returns:
        (B, outputs) float32, whose softmax (multiclass) or sigmoid is the mixture.
    """
    logits, log_weights = logits.float(), log_weights.float()[..., None]
    if task == "multiclass":
        return (log_weights + logits.log_softmax(-1)).logsumexp(1)
    return (log_weights + F.logsigmoid(logits)).logsumexp(1) - (log_weights + F.logsigmoid(-logits)).logsumexp(1)
