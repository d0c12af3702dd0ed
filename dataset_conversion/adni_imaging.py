"""ADNI's imaging: FreeSurfer's regional volumes, areas and thicknesses from a table, or one brain volume each."""
from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from nnmiss.classification.kinds.volume import read_nifti
from nnmiss.dataset_conversion.adni_tables import PTID, at_baseline, in_time_order
from nnmiss.errors import NnmissError

FREESURFER = r"UCSFFSX\d*"
REGION = re.compile(r"ST\d+(CV|TA|SV)")  # cortical volume, mean thickness, subcortical volume
SCAN = re.compile(rf"({PTID.pattern})_(\d{{4}}-?\d{{2}}-?\d{{2}})")  # a scan's file or folder: participant and date


def freesurfer_table(table: pd.DataFrame, baseline: bool, path: Path) -> pd.DataFrame:
    """PTID -> the regions of one scan, the last one (with `baseline` the first of the first visits), text.

    Scans whose OVERALLQC is Fail do not count. Raises NnmissError without any region column.
    """
    regions = [name for name in table if REGION.fullmatch(name)]
    if not regions:
        raise NnmissError(f"{path} has no columns such as ST24CV or ST29SV: expected a table of FreeSurfer's regions")
    if "OVERALLQC" in table:
        table = table[table["OVERALLQC"].fillna("").str.upper() != "FAIL"]
    scans = in_time_order(at_baseline(table) if baseline else table)
    scans = scans[scans[regions].notna().any(axis=1)]
    return scans.drop_duplicates("PTID", keep="first" if baseline else "last").set_index("PTID")[regions].sort_index()


def find_scans(files: Sequence[Path], baseline: bool) -> dict[str, Path]:
    """PTID -> the NIfTI of the last scan (the first with `baseline`), from names such as 002_S_0295_2006-04-18.

    The name may be that of the file or of its folder. Raises NnmissError for two files of one scan.
    """
    scans: dict[tuple[str, str], Path] = {}
    for path in files:
        if not re.search(r"\.nii(\.gz)?$", path.name, re.IGNORECASE):
            continue
        match = SCAN.match(path.name) or SCAN.fullmatch(path.parent.name)
        if match:
            key = (match[1], match[2].replace("-", ""))
            if key in scans:
                raise NnmissError(f"{scans[key]} and {path} are both the scan {match[0]}: keep one of them")
            scans[key] = path
    chosen = sorted(scans.items(), reverse=baseline)
    return dict(sorted({ptid: path for (ptid, _), path in chosen}.items()))


def copy_scans(folder: Path, scans: Mapping[str, Path]) -> dict[str, str]:
    """Copies the volumes as PTID.nii.gz or .nii; returns PTID -> what is wrong with its file."""
    folder.mkdir()
    failed = {}
    for ptid, path in scans.items():
        try:
            shape = read_nifti(path).shape
        except NnmissError as error:
            failed[ptid] = f"its scan {error}"
            continue
        if sum(n > 1 for n in shape) != 3:
            failed[ptid] = f"its scan {path} has shape {shape}, expected one volume of three axes"
            continue
        shutil.copyfile(path, folder / (ptid + scan_ending(path)))
    return failed


def scan_ending(path: Path) -> str:
    """.nii.gz or .nii."""
    return ".nii.gz" if path.name.lower().endswith(".gz") else ".nii"
