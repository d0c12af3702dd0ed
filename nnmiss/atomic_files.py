"""Files that are either whole or not there: written beside their place, then moved into it."""
from __future__ import annotations

import errno
import json
import os
import re
import shutil
import socket
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from nnmiss.errors import DiskFullError, NnmissError

MAX_JSON_MB = 64  # of a JSON file that is read; plans and descriptions have some kilobytes
LARGE_JSON_MB = 1024  # of those that have an entry for each sample or each of a million features
MAX_JSON_DEPTH = 100
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the last: a limit on the size of files
MAY_BE_ASKED, ACCESS_DENIED, STILL_ACTIVE = 0x1000, 5, 259  # PROCESS_QUERY_LIMITED_INFORMATION and two answers of Windows
TEMPORARY = re.compile(r"\..+\.(\d+)-([0-9a-f]{8})\.tmp.*")


def _writer() -> str:
    """This process in the name of a temporary file: its id, and eight digits for the host."""
    return f"{os.getpid()}-{zlib.crc32(socket.gethostname().encode()):08x}"


def temporary_name(name: str) -> str:
    """What a temporary file or folder for `name` is called, so that `remove_leftovers` knows it."""
    return f".{name}.{_writer()}.tmp"


@contextmanager
def replacing(path: str | os.PathLike, ending: str | None = None) -> Iterator[Path]:
    """Yields a temporary path in the folder of `path`; on success it replaces `path`, on any error it is removed.

    `ending` is what the temporary name must end with for writers that choose the format by it (default: the
    suffixes of `path`). The name starts with a dot, so that no listing of cases picks it up; what a killed process left is
    removed by `remove_leftovers`.

    Raises DiskFullError, an OSError that names `path`, where there is no room for it.
    """
    path = Path(path)
    ending = "".join(path.suffixes) if ending is None else ending
    temporary = path.parent / f"{temporary_name(path.name[: len(path.name) - len(ending)])}{ending}"
    with naming_full_disk(path):
        try:
            yield temporary
            with open(temporary, "rb") as written:  # on the disk before the name is: a power cut leaves old or new
                os.fsync(written.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def replacing_together(folder: str | os.PathLike, last: str, stale: tuple[str, ...] = ()) -> Iterator[Path]:
    """Yields a hidden folder; on success what was written there replaces what is in `folder`, on any error nothing does.

    Args:
        folder: made if it is not there.
        last: name of the file whose presence says that all are there: the old one goes first, the new one comes last.
        stale: names of old files that go too, where there are no new ones.
    """
    folder = Path(folder)
    hidden = folder / temporary_name(last)
    with naming_full_disk(folder / last):
        try:
            hidden.mkdir(parents=True, exist_ok=True)
            yield hidden
            for name in (last, *stale):
                (folder / name).unlink(missing_ok=True)
            for file in sorted((f for f in hidden.rglob("*") if f.is_file()), key=lambda f: f == hidden / last):
                target = folder / file.relative_to(hidden)
                target.parent.mkdir(exist_ok=True)
                os.replace(file, target)
        finally:
            shutil.rmtree(hidden, ignore_errors=True)


@contextmanager
def naming_full_disk(path: str | os.PathLike) -> Iterator[None]:
    """While open, errors that come of a full disk become a DiskFullError that names `path`."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise DiskFullError(error.errno, os.strerror(error.errno), str(path)) from error
    except (RuntimeError, ValueError) as error:  # libraries in C++ hide what the system said
        if _free_bytes(path) >= 1 << 16:
            raise
        raise DiskFullError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error


def _free_bytes(path: str | os.PathLike) -> float:
    try:
        return shutil.disk_usage(Path(path).parent).free
    except OSError:
        return float("inf")


def remove_leftovers(folder: str | os.PathLike, nobody_writes: bool = False) -> None:
    """Removes temporary files and folders in `folder` whose process on this machine has ended, such as by SIGKILL.

    `nobody_writes`: all of them, also other machines'; for a folder that is locked (nnmiss.folder_lock).
    """
    host = _writer().partition("-")[2]
    for file in Path(folder).glob(".*"):
        match = TEMPORARY.fullmatch(file.name)
        if match and (nobody_writes or (match[2] == host and not is_running(int(match[1])))):
            with suppress(OSError):
                shutil.rmtree(file) if file.is_dir() else file.unlink()


def is_running(process: int) -> bool:
    """Whether this machine has a process of this id."""
    if os.name == "nt":
        return _is_running_on_windows(process)
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):  # the second: no process has so large an id
        return False
    except OSError:  # another user's
        return True
    return True


def _is_running_on_windows(process: int) -> bool:
    """By its handle: there os.kill ends a process, whatever the signal."""
    import ctypes

    system = ctypes.windll.kernel32
    handle = system.OpenProcess(MAY_BE_ASKED, False, ctypes.c_ulong(process))
    if not handle:
        return system.GetLastError() == ACCESS_DENIED  # another user's
    code = ctypes.c_ulong()
    try:
        return not system.GetExitCodeProcess(handle, ctypes.byref(code)) or code.value == STILL_ACTIVE
    finally:
        system.CloseHandle(handle)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes `text` (UTF-8) to `path` atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike, content: Any) -> None:
    """Writes `content` to `path` as indented JSON, atomically. Raises TypeError for what JSON cannot hold."""
    write_text(path, json.dumps(content, indent=4) + "\n")


def read_json(path: str | os.PathLike, what: str = "file", keys: tuple[str, ...] | None = None,
              max_mb: int = MAX_JSON_MB) -> Any:
    """Reads JSON; `what` names the file's role in errors.

    Raises NnmissError when it is absent, not JSON, nested too deep, larger than `max_mb` (it takes ten times its size
    in memory) or, with `keys`, not an object that has all of them.
    """
    try:
        text = read_at_most(path, max_mb << 20)
        if text is None:
            raise NnmissError(f"{what} {path} is larger than {max_mb} MB: it is no such file, make it again")
    except FileNotFoundError:
        raise NnmissError(f"{what} not found: {path}") from None
    except ValueError as error:  # a NUL in the name
        raise NnmissError(f"{what} {str(path)!r} cannot be read ({error})") from None
    return parse_json(text, f"{what} {path}", keys)


def read_at_most(path: str | os.PathLike, most: int) -> bytes | None:
    """The bytes of a file; None when there are more than `most`, of which no more are read."""
    content = bytearray()
    with open(path, "rb") as file:
        while block := file.read(1 << 16):  # asked for more at once, Python takes memory for all of it
            content += block
            if len(content) > most:
                return None
    return bytes(content)


def parse_json(text: bytes, where: str, keys: tuple[str, ...] | None = None) -> Any:
    """The content of JSON text; `where` begins errors. Raises NnmissError as `read_json`, but for the size."""
    try:
        content = json.loads(text.decode("utf-8"))
        if _is_deep(content):
            raise RecursionError(f"nested more than {MAX_JSON_DEPTH} deep")
    except (ValueError, RecursionError) as error:  # the first also of numbers with thousands of digits
        raise NnmissError(f"{where} is not valid JSON ({error}): repair it or make it again") from None
    if keys is not None and (not isinstance(content, dict) or set(keys) - set(content)):
        lacking = ", ".join(sorted(set(keys) - set(content if isinstance(content, dict) else ()))) or "being an object"
        raise NnmissError(f"{where} lacks {lacking}: repair it or make it again")
    return content


def _is_deep(content: Any) -> bool:
    """Whether lists and objects lie in each other more than MAX_JSON_DEPTH deep; copying such ones fails."""
    level, depth = [content], 0
    while level and depth <= MAX_JSON_DEPTH:
        level = [inner for outer in level if isinstance(outer, dict | list)
                 for inner in (outer.values() if isinstance(outer, dict) else outer) if isinstance(inner, dict | list)]
        depth += 1
    return bool(level)


def writable_folder(path: str | os.PathLike) -> Path:
    """Makes `path` (with parents) and proves that a file can be written there. Raises NnmissError when not."""
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".write_test.{_writer()}.tmp"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise NnmissError(f"cannot write to folder {path} ({error.strerror}): choose another folder "
                          "or mend its permissions") from None
    return path
