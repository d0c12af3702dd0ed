"""Runs a function on every case, in processes or in place, and collects what failed by case name."""
from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

from nnmiss.errors import NnmissError
from nnmiss.interrupts import interrupts_ignored


@dataclass
class CaseResults:
    """What a function returned for the good cases, and why the bad ones failed."""

    done: dict[str, Any] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)


def usable_processes(asked: int, num_cases: int) -> int:
    """Processes worth starting: no more than asked for, cases or cores; 1 means in place, without a pool."""
    return max(1, min(asked, num_cases, os.cpu_count() or 1))


def run_on_cases(function: Callable, arguments: dict[str, tuple], num_processes: int, description: str,
                 show_progress_bar: bool = True, verbose: bool = False) -> CaseResults:
    """Calls function(*arguments[case]) for every case.

    With 0 or 1 processes everything runs in this process (a spawned one spends seconds on imports); else in spawned
    ones, for which `function` and its arguments must be picklable. Results and errors are in the order of `arguments`.

    Raises:
        NnmissError: a worker was killed (usually by the system, for want of memory).
        KeyboardInterrupt: Ctrl-C; workers are ended first.
    """
    collected = CaseResults()
    bar = tqdm(total=len(arguments), desc=description, disable=not show_progress_bar)
    with bar:
        if num_processes <= 1:
            for case, args in arguments.items():
                _collect(collected, case, lambda args=args: function(*args), verbose)
                bar.update()
        else:
            _run_in_pool(function, arguments, num_processes, collected, bar, verbose)
    return CaseResults({c: collected.done[c] for c in arguments if c in collected.done},
                       {c: collected.errors[c] for c in arguments if c in collected.errors})


def _collect(collected: CaseResults, case: str, get: Callable[[], Any], verbose: bool) -> None:
    try:
        collected.done[case] = get()
    except BrokenProcessPool:
        raise
    except NnmissError as error:
        collected.errors[case] = str(error)
    except Exception as error:  # one case must not take the others with it; its name and reason are reported
        if verbose:
            traceback.print_exc()
        collected.errors[case] = f"case {case}: {type(error).__name__}: {error}"


def _run_in_pool(function: Callable, arguments: dict[str, tuple], num_processes: int, collected: CaseResults,
                 bar: tqdm, verbose: bool) -> None:
    before = set(multiprocessing.active_children())
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(num_processes, mp_context=context, initializer=_begin_worker)
    try:
        with interrupts_ignored():  # workers start here and inherit it; until then Ctrl-C would print their traces
            futures = {pool.submit(function, *args): case for case, args in arguments.items()}
        for future in as_completed(futures):
            _collect(collected, futures[future], future.result, verbose)
            bar.update()
    except BrokenProcessPool:
        raise NnmissError("a worker process was killed, most likely because memory ran out: run again with fewer "
                          f"processes than {num_processes} (-np)") from None
    except BaseException:
        for process in set(multiprocessing.active_children()) - before:
            process.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin_worker() -> None:
    """A worker leaves Ctrl-C, which reaches the whole process group, to the main process, and ends when that was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)  # it would go on writing beside the next call's workers, and then wait for ever
