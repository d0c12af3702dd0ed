"""Random orders and shares that are the same on every machine and with every version of every library."""
from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from nnmiss.errors import NnmissError
from nnmiss.seeding import derive_seed

Item = TypeVar("Item")


def check_share(share: float, flag: str) -> None:
    """Raises NnmissError, naming the flag, unless a share is from 0 to below 1."""
    if not 0 <= share < 1:
        raise NnmissError(f"{flag} {share:g}: expected a share from 0 to below 1, such as 0.1")


def shuffled(items: Iterable[Item], *purpose: int | str) -> list[Item]:
    """`items` (text, integers or tuples of them, all different) in an order drawn by `purpose`, such as (data set, seed).

    Each item's place is a hash of the purpose and the item: it does not depend on the order in which they come, and two
    items keep their order when others join or leave.
    """
    return sorted(items, key=lambda item: derive_seed(
        "shuffled", *purpose, *(item if isinstance(item, tuple) else (item,))))
