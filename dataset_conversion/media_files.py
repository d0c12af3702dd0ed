"""Brings image and sound files of a source into the data set's folder, checked at a glance."""
from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

# How whole files begin and end (None: the end says nothing).
IMAGE_FORMATS = {"JPEG": (b"\xff\xd8\xff", b"\xff\xd9"), "PNG": (b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82")}
TAIL = 4096  # bytes at the end of a file in which its last marker must stand; some writers pad or append to it


def image_problem(path: Path) -> str | None:
    """What is wrong with an image file, naming it, as far as its first and last bytes tell; None when they are right.

    The pixels are decoded by the integrity check of nnmiss_plan_and_preprocess, which takes minutes for large data sets.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(16)
            file.seek(0, os.SEEK_END)
            size = file.tell()
            file.seek(max(0, size - TAIL))
            tail = file.read()
    except OSError as error:
        return f"{path} cannot be read ({error.strerror})"
    if not size:
        return f"{path} is empty (0 bytes): download it again"
    for name, (start, end) in IMAGE_FORMATS.items():
        if head.startswith(start):
            return None if end in tail else f"{path} is a truncated {name} file: download it again"
    return f"{path} is no JPEG or PNG file: its first bytes are {head[:8]!r}"


def place_files(files: Mapping[Path, Path], copy: str, num_threads: int, disable_progress_bar: bool) -> list[str]:
    """Copies, or with "link" hard-links, the files {target: source}, making folders. Returns a note about links refused.

    A file that the file system does not let be linked is copied.
    """
    for folder in {target.parent for target in files}:
        folder.mkdir(parents=True, exist_ok=True)
    refused = 0
    with ThreadPoolExecutor(num_threads) as pool:
        done = pool.map(_place, files.values(), files.keys(), [copy] * len(files))
        for linked in tqdm(done, desc="copying", unit="file", total=len(files), disable=disable_progress_bar):
            refused += copy == "link" and not linked
    return [f"{refused} files were copied, as hard links from their file system to this one are refused"] if refused else []


def find_problems(paths: Iterable[Path], problem: Callable[[Path], str | None], num_threads: int,
                  disable_progress_bar: bool) -> dict[Path, str]:
    """{path: what `problem` says} of the paths with which something is wrong, looked at in threads."""
    paths = list(paths)
    with ThreadPoolExecutor(num_threads) as pool:
        found = list(tqdm(pool.map(problem, paths), desc="checking", unit="file", total=len(paths),
                          disable=disable_progress_bar))
    return {path: what for path, what in zip(paths, found) if what}


def _place(source: Path, target: Path, copy: str) -> bool:
    """Whether it was linked."""
    if copy == "link":
        try:
            os.link(source.resolve(), target)
            return True
        except OSError:  # another file system, or one that has no hard links or forbids this one
            pass
    shutil.copyfile(source, target)
    return False
