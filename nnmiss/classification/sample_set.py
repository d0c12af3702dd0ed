"""Preprocessed samples in memory, and batches of them in which every modality has its own shape."""
from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class ModalityInput:
    """One modality of a batch.

    values: (B, *shape) float32; rows of samples that lack it hold anything. Series: (B, T, F), padded with zeros to the
        longest of the batch.
    lengths: (B,) long steps of each series (at least 1), or None for modalities of a fixed shape.
    """

    values: Tensor
    lengths: Tensor | None = None

    def __getitem__(self, rows: Tensor) -> ModalityInput:
        """Some rows, by a bool or long tensor (or slice)."""
        return ModalityInput(self.values[rows], None if self.lengths is None else self.lengths[rows])

    def __len__(self) -> int:
        return len(self.values)

    def to(self, device: torch.device | str) -> ModalityInput:
        """On a device."""
        return ModalityInput(self.values.to(device), None if self.lengths is None else self.lengths.to(device))


@dataclass(frozen=True)
class StoredModality:
    """One modality of all samples that have it.

    values: (n, *shape) float32 tensor, or a list of n series (T_i, F).
    row: (N,) long: where sample s lies in `values`, -1 where it lacks the modality.
    """

    values: Tensor | list[Tensor]
    row: Tensor

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Shape of one sample; the length of series is None."""
        if isinstance(self.values, Tensor):
            return tuple(self.values.shape[1:])
        return (None, self.values[0].shape[1]) if self.values else (None, 0)

    def take(self, samples: Tensor) -> ModalityInput:
        """The input of these samples (B,) long; zeros, of one step for series, where they lack it."""
        where = self.row[samples].tolist()
        if isinstance(self.values, Tensor):
            picked = self.values[self.row[samples].clamp_min(0)] if len(self.values) else \
                torch.zeros(len(where), *self.shape)
            absent = torch.tensor([w < 0 for w in where]).view(-1, *[1] * (picked.ndim - 1))
            return ModalityInput(torch.where(absent, 0.0, picked))
        features = self.shape[1]
        series = [self.values[w] if w >= 0 else torch.zeros(1, features) for w in where]
        return ModalityInput(torch.nn.utils.rnn.pad_sequence(series, batch_first=True),
                             torch.tensor([len(s) for s in series]))


@dataclass(frozen=True)
class SampleSet:
    """N preprocessed samples.

    ids: names, unique. groups: subject of each, which splits never cross.
    targets: multiclass (N,) long, -1 unlabelled; binary (N, 1) and multilabel (N, L) float 0/1, NaN unlabelled.
    modalities: name -> StoredModality, in channel order.
    """

    ids: list[str]
    groups: list[str]
    targets: Tensor
    modalities: dict[str, StoredModality]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def available(self) -> Tensor:
        """(N, M) bool: what each sample has."""
        return torch.stack([stored.row >= 0 for stored in self.modalities.values()], 1)

    @property
    def shapes(self) -> dict[str, tuple[int | None, ...]]:
        """Modality -> shape of one sample, from which networks are built."""
        return {name: stored.shape for name, stored in self.modalities.items()}

    def rows(self, ids: list[str]) -> Tensor:
        """Positions of these ids, (B,) long. Raises KeyError for an unknown one."""
        position = {name: i for i, name in enumerate(self.ids)}
        return torch.tensor([position[name] for name in ids], dtype=torch.long)

    def inputs(self, samples: Tensor) -> list[ModalityInput]:
        """One input per modality, in channel order, of these samples (B,) long."""
        return [stored.take(samples) for stored in self.modalities.values()]

    def with_modality(self, name: str, stored: StoredModality) -> SampleSet:
        """The same samples with one modality replaced."""
        return replace(self, modalities={**self.modalities, name: stored})
