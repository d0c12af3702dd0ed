"""Which channel files the training cases of a phantom data set lack: drawn, or as asked for."""
from __future__ import annotations

import numpy as np

from nnmiss.availability import match_modality
from nnmiss.errors import NnmissError, nearest_names
from nnmiss.seeding import derive_seed


def draw_missing(rate: float, training: list[str], names: tuple[str, ...], seed: int) -> dict[str, list[str]]:
    """Training case -> modality names without a file, for a fraction `rate` of the cases (1 to M - 1 names each).

    Below a rate of 1 at least one case stays complete. Every modality is left to some case. Deterministic in its
    arguments. Raises NnmissError for a rate outside 0..1.
    """
    if not 0 <= rate <= 1:
        raise NnmissError(f"the missing rate must be from 0 to 1, got {rate}")
    rng = np.random.default_rng(derive_seed("phantom", seed, "missing", rate))
    count = round(rate * len(training))
    if rate < 1 or len(training) == 1:
        count = min(count, len(training) - 1)
    dropped: dict[str, list[str]] = {}
    for i in rng.permutation(len(training))[:count]:
        lost = rng.permutation(len(names))[: rng.integers(1, len(names))]
        dropped[training[i]] = [names[k] for k in sorted(lost)]
    # With no complete case a modality could be nowhere; then cases give their drawn losses back, another one instead.
    for name in names:
        if all(name in dropped.get(case, ()) for case in training):
            case = max(dropped, key=lambda c: len(dropped[c]))
            dropped[case] = [n for n in dropped[case] if n != name] or [names[(names.index(name) + 1) % len(names)]]
    return dropped


def checked_missing(missing: dict[str, list[str]], training: list[str], names: tuple[str, ...]) -> dict[str, list[str]]:
    """`missing` with names as in the data set. Raises NnmissError for unknown ones or a case that keeps nothing."""
    dropped = {}
    for case, lost in missing.items():
        if case not in training:
            raise NnmissError(f"missing: case {case!r} is not a training case. {nearest_names(case, training)}")
        dropped[case] = [names[match_modality(m, list(names))] for m in lost]
        if len(set(dropped[case])) == len(names):
            raise NnmissError(f"missing: case {case} would keep no file at all: leave it at least one modality")
    for name in names:
        if all(name in dropped.get(case, ()) for case in training):
            raise NnmissError(f"missing: no training case would have modality {name}: leave it to at least one")
    return dropped
