"""Checks the files of one source case, then writes them as nnU-Net's channel files and label."""
from __future__ import annotations

import errno
import gzip
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib

from nnmiss.dataset_conversion.raw_types import RawDataset, SourceCase
from nnmiss.dataset_conversion.resample import resample_image, resample_label
from nnmiss.dataset_conversion.source_files import (
    as_image,
    check_geometry,
    is_blank,
    read_content,
    read_label,
    read_nifti,
    split_volume,
    voxel_grid_of,
)
from nnmiss.errors import NnmissError
from nnmiss.nifti_files import is_gzip
from nnmiss.preprocessing.voxel_grid import VoxelGrid

COMPRESSION = 4  # of gzip, for files that come uncompressed: MR noise hardly shrinks further, only slower


@dataclass(frozen=True)
class CaseSettings:
    """How cases are written: see `nnmiss.dataset_conversion.raw_cases.write_raw_dataset`."""

    copy: str = "copy"
    spacing_mm: tuple[float, float, float] | None = None
    blank_is_missing: bool = False


@dataclass(frozen=True)
class WrittenCase:
    """Modalities whose files were written, those whose images hold one value only, and why images were not linked.

    unlinked: a reason for each image that was copied though a hard link was asked for.
    """

    modalities: list[str]
    blank: list[str]
    unlinked: list[str]


def write_case(folder: Path, dataset: RawDataset, case: SourceCase, settings: CaseSettings) -> WrittenCase:
    """Writes the channel files and the label of one case into the data set's `folder`, or nothing.

    Everything is read and checked first, one file after the other, so that memory holds one image (or one 4-D file),
    and then placed. Raises NnmissError for a bad case.
    """
    if case.problem:
        raise NnmissError(case.problem)
    if not case.images:
        raise NnmissError(f"no channel file at all, expected one or more of {', '.join(dataset.modalities)}")
    if case.label is None and not case.test:
        raise NnmissError("no label file, which a training case needs (a test case does not)")
    volumes = _volumes(case)
    grids, blank = _checked_images(case, volumes)
    label = read_label(case.label, dataset.source_labels, dataset.label_hint) if case.label else None
    if label:
        grids.append((case.label, voxel_grid_of(label)))
    check_geometry(grids)
    kept = [m for m in dataset.modalities if m in case.images and not (settings.blank_is_missing and m in blank)]
    if not kept:
        raise NnmissError(f"all its channel files hold one value only: {', '.join(blank)}")

    part = "Ts" if case.test else "Tr"
    (folder / f"images{part}").mkdir(exist_ok=True)
    refusals = []
    for modality in kept:
        target = folder / f"images{part}" / f"{case.name}_{dataset.modalities.index(modality):04d}.nii.gz"
        refusals.append(_write_image(case.images[modality], volumes.get(modality), target, settings))
    if label:
        (folder / f"labels{part}").mkdir(exist_ok=True)
        label = resample_label(label, settings.spacing_mm) if settings.spacing_mm else label
        nib.save(label, folder / f"labels{part}" / f"{case.name}.nii.gz")
    return WrittenCase(kept, blank, [reason for reason in refusals if reason])


def _volumes(case: SourceCase) -> dict[str, bytes]:
    """Modality -> 3-D NIfTI content for a case that is one 4-D file; empty for others."""
    if not case.stacked:
        return {}
    path = next(iter(case.images.values()))
    return dict(zip(case.images, split_volume(path, len(case.images))))


def _checked_images(case: SourceCase, volumes: dict[str, bytes]) -> tuple[list[tuple[Path, VoxelGrid]], list[str]]:
    """The grid of every image, and the modalities that are blank. Raises NnmissError for a file that cannot be used."""
    grids, blank = [], []
    for modality, path in case.images.items():
        image = as_image(volumes[modality], path) if volumes else read_nifti(path)
        grids.append((path, voxel_grid_of(image)))
        if is_blank(image):
            blank.append(modality)
    return grids, blank


def _write_image(source: Path, volume: bytes | None, target: Path, settings: CaseSettings) -> str | None:
    """Brings an image to `target`, its header untouched unless it is resampled. Returns why it could not be linked."""
    if settings.spacing_mm:
        image = as_image(volume, source) if volume else read_nifti(source)
        nib.save(resample_image(image, settings.spacing_mm), target)
    elif volume or not is_gzip(source):
        target.write_bytes(gzip.compress(volume or read_content(source), COMPRESSION, mtime=0))
    elif settings.copy == "link":
        try:
            os.link(source.resolve(), target)
        except OSError as error:  # another file system, or one that has no hard links or forbids this one
            shutil.copyfile(source, target)
            return "cannot cross file systems" if error.errno == errno.EXDEV else f"were refused ({error.strerror})"
    else:
        shutil.copyfile(source, target)
    return None
