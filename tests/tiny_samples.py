"""Preprocessed samples made in memory: any task, any kinds of modalities, classes that can be told apart."""
from __future__ import annotations

import torch

from nnmiss.classification.sample_set import SampleSet, StoredModality

SHAPES = {"image": (1, 28, 28), "sound": (1, 20, 20), "series": (None, 5), "table": (7,), "volume": (1, 12, 12, 12)}


def tiny_samples(modalities=("image", "table"), n: int = 24, task: str = "multiclass", classes: int = 3, seed: int = 0,
                 absent: float = 0.0) -> SampleSet:
    """`n` samples; every modality shows the class as a shift of its mean.

    modalities: names; the part before "_" is one of SHAPES, so "table_b" is a second table. absent: rate of missing
    modalities; every sample keeps at least one.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes  # (N,)
    keep = torch.rand(n, len(modalities), generator=generator) >= absent
    keep[torch.arange(n), torch.arange(n) % len(modalities)] = True
    stored = {}
    for m, name in enumerate(modalities):
        shape, owners = SHAPES[name.partition("_")[0]], keep[:, m].nonzero()[:, 0].tolist()
        values = [torch.randn(*[int(torch.randint(1, 9, (), generator=generator)) if s is None else s for s in shape],
                              generator=generator) + labels[i] for i in owners]
        row = torch.full((n,), -1)
        row[owners] = torch.arange(len(owners))
        stored[name] = StoredModality(values if None in shape else torch.stack(values), row)
    targets = {"multiclass": labels, "binary": (labels > 0).float()[:, None],
               "multilabel": torch.nn.functional.one_hot(labels, classes).float()}[task]
    return SampleSet([f"s{i:03d}" for i in range(n)], [f"p{i // 2:03d}" for i in range(n)], targets, stored)
