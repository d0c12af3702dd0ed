"""Checks of one modality's entry in dataset.json: known keys, types and ranges, each error naming the key."""
from __future__ import annotations

from typing import Any

from nnmiss.errors import NnmissError, nearest_names


def check_keys(spec: dict, allowed: tuple[str, ...], where: str) -> dict:
    """A copy of `spec`. Raises NnmissError when it is no object or has a key that is not `allowed`."""
    if not isinstance(spec, dict):
        raise NnmissError(f"{where}: expected an object such as {{\"type\": \"image2d\"}}, got {spec!r}")
    for key in spec:
        if key not in allowed:
            raise NnmissError(f"{where}: unknown key {key!r}. {nearest_names(str(key), allowed)}")
    return dict(spec)


def one_of(spec: dict, key: str, choices: tuple[Any, ...], where: str) -> Any:
    """`spec[key]`, by default the first choice. Raises NnmissError for anything else."""
    value = spec.get(key, choices[0])
    if value not in choices:
        raise NnmissError(f"{where}: {key!r} is {value!r}, expected one of {', '.join(map(repr, choices))}")
    return value


def whole_number(spec: dict, key: str, default: int | None, where: str, at_least: int = 1) -> int | None:
    """`spec[key]` as an integer not below `at_least`; None only where that is the default. Raises NnmissError."""
    value = spec.get(key, default)
    if value is None and default is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
        raise NnmissError(f"{where}: {key!r} is {value!r}, expected a whole number of at least {at_least}")
    return value


def positive(spec: dict, key: str, default: float | None, where: str) -> float | None:
    """`spec[key]` as a number above 0; None only where that is the default. Raises NnmissError."""
    value = spec.get(key, default)
    if value is None and default is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise NnmissError(f"{where}: {key!r} is {value!r}, expected a number above 0")
    return value


def true_or_false(spec: dict, key: str, default: bool, where: str) -> bool:
    """`spec[key]` as a bool. Raises NnmissError."""
    value = spec.get(key, default)
    if not isinstance(value, bool):
        raise NnmissError(f"{where}: {key!r} is {value!r}, expected true or false")
    return value


def sizes(spec: dict, key: str, rank: int | tuple[int, ...], where: str) -> list[int] | None:
    """`spec[key]` as a list of as many positive whole numbers as `rank` (or one of them) says; None where absent."""
    value, ranks = spec.get(key), (rank,) if isinstance(rank, int) else rank
    if value is None:
        return None
    if not isinstance(value, list) or len(value) not in ranks or \
            any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in value):
        raise NnmissError(f"{where}: {key!r} is {value!r}, expected a list of {' or '.join(map(str, ranks))} "
                          "whole numbers above 0")
    return value
