"""The header and voxels of one image of a submission: read whole within bounds, labels or uncertainty values checked."""
from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import nibabel as nib
import numpy as np
import pandas as pd

from nnmiss.brats_years import Challenge
from nnmiss.export.archive_reading import MAX_FILE_BYTES
from nnmiss.export.nifti_files import unchecked_header
from nnmiss.export.rules import Finding, error, warning

MAX_VOXELS = 2**28  # of one image; they are computed with as 8 bytes each
MAX_EXTENSION_BYTES = 2**24  # between header and voxels
MAX_TAIL_BYTES = 2**24  # behind the voxels; read so that gzip's checksum is verified


@dataclass(frozen=True)
class Header:
    """What is needed of a NIfTI header."""

    shape: tuple[int, ...]
    dtype: np.dtype
    offset: int
    slope: float
    inter: float
    qform: np.ndarray
    unchecked: nib.Nifti1Header
    """As it stands in the file; the others are as nibabel mends them."""

    @property
    def scaled(self) -> bool:
        """Whether stored numbers are not the values."""
        return (self.slope, self.inter) != (1.0, 0.0)


def read_header(path: Path) -> Header:
    """Reads nothing but the header. Raises whatever decompression does, and nibabel or ValueError for what is no NIfTI."""
    with _opened(path) as file:
        unchecked = unchecked_header(file)
    header = type(unchecked)(unchecked.binaryblock, unchecked.endianness)
    offset = header.get_data_offset()
    if not 0 <= offset - header.single_vox_offset <= MAX_EXTENSION_BYTES:
        raise ValueError(f"its voxels begin at byte {offset}")
    slope, inter = header.get_slope_inter()
    return Header(tuple(map(int, header.get_data_shape())), header.get_data_dtype(), offset,
                  1.0 if slope is None else float(slope), 0.0 if inter is None else float(inter), header.get_qform(),
                  unchecked)


def read_values(path: Path, header: Header) -> tuple[np.ndarray | None, str | None]:
    """All voxels in a row, scaled; or why not. Never more than the header promises, within MAX_VOXELS and MAX_FILE_BYTES.

    (None, None) for types that are no numbers.
    """
    voxels = int(np.prod(header.shape, dtype=object))
    needed = header.offset + voxels * header.dtype.itemsize
    if needed > MAX_FILE_BYTES or voxels > MAX_VOXELS:
        return None, f"its header promises {voxels} voxels, {needed / 2**30:.1f} GiB"
    try:
        with _opened(path) as file:
            content, tail = file.read(needed), 0
            while tail < MAX_TAIL_BYTES and (more := file.read(1 << 16)):
                tail += len(more)
    except EOFError:
        return None, "truncated: the compressed stream ends early"
    except (OSError, zlib.error) as problem:
        return None, f"corrupt ({reason_of(problem, path)})"
    if len(content) < needed:
        return None, f"truncated: {len(content)} of {needed} bytes"
    if header.dtype.kind not in "iufb":
        return None, None
    values = np.frombuffer(content, header.dtype, offset=header.offset)
    values = values.astype(header.dtype.newbyteorder("="), copy=False)
    return (values * header.slope + header.inter if header.scaled else values), None


def _opened(path: Path) -> BinaryIO:
    return (gzip.open if path.name.endswith(".gz") else open)(path, "rb")


def check_labels(values: np.ndarray, header: Header, challenge: Challenge, where: dict) -> list[Finding]:
    """Findings on the values of a segmentation; `where` has its case and file."""
    findings = []
    expected = "whole numbers: " + _labels_in_words(challenge)
    if values.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            fractions = int((values != np.rint(values)).sum())  # NaN counts, infinities are counted below
        fractions += int(np.isinf(values).sum())
        if fractions:
            return [error("type", f"{fractions} voxels that are not whole numbers", expected,
                          "save the label map, not probabilities or an interpolated map", **where)]
        stored = "scaled by the header" if header.scaled else f"stored as {header.dtype}"
        findings.append(warning("type", f"whole numbers {stored}", "uint8", "cast to uint8 before saving, with scl_slope "
                                "1 and scl_inter 0", **where))
        with np.errstate(invalid="ignore"):
            values = values.astype(np.int64)
    present = {int(v) for v in pd.unique(values)}
    unknown = sorted(present - {0, *challenge.labels.values()})
    if unknown:
        listed = ", ".join(f"{v} ({int((values == v).sum())} voxels)" for v in unknown[:5])
        listed += f" and {len(unknown) - 5} more values" if len(unknown) > 5 else ""
        findings.append(error("labels", f"holds {listed}", expected, _what_of_unknown(unknown, challenge), **where))
    if present <= {0}:
        findings.append(warning("empty", "no voxel is labelled", "a segmentation with tumour in it", "check the "
                                "prediction; an empty one is accepted", **where))
    return findings


def _what_of_unknown(unknown: list[int], challenge: Challenge) -> str:
    """Why a wrong label matters, in this year."""
    if 3 in unknown and challenge.labels.get("et") == 4:
        return ("write label 4 for the enhancing tumour; scoring passes over every value but 1, 2 and 4 without a "
                "word, and the enhancing tumour would be empty")
    if 4 in unknown and challenge.labels.get("et") == 3:
        return "write label 3 for the enhancing tumour; 4 was the label until 2021, and scoring does not know it"
    return "map the labels to those of the year, as nnmiss_export_brats does; scoring passes over other values"


def check_uncertainty(values: np.ndarray, where: dict) -> list[Finding]:
    """Findings on the values of an uncertainty map."""
    low, high = (float(values.min()), float(values.max()))
    expected = "values from 0 (certain) to 100 (uncertain)"
    if not np.isfinite([low, high]).all() or low < 0 or high > 100:  # NaN makes min and max NaN
        return [error("uncertainty", f"values from {low:g} to {high:g}", expected, "scale the map to 0 to 100", **where)]
    if 0 < high <= 1:
        return [warning("uncertainty", f"values from {low:g} to {high:g}", expected,
                        "multiply the map by 100: it looks like one from 0 to 1", **where)]
    return []


def _labels_in_words(challenge: Challenge) -> str:
    named = sorted((value, name) for name, value in challenge.labels.items())
    return ", ".join(["0", *(f"{value} ({name.upper()})" for value, name in named)])


def reason_of(problem: Exception, path: Path | None = None) -> str:
    """A library's error in one short line, without `path`, which may be a temporary copy; of ITK's traces what follows
    the last 'ERROR:'."""
    text = " ".join(str(problem).split()).rsplit("ERROR:", maxsplit=1)[-1].strip()
    return (text.replace(str(path), "this file") if path else text)[:150] or type(problem).__name__
