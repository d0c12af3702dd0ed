"""The one exception that commands turn into a message instead of a traceback."""
from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterable
from functools import wraps

_forks_are_reset = False


class NnmissError(Exception):
    """Bad input or a state the user can mend.

    The message says what came, what was expected and what to do, and names the case and the file. Commands print
    it without a traceback and exit with code 1 (see `command`).
    """


class DiskFullError(OSError):
    """No room for a file; `filename` is the one that was to be written."""

    def __str__(self) -> str:
        folder = os.path.realpath(os.path.dirname(os.fsdecode(self.filename)))
        while not os.path.ismount(folder):
            folder = os.path.dirname(folder)
        return (f"{self.filename} could not be written ({self.strerror}): the disk at {folder} has "
                f"{_free_space(folder)}, and a quota or limit may leave less. Free some or "
                "choose another output folder, then run the same command again; no half-written file is left")


def _free_space(folder: str) -> str:
    try:
        return f"{shutil.disk_usage(folder).free / 1e6:.1f} MB free"
    except OSError:
        return "an unknown amount free"


def nearest_names(name: str, known: list[str] | tuple[str, ...]) -> str:
    """A sentence that lists `known` names, the ones closest to `name` first. Returns text for an error message."""
    from difflib import get_close_matches

    close = get_close_matches(name.lower(), [k.lower() for k in known], n=3, cutoff=0.5)
    nearest = [k for c in close for k in known if k.lower() == c]
    hint = f"Did you mean {' or '.join(nearest)}? " if nearest else ""
    return f"{hint}Known names: {', '.join(known)}."


def shortened(names: Iterable[str], limit: int = 10) -> str:
    """'a, b, c and 7 more': a list in a sentence, never longer than a person reads."""
    names = list(names)
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def answer_sigterm() -> None:
    """Makes a request to terminate end this process as Ctrl-C does. Forked children die of it, as is usual.

    nnU-Net's process pools stop their forked workers with SIGTERM. A worker with a handler in Python can miss it, when it
    comes just before the worker waits for a lock, and then the pool waits for the worker for ever.
    """
    global _forks_are_reset
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    if not _forks_are_reset:
        os.register_at_fork(after_in_child=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL))
        _forks_are_reset = True


def command(main: Callable[[], int | None]) -> Callable[[], None]:
    """Wraps the `main` of a command: errors and Ctrl-C become one message on stderr and an exit code.

    `main` returns its exit code (None means 0). Exit codes: 0 done, 1 something failed and was named, 130 Ctrl-C or a
    request to terminate. With the environment variable NNMISS_TRACEBACK set, errors nobody foresaw show where they arose.
    """

    @wraps(main)
    def run() -> None:
        answer_sigterm()
        try:
            code = main() or 0
        except NnmissError as error:
            print(f"error: {error}", file=sys.stderr)
            code = 1
        except KeyboardInterrupt:
            print("\ninterrupted: no half-written file is left; run the same command again", file=sys.stderr)
            code = 130
        except PermissionError as error:
            print(f"error: no permission for {_asked_for(error)}: choose a folder you may write to", file=sys.stderr)
            code = 1
        except OSError as error:
            print(f"error: {_of_the_system(error)}", file=sys.stderr)
            code = 1
        except Exception as error:
            if os.environ.get("NNMISS_TRACEBACK"):
                raise
            print(f"error: unforeseen {type(error).__name__}: {error}\nSet NNMISS_TRACEBACK=1 to see where it arose; a "
                  "damaged file or a fault in nnmiss is the likely cause", file=sys.stderr)
            code = 1
        sys.exit(code)

    return run


def _of_the_system(error: OSError) -> str:
    """What to print of an error of the operating system."""
    if isinstance(error, DiskFullError):
        return str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):  # its file name may be that of the source of a copy
        return ("no space left on the disk that is written to: free some or choose another output folder, then run the "
                "same command again; no half-written file is left")
    where = f" ({_asked_for(error)})" if error.filename else ""
    return f"{error.strerror or error}{where}"


def _asked_for(error: OSError) -> str:
    """The file of an error under the name that it would have had (see `atomic_files.replacing`)."""
    folder, name = os.path.split(os.fsdecode(error.filename or "an unnamed file"))
    temporary = re.fullmatch(r"\.(.+)\.\d+-[0-9a-f]{8}\.tmp(.*)", name)
    return os.path.join(folder, temporary[1] + temporary[2] if temporary else name)
