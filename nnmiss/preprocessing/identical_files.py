"""Finds image files of a data set that are copies of each other, which no reader can notice."""
from __future__ import annotations

import gzip
import os
from collections.abc import Iterator

import nibabel
import numpy as np

from nnmiss.errors import shortened
from nnmiss.nifti_files import is_gzip
from nnmiss.preprocessing.raw_dataset import RawCase

BLOCK = 4096
SHOWN = 10


def describe_copies(cases: list[RawCase], modalities: list[str]) -> str | None:
    """A warning that names cases and files with equal contents, or None.

    A copy in another modality's or another case's place looks like any image. Files that are blank are passed over: they
    are equal by nature, and told elsewhere. Files are compared as they are unpacked; an image that was stored anew, with
    another header say, is not found.
    """
    groups = list(find_copies(cases))
    if not groups:
        return None
    lines = []
    for group in groups[:SHOWN]:
        named = [f"case {case}, {modalities[channel] if channel < len(modalities) else channel}: {file}"
                 for case, channel, file in group]
        lines.append("  " + shortened(named, 4))
    more = f"\n  ... and {len(groups) - SHOWN} more groups" if len(groups) > SHOWN else ""
    return (f"WARNING: {sum(map(len, groups))} image files are copies of each other; one may lie in another's place:\n"
            + "\n".join(lines) + more)


def find_copies(cases: list[RawCase]) -> Iterator[list[tuple[str, int, str]]]:
    """Groups of (case, channel, file) with equal contents, blank images left out."""
    alike: dict[tuple, list[tuple[str, int, str]]] = {}
    for case in cases:
        for channel, file in case.files.items():
            try:
                alike.setdefault(content_summary(file), []).append((case.name, channel, file))
            except OSError:  # unreadable: told when it is read
                continue
    for group in alike.values():
        if len(group) > 1 and not _is_blank(group[0][2]):
            same = [group[0], *(other for other in group[1:] if _equal(group[0][2], other[2]))]
            if len(same) > 1:
                yield same


def content_summary(file: str) -> tuple:
    """Something cheap that equal contents share: of gzip the checksum and size at its end, else the size and two blocks.

    Raises OSError when it cannot be read.
    """
    if not os.path.isfile(file):
        raise OSError("no file")
    with open(file, "rb") as opened:
        if is_gzip(file):
            opened.seek(-8, os.SEEK_END)
            trailer = opened.read(8)
            if any(trailer):  # bgzip ends every file with an empty member
                return "gzip", trailer
        size = os.path.getsize(file)
        opened.seek(max(0, size // 2 - BLOCK // 2))
        middle = opened.read(BLOCK)
        opened.seek(max(0, size * 3 // 4))
        return size, middle, opened.read(BLOCK)


def _equal(first: str, second: str) -> bool:
    try:
        with _open(first) as one, _open(second) as other:
            while block := one.read(1 << 20):
                if block != other.read(1 << 20):
                    return False
            return not other.read(1)
    except (OSError, EOFError):
        return False


def _open(file: str):
    return gzip.open(file) if is_gzip(file) else open(file, "rb")


def _is_blank(file: str) -> bool:
    try:
        voxels = np.asanyarray(nibabel.load(file).dataobj)
        return voxels.size == 0 or bool(voxels.min() == voxels.max())
    except Exception:  # another format than nibabel's, or damaged, which is told when it is read
        return False
