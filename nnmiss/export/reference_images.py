"""Finds one image of every case, in nnU-Net's raw folders and in BraTS downloads, whose header a submission must have."""
from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from nnmiss.errors import NnmissError

NIFTI = (".nii.gz", ".nii")
NOT_IMAGES = ("labelsTr", "labelsTs")  # of nnU-Net: a case called case_0001 would look like an image there
# CASE_0000 of nnU-Net; CASE_flair, CASE-t2f and CASE_t1gd of BraTS
IMAGE_NAME = re.compile(r"(?P<case>.+?)(_\d{4}|[_-](flair|t1ce|t1gd|t1c|t1n|t1w|t1|t2flair|t2f|t2w|t2))", re.IGNORECASE)


def find_reference_images(folder: str | Path, file_ending: str = ".nii.gz") -> dict[str, Path]:
    """Case -> one of its images (the first by name), sorted by case; looks into sub-folders, follows links.

    Reads names only. Knows CASE_0000.nii.gz of nnU-Net and CASE/CASE_flair.nii.gz, CASE-t1c.nii and the like of BraTS;
    segmentations, hidden files and anything else are passed over. `file_ending` is accepted besides .nii.gz and .nii.

    Raises NnmissError when the folder is absent, holds no such image, or holds images of one case in two folders (one of
    them may have been resampled).
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise NnmissError(f"image folder {folder} does not exist: give the BraTS download, or the folder that was "
                          "predicted from (imagesTs, say)")
    found: dict[str, tuple[Path, Path]] = {}
    for home, name, path in _files(folder, dict.fromkeys((file_ending, *NIFTI))):
        match = IMAGE_NAME.fullmatch(name)
        if match is None:
            continue
        first_home, _ = found.setdefault(match["case"], (home, path))
        if first_home != home:
            raise NnmissError(f"case {match['case']} has images in {first_home} and in {home}: give a folder that "
                              "holds each case once")
    if not found:
        raise NnmissError(f"no image found in {folder}: expected CASE_0000{file_ending} as in nnU-Net, or "
                          "CASE_flair.nii.gz, CASE-t1c.nii.gz as in BraTS, here or in sub-folders")
    return {case: found[case][1] for case in sorted(found)}


def _files(folder: Path, endings: dict[str, None]) -> Iterator[tuple[Path, str, Path]]:
    """(folder, name without ending, path) of every file with one of the endings.

    Some copies of BraTS 2021 hold CASE_flair.nii/00000057_brain_flair.nii: there the folder's name counts.
    """
    seen = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:  # a link to a folder above
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f not in NOT_IMAGES)
        here = Path(place)
        wrapped = _without_ending(here.name, endings) if here != folder else None
        for file in sorted(f for f in files if not f.startswith(".")):
            name = _without_ending(file, endings)
            if name is not None:
                yield (here.parent, wrapped, here / file) if wrapped else (here, name, here / file)


def _without_ending(name: str, endings: dict[str, None]) -> str | None:
    return next((name[: -len(ending)] for ending in endings if name.endswith(ending)), None)
