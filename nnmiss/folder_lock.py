"""One process at a time in a folder: a second one is told which process works there and on which machine."""
from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from nnmiss.atomic_files import is_running, writable_folder
from nnmiss.errors import NnmissError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

NAME = ".in_use"
SECONDS_TO_SHARE = 2.0  # who signs a shared lock, or leaves it, has it alone for a moment
_ours: dict[str, int] = {}  # lock file -> process; a forked child has its parent's entries, but not its locks


@contextmanager
def only_one(folder: str | os.PathLike, doing: str, shared: str | None = None) -> Iterator[None]:
    """While open, no other process can open the same; the process itself may, in an inner block.

    The system frees the lock when the process ends, however it ends, so none is ever stale; where a file system has no
    locks, the process that the file names is looked for instead (on the same machine; another machine's is passed over).

    Args:
        folder: made if it is not there; it holds the file ".in_use" meanwhile.
        doing: what this process does there, for the others' message, such as "preprocesses Dataset801_Tiny".
        shared: processes with an equal one may work there together.

    Raises:
        NnmissError: another process is at work there.
    """
    path = writable_folder(folder) / NAME
    key = str(path.resolve())
    if _ours.get(key) == os.getpid():
        yield
        return
    descriptor, alone = _take(path, shared)
    if descriptor is None:
        raise NnmissError(f"{folder}: {_holder(path)}: wait for it, stop it, or work in another folder. If it is no more, "
                          f"as after a crash of its machine, remove {path}")
    _ours[key] = os.getpid()
    try:
        if alone:
            _sign(descriptor, doing, shared)
        yield
    finally:
        del _ours[key]
        _leave(path, descriptor, shared)


def _take(path: Path, shared: str | None) -> tuple[int | None, bool]:
    """(the open file, locked; whether nobody else has it). None when it is to be had neither alone nor together."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        with suppress(OSError):  # whoever may write to the folder must be able to take it over from a killed process
            os.chmod(path, 0o666)
        got = _lock(descriptor, path, shared)
        if got is None:
            os.close(descriptor)
            return None, False
        with suppress(FileNotFoundError):  # else the one before removed it between opening and locking
            if os.fstat(descriptor).st_ino == os.stat(path).st_ino:
                return descriptor, got
        os.close(descriptor)


def _lock(descriptor: int, path: Path, shared: str | None) -> bool | None:
    """True for a lock of our own, False for a shared one, None for none."""
    deadline = time.monotonic() + (0 if shared is None else SECONDS_TO_SHARE)
    while True:
        try:
            if fcntl is None:
                raise OSError
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not inherited by forked processes, as flock is
            return True
        except (BlockingIOError, PermissionError):
            content = _content(path)
        except OSError:  # no locks here
            content = _content(path)
            process = content.get("process")
            there = content.get("host") == socket.gethostname() and type(process) is int and 0 < process != os.getpid()
            same = shared is not None and content.get("shared") == shared
            return None if there and not same and is_running(process) else True
        if shared is not None and content.get("shared") == shared:
            with suppress(OSError):
                fcntl.lockf(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return False
        elif content:
            return None
        if time.monotonic() >= deadline:
            return None
        time.sleep(0.05)


def _sign(descriptor: int, doing: str, shared: str | None) -> None:
    """Writes who has the lock, and lets others share it."""
    content = {"process": os.getpid(), "host": socket.gethostname(), "doing": doing, "shared": shared,
               "since": datetime.now().isoformat(" ", "seconds")}
    with suppress(OSError):  # a full disk must not stop what may mend it
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, json.dumps(content).encode())  # Windows has no pwrite
    if shared is not None and fcntl is not None:
        with suppress(OSError):
            fcntl.lockf(descriptor, fcntl.LOCK_SH)


def _leave(path: Path, descriptor: int, shared: str | None) -> None:
    """Removes the file, unless others share it, and frees it."""
    if fcntl is None:  # Windows removes no open file
        os.close(descriptor)
        with suppress(OSError):
            path.unlink(missing_ok=True)
        return
    try:
        if shared is not None:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)
    except OSError:
        pass
    finally:
        os.close(descriptor)


def _content(path: Path) -> dict:
    """What stands in the file; {} for nothing. Not for one that this process has locked: closing it would free the lock."""
    with suppress(OSError, ValueError):
        content = json.loads(path.read_text(encoding="utf-8"))
        return content if isinstance(content, dict) else {}
    return {}


def _holder(path: Path) -> str:
    known = _content(path)
    if not known:
        return "another process works here"
    return f"process {known.get('process')} on {known.get('host')} {known.get('doing')}, since {known.get('since')}"
