"""Runs a function in a forked child that SIGKILL ends at a chosen event: a file operation, a piece of a file, a step."""
from __future__ import annotations

import mmap
import os
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from nnmiss.inference import checkpoints
from nnmiss.trainers.base import MissingModalityTrainer

FILE_EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link")


@dataclass
class Ended:
    """How a child ended: exit code (-9 killed, 1 an exception), how many events there were, what it printed."""

    code: int
    events: int
    printed: str


def in_child(function: Callable[[], object], root: Path, kill_at: int | None = None) -> Ended:
    """Calls `function` in a forked child (no start-up, no imports) and waits for it.

    Events, counted from 1: each opening, renaming, removal below `root` before it takes place, each piece that is written
    into a checkpoint, each training and validation step. At number `kill_at` the child ends at once.
    """
    counter = mmap.mmap(-1, 8)
    log = root / f"child_{len(list(root.glob('child_*')))}.txt"
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with open(log, "w") as out:
                os.dup2(out.fileno(), 1)
                os.dup2(out.fileno(), 2)
                sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
                _watch(counter, str(root), kill_at)
                code = function() or 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return Ended(os.waitstatus_to_exitcode(status), int.from_bytes(counter[:8], "little"), log.read_text())


def _watch(counter: mmap.mmap, root: str, kill_at: int | None) -> None:
    def event() -> None:
        number = int.from_bytes(counter[:8], "little") + 1
        counter[:8] = number.to_bytes(8, "little")
        if number == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(name: str, arguments: tuple) -> None:
        if name in FILE_EVENTS and isinstance(arguments[0], str | os.PathLike) and str(arguments[0]).startswith(root):
            event()

    class Pieces:
        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.file.close()

        def write(self, data):
            event()
            count = self.file.write(data)
            self.file.flush()
            return count

        def __getattr__(self, name):
            return getattr(self.file, name)

    checkpoints.open = lambda *arguments: Pieces(open(*arguments))  # noqa: SIM115
    for step in ("optimizer_step", "validation_step", "before_iteration"):
        _counted(MissingModalityTrainer, step, event)
    sys.addaudithook(hook)


def _counted(cls: type, name: str, event: Callable[[], None]) -> None:
    inner = getattr(cls, name)

    def outer(self, *arguments):
        event()
        return inner(self, *arguments)

    setattr(cls, name, outer)


def differences(one, other, where: str = "") -> list[str]:
    """Where two checkpoints' values are not the same to the last bit; NaN equals NaN."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        same = one.dtype == other.dtype and torch.equal(one.nan_to_num(1.25e30), other.nan_to_num(1.25e30))
        return [] if same else [where]
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return [line for key in one for line in differences(one[key], other[key], f"{where}/{key}")]
    if isinstance(one, list | tuple) and type(one) is type(other) and len(one) == len(other):
        return [line for i, pair in enumerate(zip(one, other)) for line in differences(*pair, f"{where}/{i}")]
    return [] if one == other or (one != one and other != other) else [f"{where}: {str(one)[:300]} != {str(other)[:300]}"]
