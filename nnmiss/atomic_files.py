"""Files that are either whole or not there: written beside their place, then moved into it."""
from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nnmiss.errors import NnmissError


@contextmanager
def replacing(path: str | os.PathLike, ending: str | None = None) -> Iterator[Path]:
    """Yields a temporary path in the folder of `path`; on success it replaces `path`, on any error it is removed.

    `ending` is what the temporary name must end with for writers that choose the format by it (default: the
    suffixes of `path`). The name starts with a dot, so that no listing of cases picks it up.
    """
    path = Path(path)
    ending = "".join(path.suffixes) if ending is None else ending
    temporary = path.parent / f".{path.name[: len(path.name) - len(ending)]}.{os.getpid()}.tmp{ending}"
    try:
        yield temporary
        with open(temporary, "rb") as written:  # on the disk before the name is: a power cut leaves old or new
            os.fsync(written.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes `text` (UTF-8) to `path` atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike, content: Any) -> None:
    """Writes `content` to `path` as indented JSON, atomically. Raises TypeError for what JSON cannot hold."""
    write_text(path, json.dumps(content, indent=4) + "\n")


def read_json(path: str | os.PathLike, what: str = "file", keys: tuple[str, ...] | None = None) -> Any:
    """Reads JSON; `what` names the file's role in errors.

    Raises NnmissError when it is absent, not JSON or, with `keys`, not an object that has all of them.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NnmissError(f"{what} not found: {path}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise NnmissError(f"{what} {path} is not valid JSON ({error}): repair it or make it again") from None
    if keys is not None and (not isinstance(content, dict) or set(keys) - set(content)):
        lacking = ", ".join(sorted(set(keys) - set(content if isinstance(content, dict) else ()))) or "being an object"
        raise NnmissError(f"{what} {path} lacks {lacking}: repair it or make it again")
    return content


def writable_folder(path: str | os.PathLike) -> Path:
    """Makes `path` (with parents) and proves that a file can be written there. Raises NnmissError when not."""
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".write_test.{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise NnmissError(f"cannot write to folder {path} ({error.strerror}): choose another folder "
                          "or mend its permissions") from None
    return path
