"""Finds one image of every case, in nnU-Net's raw folders and in BraTS downloads, whose header a submission must have."""
from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from nnmiss.brats_years import KIND_OF
from nnmiss.errors import NnmissError
from nnmiss.nifti_files import describe, nifti_files

NOT_IMAGES = {"labelsTr", "labelsTs"}  # of nnU-Net: a case called case_0001 would look like an image there


@dataclass(frozen=True)
class ReferenceImages:
    """Case -> its first image in each folder that holds some, sorted by case. Normally that is one.

    `labelled` are the cases that have a segmentation beside them, or in a folder labelsTr.
    """

    found: dict[str, list[Path]]
    labelled: frozenset[str] = frozenset()

    @property
    def demanded(self) -> list[str]:
        """The cases that a submission must have: not those of training, which a download's root folder holds too."""
        return [case for case in self.found if case not in self.labelled and "_Training_" not in case]

    def of(self, case: str) -> Path:
        """The case's image. Raises NnmissError when there is none, or some lie in two folders: one may be resampled."""
        images = self.found.get(case, [])
        if len(images) == 1:
            return images[0]
        if images:
            raise NnmissError(f"it has images in {images[0].parent} and in {images[1].parent}: give -r a folder that holds "
                              "each case once")
        raise NnmissError("no image of it was found in the folder of -r, whose header the submission must have: give "
                          "the folder that it was predicted from")


def find_reference_images(folder: str | Path) -> ReferenceImages:
    """Looks for NIfTI files where the converters do (`nifti_files`); reads names only.

    Knows CASE_0000.nii.gz of nnU-Net and CASE/CASE_flair.nii.gz, CASE-t1c.nii and the like of BraTS; segmentations and
    anything else are no images. Raises NnmissError when the folder is absent or holds no such image.
    """
    if not Path(folder).is_dir():
        raise NnmissError(f"image folder {folder} does not exist: give the BraTS download, or the folder that was "
                          "predicted from (imagesTs, say)")
    found: dict[str, dict[str, Path]] = {}  # case -> folder -> its first image there
    labelled = set()
    for file in nifti_files(folder):
        case, kind = (file.name, "label") if NOT_IMAGES & set(file.folders[1:]) else case_and_kind(file.name)
        if kind == "label":
            labelled.add(case)
        elif case:
            found.setdefault(case, {}).setdefault(file.relative.rpartition("/")[0], file.path)
    if not found:
        raise NnmissError(f"no image found: {describe(folder)}; expected CASE_0000.nii.gz as in nnU-Net, or "
                          "CASE_flair.nii.gz, CASE-t1c.nii.gz as in BraTS, here or in sub-folders")
    return ReferenceImages({case: list(found[case].values()) for case in sorted(found)}, frozenset(labelled))


def case_and_kind(name: str) -> tuple[str | None, str | None]:
    """What stands before _0000, _flair, -t1c or another such word (also t1_ce), and "label" for a segmentation, else what
    it is an image of; (None, None) for another name."""
    channel = re.fullmatch(r"(.+)_(\d{4})", name)
    if channel:
        return channel[1], channel[2]
    for words in (2, 1):
        match = re.fullmatch(r"(.+?)" + r"[\s_.\-]([^\s_.\-]+)" * words, name)
        if match and (kind := KIND_OF.get("".join(match.groups()[1:]).lower())):
            return match[1], kind
    return None, None
