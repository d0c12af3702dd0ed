"""Names from files that become names of files or folders: none may lead out of the folder it is put into."""
from __future__ import annotations

import re

from nnmiss.errors import NnmissError

LONGEST = 200  # bytes; file systems take 255, and endings are added
DEVICES = frozenset({"con", "prn", "aux", "nul", *(f"{kind}{n}" for kind in ("com", "lpt") for n in "0123456789")})
FILE_ENDING = re.compile(r"(\.[A-Za-z0-9]{1,10}){1,3}")


def name_fault(name: object) -> str | None:
    """Why `name` may not name a file or folder, in words; None when it may.

    It has to be text of one line without '/', '\\' and control characters, no '.' at its start, not too long, and not the
    name of a device of Windows, so that it means the same on every system.
    """
    if not isinstance(name, str) or not name:
        return "it is not a name"
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        return "it holds half a character"
    if length > LONGEST:
        return f"it is longer than {LONGEST} bytes"
    if "/" in name or "\\" in name:
        return "it holds a '/' or '\\'"
    if not name.isprintable():
        return "it holds control characters"
    if name.startswith("."):
        return "it begins with a dot"
    if name.split(".")[0].strip().lower() in DEVICES:
        return "it is the name of a device"
    return None


def require_name(name: object, what: str) -> str:
    """`name`, when it may name a file or folder. Raises NnmissError, which begins with `what`, when not."""
    fault = name_fault(name)
    if fault:
        raise NnmissError(f"{what} {shown(name)} cannot name a file or folder: {fault}")
    return name


def require_ending(ending: object, what: str) -> str:
    """`ending`, when it is one of a file, such as .nii.gz. Raises NnmissError, which begins with `what`, when not."""
    if not isinstance(ending, str) or not FILE_ENDING.fullmatch(ending):
        raise NnmissError(f'{what} must be an ending of files, as ".nii.gz", got {shown(ending)}')
    return ending


def shown(value: object, limit: int = 80) -> str:
    """What a message says of a value that may be anything: ASCII, and not long."""
    try:
        text = ascii(value)
    except RecursionError:
        text = type(value).__name__
    return text if len(text) <= limit else f"{text[:limit]}..."
