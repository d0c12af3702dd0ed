"""Threads that work through any number of items without all of them being begun at once."""
from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")


def in_threads(work: Callable, items: Iterable[Item], num_threads: int) -> Iterator[tuple[Item, Future]]:
    """Yields (item, its finished or running future) in the order of `items`.

    At most `num_threads` + 1 items are taken and not yet yielded. Closing the iterator (`contextlib.closing`) cancels what
    has not begun and waits for the rest.
    """
    pool, waiting = ThreadPoolExecutor(num_threads), deque()
    try:
        for item in items:
            waiting.append((item, pool.submit(work, item)))
            if len(waiting) > num_threads:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
