"""Draws tables of simulated missingness: which files of each training case training may use.

Every number is a hash of (protocol, seed, case, purpose), so a draw is the same on every machine and with every version of
every library, does not depend on the order of the cases, and is the same for a case whatever other cases there are.
A case keeps at least one of the files it has, and never gets one that it lacks.
"""
from __future__ import annotations

import math

import numpy as np
import pandas as pd

from nnmiss.availability import Present, match_modality
from nnmiss.errors import NnmissError
from nnmiss.seeding import derive_seed

Table = dict[str, Present]  # case -> one bool per modality, in channel order


def full_ratio(available: Table, ratio: float, seed: int) -> Table:
    """The full-modality ratio of the all-stage paper (section 4.2): few cases are complete, each other lacks 1 to M - 1.

    `complete_cases(ratio, len(available))` of the really complete cases stay so, chosen at random. Every other case
    keeps 1 to M - 1 modalities, the number uniform, then which; one that really lacks files keeps as many of its own, or
    all it has. With one seed, the complete cases of a smaller ratio are among those of a larger one, and cases that are
    incomplete under both lack the same.

    Args:
        available: the files there are; every case has at least one.
        ratio: wanted share of complete cases among all cases, 0 to 1.
        seed: another seed is another draw.

    Returns:
        What each case keeps.

    Raises:
        NnmissError: for another ratio, or when fewer cases are really complete.
    """
    if not 0 <= ratio <= 1:
        raise NnmissError(f"--ratio is the share of cases that stay complete, 0 to 1 (0.01 for 1 %), got {ratio:g}")
    complete = [case for case, row in available.items() if all(row)]
    wanted = complete_cases(ratio, len(available))
    if wanted > len(complete):
        raise NnmissError(f"--ratio {ratio:g} of {len(available)} training cases are {wanted} that stay complete, but "
                          f"only {len(complete)} have all files: give a smaller ratio (0 for no complete case)")
    stay = set(sorted(complete, key=lambda case: _uniform("full_ratio", seed, case, "complete"))[:wanted])
    return {case: row if case in stay else _keep_one_to_all_but_one(row, seed, case) for case, row in available.items()}


def complete_cases(ratio: float, num_cases: int) -> int:
    """`ratio` of the cases, to the nearest whole number, and at least 1 if the ratio is above 0: 2 for 1 % of 199."""
    return max(round(ratio * num_cases), int(ratio > 0))


def missing_rates(available: Table, rates: list[float], seed: int) -> Table:
    """Imbalanced missing rates, as PASSION calls them: each file is taken away with its modality's rate, independently.

    A case that would lose every file is drawn anew until something is left (PASSION's rule). So complete cases lose a
    modality with probability (rate - p) / (1 - p), p being the product of all rates: a little less than the rate where
    all rates are high. Files that really are absent come on top.

    Args:
        available: the files there are; every case has at least one.
        rates: per modality, probability that its file is taken away, 0 to below 1.
        seed: another seed is another draw.

    Raises:
        NnmissError: for other rates.
    """
    bad = [f"{rate:g}" for rate in rates if not 0 <= rate < 1]
    if bad:
        raise NnmissError(f"--rates are missing rates, from 0 (never taken away) to below 1, got {', '.join(bad)}")
    return {case: _keep_by_rates(row, rates, seed, case) for case, row in available.items()}


def brasyn(available: Table, seed: int) -> Table:
    """The rule of the BraTS synthesis challenge: each case lacks exactly one modality, any with the same probability.

    A case that really lacks one or more keeps all it has.
    """
    return {case: _keep_number(row, len(row) - 1, "brasyn", seed, case) for case, row in available.items()}


def check_every_modality_left(available: Table, kept: Table, modalities: list[str]) -> None:
    """Raises NnmissError, naming them, when no case keeps a modality that some case has: it could not be trained."""
    lost = np.any(list(available.values()), axis=0) & ~np.any(list(kept.values()), axis=0)  # (M,)
    if lost.any():
        names = ", ".join(name for name, gone in zip(modalities, lost) if gone)
        raise NnmissError(f"this draw takes {names} from every one of the {len(kept)} training cases, so it could not be "
                          "trained: give another --seed, or take less away")


def parse_rates(assignments: list[str], modalities: list[str]) -> list[float]:
    """['flair=0.8', 't1=0.5'] as one missing rate per modality; modalities that are not named get 0.

    Raises NnmissError for unknown modalities, ones named twice, and what is no number.
    """
    rates: dict[int, float] = {}
    for assignment in assignments:
        name, _, value = assignment.rpartition("=")
        if not name:
            raise NnmissError(f"--rates takes MODALITY=RATE, as {modalities[0]}=0.8, got {assignment!r}")
        channel = match_modality(name, modalities)
        if channel in rates:
            raise NnmissError(f"--rates names {modalities[channel]} twice")
        try:
            rates[channel] = float(value)
        except ValueError:
            raise NnmissError(f"--rates {assignment}: {value!r} is no number") from None
    return [rates.get(channel, 0.0) for channel in range(len(modalities))]


def table_text(kept: Table, modalities: list[str]) -> str:
    """The csv that nnmiss.availability.read_missing_table reads: case,<modality>,... with 1 for kept, sorted by case."""
    rows = [[case, *map(int, row)] for case, row in sorted(kept.items())]
    return pd.DataFrame(rows, columns=["case", *modalities]).to_csv(index=False, lineterminator="\n")


def summary_text(available: Table, kept: Table, modalities: list[str]) -> str:
    """What a draw came to, to be printed: complete cases, cases per number of modalities, missing rate per modality."""
    files, left = (np.array([table[case] for case in sorted(kept)]) for table in (available, kept))  # (cases, M)
    cases, width = len(left), max(map(len, [*modalities, "modality"]))
    complete = left.all(1)
    lines = [f"complete cases: {complete.sum()} of {cases} ({complete.mean():.1%}); {files.all(1).sum()} have all files",
             "cases by the number of modalities they keep:"]
    lines += [f"  {n:2d}: {count}" for n, count in enumerate(np.bincount(left.sum(1), minlength=left.shape[1] + 1)) if n]
    lines += [f"{'modality':{width}}  has a file  keeps it  missing rate"]
    lines += [f"{name:{width}}  {files[:, i].sum():10d}  {left[:, i].sum():8d}  {1 - left[:, i].mean():12.3f}"
              for i, name in enumerate(modalities)]
    return "\n".join(lines)


def _uniform(*parts: int | str) -> float:
    """A number in [0, 1) that depends on `parts` only; 53 bits, so that it is exact and never 1."""
    return (derive_seed("simulate_missing", *parts) >> 10) / 2**53


def _keep_number(row: Present, number: int, *parts: int | str) -> Present:
    """`number` of the files in `row`, drawn, or all of them when there are no more."""
    order = sorted(np.flatnonzero(row).tolist(), key=lambda channel: _uniform(*parts, "file", channel))
    return tuple(channel in order[:number] for channel in range(len(row)))


def _keep_one_to_all_but_one(row: Present, seed: int, case: str) -> Present:
    number = 1 + int(_uniform("full_ratio", seed, case, "number") * (len(row) - 1))  # 1..M-1
    return _keep_number(row, number, "full_ratio", seed, case)


def _keep_by_rates(row: Present, rates: list[float], seed: int, case: str) -> Present:
    files = np.flatnonzero(row).tolist()
    kept: set[int] = set()
    for position, channel in enumerate(files):
        keep = 1 - rates[channel]
        if not kept:  # given that one of the files from here on is kept: what drawing anew until one is comes to
            keep /= 1 - math.prod(rates[c] for c in files[position:])
        if _uniform("rates", seed, case, "file", channel) < keep:
            kept.add(channel)
    return tuple(channel in kept for channel in range(len(row)))
