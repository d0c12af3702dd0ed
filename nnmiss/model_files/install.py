"""Installs a model's zip from anybody: everything is checked in a folder beside its place, then moved there at once."""
from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipInfo

from nnmiss.atomic_files import parse_json, remove_leftovers, temporary_name
from nnmiss.errors import NnmissError, shortened
from nnmiss.model_files.contents import MANIFEST, Manifest, parse_manifest
from nnmiss.model_files.file_checks import check_files
from nnmiss.model_files.zip_safety import open_zip, read_member, unpack
from nnmiss.plain_names import shown

LARGEST_MANIFEST = 2**20  # bytes
SPARE = 2**26  # bytes that are left free on the disk
OLD = ".replaced"


@dataclass(frozen=True)
class KnownModels:
    """What the caller tells of the methods, which build on this package and not the other way round.

    task_of: name of a trainer -> "segmentation" or "classification"; raises NnmissError when it is none of nnmiss's.
    load: loads the model in a folder as prediction does (folder, manifest); raises NnmissError when it cannot.
    """

    task_of: Callable[[str], str]
    load: Callable[[Path, Manifest], None]


def install_model(path: str | Path, results_folder: str | Path, known: KnownModels, overwrite: bool = False,
                  max_gb: float = 20) -> tuple[Path, Manifest]:
    """Installs a zip of nnmiss_export_model below `results_folder`.

    Args:
        path: the zip.
        results_folder: nnUNet_results.
        known: the methods.
        overwrite: replace a model of the same name, which stays until the new one is in its place.
        max_gb: most gigabytes (2^30 bytes) that are unpacked.

    Returns:
        (the model's folder, the manifest).

    Raises:
        NnmissError: what is wrong with the zip, a file in it, or the place; nothing is installed or changed then.
        OSError: as any writing, such as with a full disk; nothing is changed then either.
    """
    with open_zip(path) as archive:
        manifest, members = _listed(archive, Path(path))
        if manifest.task != known.task_of(manifest.trainer):
            raise NnmissError(f"{path}: {manifest.trainer} is no trainer of {manifest.task}")
        total = sum(size for _, size in manifest.files.values())
        if total > max_gb * 2**30:
            raise NnmissError(f"{path} unpacks to {total / 2**30:.1f} GB, the limit is {max_gb:g}: give a larger --max_gb "
                              "if you trust it")
        for dataset in Path(results_folder).glob("Dataset*_*"):  # also of other models' installations that were killed
            remove_leftovers(dataset)
        target = Path(results_folder) / manifest.dataset / manifest.model
        _check_place(target, overwrite, total)
        with _place_beside(target) as new:
            for name, info in members.items():
                (new / name).parent.mkdir(parents=True, exist_ok=True)
                digest, size = manifest.files[name]
                try:
                    unpack(archive, info, new / name, size, digest)
                except NnmissError as error:
                    raise NnmissError(f"{path} was refused: {error}") from None
            try:
                check_files(new, manifest)
                known.load(new, manifest)
            except NnmissError as error:
                raise NnmissError(f"{path} was refused: {str(error).replace(str(new), manifest.model)}") from None
            _swap(new, target)
    return target, manifest


def _listed(archive, path: Path) -> tuple[Manifest, dict[str, ZipInfo]]:
    """The manifest and the members by path below the model's folder; the two name the same files of the same size."""
    where = f"{path}: {MANIFEST}"
    keys = ("format", "version", "dataset", "model", "folds", "files")
    manifest = parse_manifest(parse_json(read_member(archive, MANIFEST, LARGEST_MANIFEST), where, keys), where)
    above = f"{manifest.dataset}/{manifest.model}/"
    found = {info.filename: info for info in archive.infolist() if info.filename != MANIFEST}
    expected = {above + name: name for name in manifest.files}
    apart = sorted(found.keys() ^ expected.keys())
    if apart:
        raise NnmissError(f"{path} was refused: the zip and its {MANIFEST} do not list the same files; only one of them "
                          f"has {shortened(map(shown, apart), 3)}")
    for full, name in expected.items():
        if found[full].file_size != manifest.files[name][1]:
            raise NnmissError(f"{path} was refused: {shown(full)} has {found[full].file_size:,} bytes, {MANIFEST} says "
                              f"{manifest.files[name][1]:,}")
    return manifest, {name: found[full] for full, name in expected.items()}


def _check_place(target: Path, overwrite: bool, total: int) -> None:
    """Refuses a place that is taken, leads elsewhere, or has no room; puts back what an interrupted replacement moved."""
    old = target.parent / f".{target.name}{OLD}"
    if old.is_dir() and not target.exists():
        os.replace(old, target)
    if target.is_symlink() or target.parent.is_symlink() or (target.exists() and not target.is_dir()):
        raise NnmissError(f"{target} is a link or a file: move it away, and the model is installed in a folder there")
    if target.exists() and not overwrite:
        raise NnmissError(f"{target} is there already: --overwrite replaces it by the zip's model, with all its folds and "
                          "results")
    there = next(folder for folder in (target, *target.parents) if folder.is_dir())
    free = shutil.disk_usage(there).free
    if total + SPARE > free:
        raise NnmissError(f"{there} has {free / 2**30:.2f} GB free, the model needs {total / 2**30:.2f}: free some room")


@contextmanager
def _place_beside(target: Path) -> Iterator[Path]:
    """A new folder called as the target, in a hidden one beside it; what is left of it at the end is removed."""
    made = [folder for folder in (target.parent, *target.parent.parents) if not folder.exists()]
    temporary = target.parent / temporary_name(target.name)
    try:
        temporary.mkdir(parents=True)
        (temporary / target.name).mkdir()
        yield temporary / target.name
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        for folder in made:  # of the data set, where nothing was installed
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()


def _swap(new: Path, target: Path) -> None:
    """Moves a folder to its place; a model that lies there is moved aside before, and back when that fails."""
    old = target.parent / f".{target.name}{OLD}"
    shutil.rmtree(old, ignore_errors=True)
    if not target.exists():
        os.replace(new, target)
        return
    os.replace(target, old)
    try:
        os.replace(new, target)
    except BaseException:
        os.replace(old, target)
        raise
    shutil.rmtree(old, ignore_errors=True)
