"""Against unequal classes: weights of the loss, weights of a sampler, and SMOTE for tables."""
from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from nnmiss.classification.sample_set import SampleSet, StoredModality
from nnmiss.errors import NnmissError
from nnmiss.seeding import derive_seed

NEIGHBOURS = 5  # of SMOTE, as published; fewer where a class is smaller


def class_weights(task: str, targets: Tensor, classes: list[str]) -> Tensor | None:
    """Weights for `TaskLoss` that make classes count alike; None when no target is known.

    Args:
        task, targets: as nnmiss.classification.sample_set has them, of the training samples alone.
        classes: names; their number is the length of the result.

    Returns:
        (classes,) float. Multiclass and binary: n / (classes present * count), 1 for a class without samples. Multilabel:
        negatives / positives of each label, by which its positives count; 1 for a label of one value only.
    """
    if task == "multilabel":
        positive, negative = (targets == 1).sum(0).double(), (targets == 0).sum(0).double()
        if not (positive + negative).any():
            return None
        return torch.where((positive > 0) & (negative > 0), negative / positive.clamp_min(1), 1.0).float()
    labels = class_of(task, targets)
    counts = torch.bincount(labels[labels >= 0], minlength=len(classes)).double()
    if not counts.any():
        return None
    return torch.where(counts > 0, counts.sum() / ((counts > 0).sum() * counts.clamp_min(1)), 1.0).float()


def sample_weights(task: str, targets: Tensor, classes: list[str]) -> Tensor:
    """How often to draw each sample, (n,) double: 1 / size of its class; 0 without a known label.

    Multilabel: the mean over its known labels of 1 / how many samples have the same value of that label. Arguments as of
    `class_weights`.
    """
    if task != "multilabel":
        labels = class_of(task, targets)
        counts = torch.bincount(labels[labels >= 0], minlength=len(classes)).double()
        return torch.where(labels >= 0, 1 / counts.clamp_min(1)[labels.clamp_min(0)], 0.0)
    known = ~targets.isnan()
    counts = torch.stack([(targets == value).sum(0) for value in (0, 1)]).double()  # (2, L)
    weights = torch.where(targets == 1, 1 / counts[1].clamp_min(1), 1 / counts[0].clamp_min(1))
    return torch.where(known, weights, 0).sum(1) / known.sum(1).clamp_min(1)


def class_of(task: str, targets: Tensor) -> Tensor:
    """(n,) long class of each sample of a multiclass or binary task, -1 where unlabelled."""
    if task == "multiclass":
        return targets
    return torch.where(targets[:, 0].isnan(), -1.0, targets[:, 0]).long()


def smote(samples: SampleSet, rows: Tensor, seed: int) -> tuple[SampleSet, Tensor]:
    """Made-up training samples between real ones of the same class, until all classes have as many as the largest.

    They lie between neighbours that have the same modalities, so a made-up sample has them too; a class's new samples are
    spread over its combinations of modalities as its real ones are. Features of two values among the training samples (the
    columns of a category) are rounded to one of them, so that a category stays one category.

    Args:
        samples: of a multiclass or binary task; every modality must be a vector of features (rank 1).
        rows: (n,) long, the training samples. Nothing else is looked at.
        seed: of the draws.

    Returns:
        (samples with the made-up ones behind, `rows` with theirs behind). A combination in which a class has one sample
        gets no new ones; where a class has no other combination it stays smaller.

    Raises NnmissError for multilabel targets, other kinds of modalities, and when imbalanced-learn is not installed.
    """
    _check_smote(samples)
    has = samples.available[rows]  # (n, M)
    labels = class_of("multiclass" if samples.targets.ndim == 1 else "binary", samples.targets[rows])
    counts = torch.bincount(labels[labels >= 0])
    two_valued = [_two_values(stored.values[stored.row[rows[has[:, m]]]])
                  for m, stored in enumerate(samples.modalities.values())]
    new_targets, new_values = [], [[] for _ in samples.modalities]  # per modality: a vector or None for each new sample
    for label in range(len(counts)):
        for pattern, members, wanted in _shares(labels == label, has, int(counts.max() - counts[label])):
            draws = derive_seed(seed, "smote", label, *pattern)
            made = _between(samples, rows[members], pattern, wanted, draws, two_valued)
            new_targets += [samples.targets[rows[members[0]]]] * wanted
            for m, vectors in enumerate(new_values):
                vectors.extend(made[m] if m in made else [None] * wanted)
    return _extended(samples, rows, new_targets, new_values)


def _check_smote(samples: SampleSet) -> None:
    if samples.targets.ndim == 2 and samples.targets.shape[1] > 1:
        raise NnmissError("SMOTE needs one class per sample, this task is multilabel: use class_balance=weights or sampler")
    others = [name for name, shape in samples.shapes.items() if len(shape) != 1 or shape[0] is None]
    if others:
        raise NnmissError(f"SMOTE interpolates vectors of features (tables, flat arrays), not {', '.join(others)}: "
                          "use class_balance=weights or sampler")
    try:
        import imblearn  # noqa: F401
    except ImportError as error:
        raise NnmissError(f'SMOTE needs imbalanced-learn ({error}): pip install "nnmiss[smote]"') from None


def _shares(of_class: Tensor, has: Tensor, lacking: int) -> list[tuple[tuple[bool, ...], Tensor, int]]:
    """(combination of modalities, positions of the class's samples with it, new ones to make), by largest remainder."""
    patterns: dict[tuple[bool, ...], list[int]] = {}
    for i in of_class.nonzero()[:, 0].tolist():
        patterns.setdefault(tuple(has[i].tolist()), []).append(i)
    groups = [(pattern, members) for pattern, members in sorted(patterns.items()) if len(members) > 1 and any(pattern)]
    total = sum(len(members) for _, members in groups)
    if not total or not lacking:
        return []
    ends = np.round(np.cumsum([len(members) for _, members in groups]) * lacking / total).astype(int)
    return [(pattern, torch.tensor(members), int(wanted)) for (pattern, members), wanted in
            zip(groups, np.diff(ends, prepend=0)) if wanted]


def _between(samples: SampleSet, members: Tensor, pattern: tuple[bool, ...], wanted: int, seed: int,
             two_valued: list[tuple[Tensor, Tensor, Tensor]]) -> dict[int, list[Tensor]]:
    """Modality -> `wanted` new vectors between these samples, which all have the modalities of `pattern`."""
    from imblearn.over_sampling import SMOTE

    shown = [(m, stored) for m, stored in enumerate(samples.modalities.values()) if pattern[m]]
    parts = [stored.values[stored.row[members]] for _, stored in shown]
    table = torch.cat(parts, 1).double().numpy()
    # imbalanced-learn wants two classes; only the neighbours within the one that grows play a part
    table, classes = np.concatenate([table, table[:1]]), np.append(np.ones(len(members), int), 0)
    sampler = SMOTE(sampling_strategy={1: len(members) + wanted}, k_neighbors=min(NEIGHBOURS, len(members) - 1),
                    random_state=seed % 2**32)
    made = torch.from_numpy(sampler.fit_resample(table, classes)[0][len(table):]).float()
    out = {}
    for (m, _), part in zip(shown, made.split([part.shape[1] for part in parts], 1)):
        chosen, low, high = two_valued[m]
        out[m] = list(torch.where(chosen, torch.where(part > (low + high) / 2, high, low), part))
    return out


def _two_values(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """((F,) bool: the column of (n, F) has at most two values, (F,) the smaller, (F,) the larger)."""
    if not len(values):
        nothing = torch.zeros(values.shape[1])
        return nothing.bool(), nothing, nothing
    low, high = values.amin(0), values.amax(0)
    return ((values == low) | (values == high)).all(0), low, high


def _extended(samples: SampleSet, rows: Tensor, targets: list[Tensor], values: list[list[Tensor | None]]) -> \
        tuple[SampleSet, Tensor]:
    """The samples with the new ones behind them, under names that are not taken."""
    if not targets:
        return samples, rows
    prefix = "smote"
    while any(name.startswith(f"{prefix}-") for name in (*samples.ids, *samples.groups)):
        prefix += "_"
    names = [f"{prefix}-{i:05d}" for i in range(len(targets))]
    modalities = {}
    for (name, stored), vectors in zip(samples.modalities.items(), values):
        present = torch.tensor([vector is not None for vector in vectors])
        place = torch.where(present, len(stored.values) + present.cumsum(0) - 1, -1)
        new = [vector for vector in vectors if vector is not None]
        modalities[name] = StoredModality(torch.cat([stored.values, torch.stack(new)]) if new else stored.values,
                                          torch.cat([stored.row, place]))
    grown = replace(samples, ids=samples.ids + names, groups=samples.groups + names,
                    targets=torch.cat([samples.targets, torch.stack(targets)]), modalities=modalities)
    return grown, torch.cat([rows, torch.arange(len(samples), len(grown))])
