"""An nnUNet_raw/DatasetXXX_Name folder that appears whole or not at all."""
from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nnmiss.atomic_files import writable_folder
from nnmiss.errors import NnmissError


def raw_root(folder: str | os.PathLike | None) -> Path:
    """`folder`, or the environment variable nnUNet_raw when it is None. Raises NnmissError when neither is given."""
    chosen = folder or os.environ.get("nnUNet_raw")  # noqa: SIM112 (nnU-Net's own name)
    if not chosen:
        raise NnmissError("where to write? Give -o FOLDER, or set the environment variable nnUNet_raw to the folder "
                          "that holds your raw data sets")
    return Path(chosen)


def dataset_folder_name(dataset_id: int, name: str) -> str:
    """'Dataset007_Name'. Raises NnmissError for ids outside 1..999 or names that are no plain word."""
    if not 1 <= dataset_id <= 999:
        raise NnmissError(f"a data set id must be from 1 to 999, got {dataset_id}")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise NnmissError(f"a data set name may hold letters, digits, '_' and '-' only, got {name!r}")
    return f"Dataset{dataset_id:03d}_{name}"


@contextmanager
def new_dataset_folder(root: str | os.PathLike, dataset_id: int, name: str,
                       overwrite: bool = False) -> Iterator[tuple[Path, Path]]:
    """Yields (temporary folder to fill, its final path); moves it there on success, removes it on any error.

    Raises NnmissError when the data set exists and `overwrite` is False, when the id belongs to another name (nnU-Net
    finds data sets by id), or when `root` cannot be written.
    """
    final = Path(root) / dataset_folder_name(dataset_id, name)
    others = [p.name for p in Path(root).glob(f"Dataset{dataset_id:03d}_*") if p.name != final.name]
    if others:
        raise NnmissError(f"id {dataset_id} is taken by {others[0]} in {root}: choose another with -d")
    if final.exists() and not overwrite:
        raise NnmissError(f"{final} exists already: choose another id with -d, or replace it with --overwrite")
    temporary = writable_folder(root) / f".{final.name}.{os.getpid()}.tmp"  # the dot hides it from nnU-Net's listings
    try:
        temporary.mkdir()
        yield temporary, final
        _move_into_place(temporary, final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _move_into_place(temporary: Path, final: Path) -> None:
    """Renames `temporary` to `final`; what stood there is moved aside first and deleted last."""
    aside = temporary.with_suffix(".old")
    if final.exists():
        os.replace(final, aside)
    try:
        os.replace(temporary, final)
    except OSError:
        if aside.exists():
            os.replace(aside, final)
        raise
    shutil.rmtree(aside, ignore_errors=True)
