"""Reads the channel files a case has, and its label, and refuses what would spoil training silently."""
from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter

from nnmiss.availability import Present
from nnmiss.errors import NnmissError
from nnmiss.preprocessing.raw_dataset import RawCase
from nnmiss.preprocessing.voxel_grid import grid_difference, voxel_grid, why_no_grid
from nnmiss.preprocessing.whole_file import first_look, why_not_whole


@dataclass
class CaseImages:
    """The available channels of one case."""

    data: np.ndarray  # (A, *spatial) float32, the available channels in channel order
    available: Present  # (M,)
    properties: dict  # nnU-Net's, of the first available channel
    blank: list[str]  # modalities whose file is all zero or constant


def reason_of(error: Exception) -> str:
    """A reader's error in one short line; of SimpleITK's traces what follows the last 'ERROR:'."""
    text = " ".join(str(error).split()).rsplit("ERROR:", maxsplit=1)[-1].strip()
    return text[:200] or type(error).__name__


def check_channels(case: RawCase, modalities: list[str]) -> None:
    """Raises NnmissError for a case with misnamed files, without any channel file, or with one beyond `modalities`."""
    if case.problems:
        raise NnmissError("; ".join(case.problems) + ": rename or remove it")
    if not case.files:
        raise NnmissError(f"case {case.name} has no channel file at all: add at least one of "
                          f"{', '.join(modalities)}, or remove the case" + (f" ({case.label})" if case.label else ""))
    for channel, file in case.files.items():
        if channel >= len(modalities):
            raise NnmissError(f"case {case.name}: {file} is channel {channel}, but dataset.json names only "
                              f"{len(modalities)} channels (0 to {len(modalities) - 1}: {', '.join(modalities)})")


def _read(case: RawCase, what: str, file: str, read: Callable, thorough: bool,
          checked: bool) -> tuple[np.ndarray, dict]:
    """Reads one file (1, *spatial) with nnU-Net's reader; every failure is a NnmissError naming case and file."""
    if not os.path.lexists(file):
        raise NnmissError(f"case {case.name}: {what} file {file} not found")
    reason, non_finite = (why_not_whole(file, thorough), 0) if checked else first_look(file)
    if reason is None:
        try:
            array, properties = read(file)
            reason = why_no_grid(voxel_grid(properties, array.shape[1:]))
        except Exception as error:  # readers raise whatever their libraries do
            reason = reason_of(error)
    if reason is not None:
        raise NnmissError(f"case {case.name}: {what} file {file} cannot be read ({reason}): restore or remove it")
    if array.shape[0] != 1:
        raise NnmissError(f"case {case.name}: {what} file {file} holds {array.shape[0]} channels: "
                          "nnmiss needs one file a channel, split it")
    non_finite = int(array.size - np.isfinite(array).sum()) or non_finite
    if non_finite:
        raise NnmissError(f"case {case.name}: {what} file {file} holds {non_finite} NaN or Inf voxels: "
                          "replace them by a finite value, or remove the file")
    return array, properties


def read_case(case: RawCase, modalities: list[str], reader_class: type[BaseReaderWriter],
              blank_is_missing: bool = False, thorough: bool = False, checked: bool = False) -> CaseImages:
    """Reads the channels a case has, with the values that nnU-Net's reader gives.

    Args:
        case: which files hold which channels.
        modalities: all channel names of the data set, in channel order.
        reader_class: nnU-Net's reader for the data set.
        blank_is_missing: treat a channel that is all zero or constant as absent.
        thorough: verify checksums of compressed files even when they were `checked`.
        checked: the files are known to be whole and to hold no NaN or Inf. Spares a second unpacking of .nii.gz (ITK does
            not look at the checksum, and hides NaN and Inf).

    Raises:
        NnmissError: no channel at all; a channel index beyond `modalities`; an unreadable or truncated file; shapes or
            affines that differ between channels; NaN or Inf; only blank channels with `blank_is_missing`.
    """
    check_channels(case, modalities)
    reader = reader_class()
    volumes, properties, blank = {}, {}, []
    for channel, file in sorted(case.files.items()):
        name = modalities[channel]
        volume, properties[channel] = _read(case, name, file, lambda f: reader.read_images((f,)), thorough, checked)
        if volumes:
            first = next(iter(volumes))
            difference = grid_difference(voxel_grid(properties[first], volumes[first].shape[1:]),
                                         voxel_grid(properties[channel], volume.shape[1:]))
            if difference:
                raise NnmissError(f"case {case.name}: {case.files[first]} and {file} do not share a voxel grid "
                                  f"({difference}): co-register and resample the channels to one grid")
        volumes[channel] = volume
        if volume.min() == volume.max():
            blank.append(name)
    kept = [c for c in volumes if not (blank_is_missing and modalities[c] in blank)]
    if not kept:
        raise NnmissError(f"case {case.name}: all its channel files are blank ({', '.join(case.files.values())}): "
                          "nothing is left with --blank_is_missing, remove the case")
    data = np.concatenate([volumes[c] for c in kept]).astype(np.float32, copy=False)  # (A, *spatial)
    available = tuple(c in kept for c in range(len(modalities)))
    return CaseImages(data, available, properties[kept[0]], blank)


def check_label(case: RawCase, seg: np.ndarray, seg_properties: dict, images: CaseImages, known: list[int]) -> None:
    """Raises NnmissError unless the label lies on the images' grid and holds only integers in `known`.

    Args:
        case: for the names in the message.
        seg: (1, *spatial) as the reader gave it.
        seg_properties: the reader's properties of the label.
        images: the case's images.
        known: every value that dataset.json allows, background and ignore label included.
    """
    where = f"case {case.name}: label {case.label}"
    difference = grid_difference(voxel_grid(seg_properties, seg.shape[1:]),
                                 voxel_grid(images.properties, images.data.shape[1:]))
    if difference:
        raise NnmissError(f"{where} does not share the images' voxel grid ({difference}): resample it to the images")
    found = pd.unique(seg.ravel())
    unknown = sorted(float(v) for v in found if v not in known)
    if unknown:
        listed = ", ".join(f"{v:g}" for v in unknown[:10])
        kind = "values that are not integers" if any(not v.is_integer() for v in unknown) else "unknown values"
        raise NnmissError(f"{where} holds {kind}: {listed}. dataset.json knows {', '.join(map(str, known))}: "
                          "correct the label file or dataset.json")


def read_label(case: RawCase, reader_class: type[BaseReaderWriter], images: CaseImages, known: list[int],
               thorough: bool = False, checked: bool = False) -> np.ndarray:
    """The checked label (1, *spatial) float32 of a case. Raises NnmissError as `check_label`, or when unreadable."""
    if case.label is None:
        raise NnmissError(f"case {case.name} has no label file")
    seg, properties = _read(case, "label", case.label, reader_class().read_seg, thorough, checked)
    check_label(case, seg, properties, images, known)
    return seg
