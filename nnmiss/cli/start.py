"""Where the installed commands begin: Ctrl-C is answered from the first moment, before torch is imported, to the last."""
from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module

from nnmiss.errors import answer_sigterm


def start(name: str) -> None:
    """Imports nnmiss.cli.<name>, which takes seconds, and runs its command. Exits as `nnmiss.errors.command` says."""
    answer_sigterm()
    # torch then asks Linux for large pages: the pages of big tensors cost a quarter of the time (read once, at its start)
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    try:
        main = import_module(f"nnmiss.cli.{name}").main
    except KeyboardInterrupt:
        print("\ninterrupted before anything was done", file=sys.stderr)
        sys.exit(130)
    try:
        main()
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is done or told; Python's own end is no place for a traceback


def __getattr__(name: str) -> Callable[[], None]:
    """`convert_dataset` and so on: what the entry points of setup.py name."""
    if name.startswith("_"):
        raise AttributeError(name)
    return partial(start, name)
