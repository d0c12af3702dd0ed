"""Ctrl-C in programs with worker processes: it reaches them all, and only the main process should answer it."""
from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def interrupts_ignored() -> Iterator[None]:
    """While open, this process and those it starts ignore Ctrl-C; afterwards only the started ones do.

    Does nothing outside the main thread, where Python allows no change of handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
