"""Finds the NIfTI files of a download, however it was nested, packed or copied."""
from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from nnmiss.errors import NnmissError

GZIP_MAGIC = b"\x1f\x8b"
ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".7z", ".rar")


@dataclass(frozen=True)
class NiftiFile:
    """One image file of a source folder.

    name: file name without .nii or .nii.gz; of the folder when that is called X.nii and holds nothing but this image.
    folders: names of the folders above it, the source's own first. relative: path below the source with forward slashes.
    """

    path: Path
    name: str
    folders: tuple[str, ...]
    relative: str


def stem(name: str) -> str | None:
    """'a' for a.nii and a.nii.gz, whatever the case of the ending; None for other names."""
    match = re.fullmatch(r"(.+)\.nii(\.gz)?", name, re.IGNORECASE)
    return match[1] if match else None


def is_gzip(path: str | os.PathLike) -> bool:
    """Whether the content is gzip, whatever the name says: copies on the web hold .nii that are .nii.gz."""
    with open(path, "rb") as file:
        return file.read(2) == GZIP_MAGIC


def check_source(source: str | os.PathLike) -> Path:
    """`source` as a path. Raises NnmissError when it is no folder."""
    source = Path(source)
    if source.is_file():
        packed = source.name.lower().endswith(ARCHIVES)
        raise NnmissError(f"-i {source} is a file: " + ("unpack it and give the folder" if packed else "give its folder"))
    if not source.is_dir():
        raise NnmissError(f"source folder {source} does not exist")
    return source


def distinct_sources(sources: Iterable[str | os.PathLike]) -> list[str | os.PathLike]:
    """`sources` without those that lie in, or are, another one of them: each file counts once."""
    real = {os.path.realpath(source): source for source in sources}
    return [source for path, source in real.items()
            if not any(path.startswith(other.rstrip(os.sep) + os.sep) for other in real if other != path)]


def nifti_files(source: str | os.PathLike) -> list[NiftiFile]:
    """All .nii and .nii.gz files below `source`, sorted by path, but for hidden ones (also macOS' ._ companions).

    Some copies of BraTS hold folders called X.nii with the file in them: such a file gets the folder's name and path.
    Symbolic links are followed. Raises NnmissError when `source` is no folder.
    """
    source = check_source(source)
    found = []
    for folder, names in _folders(source):
        above = (Path(os.path.abspath(source)).name, *folder.relative_to(source).parts)
        images = [name for name in names if stem(name)]
        stands_for = stem(folder.name) if folder != source and len(images) == 1 else None
        for name in images:
            if stands_for:
                found.append(NiftiFile(folder / name, stands_for, above[:-1], "/".join(above[1:])))
            else:
                found.append(NiftiFile(folder / name, stem(name), above, "/".join([*above[1:], name])))
    return sorted(found, key=lambda file: str(file.path))


def describe(source: str | os.PathLike, limit: int = 8) -> str:
    """A sentence on what lies in `source`, for the message that nothing of use does."""
    images, others, archives = [], [], []
    for folder, names in _folders(Path(source)):
        for name in names:
            kind = images if stem(name) else archives if name.lower().endswith(ARCHIVES) else others
            kind.append((folder / name).relative_to(source).as_posix())
    if images:
        shown = ", ".join(sorted(images)[:limit])
        return f"{source} holds {len(images)} NIfTI files, as {shown}"
    if archives:
        return f"{source} holds no NIfTI files but archives: unpack {', '.join(sorted(archives)[:limit])}"
    only = f", only others, as {', '.join(sorted(others)[:limit])}" if others else ""
    return f"{source} holds no .nii or .nii.gz file{only}"


def _raise(error: OSError) -> None:
    """A folder that may not be read is told, where os.walk would pass over it."""
    raise error


def _folders(source: Path) -> Iterator[tuple[Path, list[str]]]:
    """Each folder with its files' names; no folder twice, so that a link to a folder above it ends."""
    seen = set()
    for folder, below, names in os.walk(source, followlinks=True, onerror=_raise):
        real = os.path.realpath(folder)
        if real in seen:
            below.clear()
            continue
        seen.add(real)
        below[:] = sorted(name for name in below if not name.startswith(".") and name != "__MACOSX")
        yield Path(folder), sorted(name for name in names if not name.startswith("."))
