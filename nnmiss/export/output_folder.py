"""The folder of an export, filled beside its place; an earlier export in it is replaced, anything else never."""
from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nnmiss.atomic_files import read_json, writable_folder, write_json
from nnmiss.errors import NnmissError
from nnmiss.interrupts import interrupts_ignored

MANIFEST = "manifest.json"
MADE_BY = "nnmiss_export_brats"


def check_output(folder: Path, overwrite: bool) -> None:
    """Raises NnmissError unless the folder is absent, empty, or with `overwrite` an export's."""
    there = sorted(p.name for p in folder.iterdir() if not p.name.startswith(".")) if folder.is_dir() else []
    if not there:
        if folder.exists() and not folder.is_dir():
            raise NnmissError(f"{folder} is a file: give -o a folder")
        return
    if not overwrite:
        raise NnmissError(f"{folder} is not empty ({', '.join(there[:3])}): choose another folder with -o, or replace an "
                          "earlier export with --overwrite")
    old_manifest(folder)


def old_manifest(folder: Path) -> dict:
    """The manifest of an earlier export, {} in an empty folder. Raises NnmissError when the folder is no export's."""
    path = folder / MANIFEST
    if not path.is_file() and not any(p for p in folder.iterdir() if not p.name.startswith(".")):
        return {}
    content = read_json(path, "manifest") if path.is_file() else None
    if not isinstance(content, dict) or content.get("made_by") != MADE_BY:
        raise NnmissError(f"{folder} holds files, but no {MANIFEST} of {MADE_BY}: --overwrite replaces earlier exports "
                          "only; choose another folder with -o")
    return content


@contextmanager
def filling(folder: Path) -> Iterator[Path]:
    """Yields a hidden folder in `folder` to write into; removes it, with what was not published, in the end.

    A `folder` that was not there before, and in which nothing was published, goes too.
    """
    new = not folder.exists()
    temporary = writable_folder(folder) / f".export.{os.getpid()}.tmp"
    temporary.mkdir(exist_ok=True)
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if new and not any(folder.iterdir()):
            folder.rmdir()


def publish(temporary: Path, folder: Path, manifest: dict) -> None:
    """Moves what was written to its place, and what an earlier export had there aside until all of it is.

    Whatever stops it before the manifest, which is moved last, is in its place: the earlier export is put back whole.
    """
    earlier = [name for entry in old_manifest(folder).get("subsets", {}).values()
               for name in (entry.get("folder"), entry.get("zip")) if name and Path(name).name == name]
    new = sorted(p.name for p in temporary.iterdir() if not p.name.startswith("."))
    write_json(temporary / MANIFEST, manifest)
    aside = folder / f".earlier.{os.getpid()}.tmp"
    aside.mkdir()
    moves = [(folder / name, aside / name) for name in dict.fromkeys([*earlier, *new]) if (folder / name).exists()]
    moves += [(temporary / name, folder / name) for name in [*new, MANIFEST]]
    try:
        for source, target in moves:
            os.replace(source, target)
    finally:
        with interrupts_ignored():
            if (temporary / MANIFEST).exists():
                for source, target in reversed(moves[:-1]):
                    if not source.exists():
                        os.replace(target, source)
            shutil.rmtree(aside, ignore_errors=True)
