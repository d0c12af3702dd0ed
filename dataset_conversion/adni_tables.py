"""ADNI's tables as downloaded, found by name, read as text with upper-case columns, one participant id in all of them."""
from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from nnmiss.errors import NnmissError, shortened

PTID = re.compile(r"\d{3}_S_\d{4,5}")  # a participant: site, S, number (RID)
MISSING_CODES = ("-4", "-1")  # "passive" and "confirmed" missing in all of ADNI's tables
DATE_IN_NAME = r"(_\d{1,2}[A-Za-z]{3}\d{4})?"  # of the download, as DXSUM_09May2024.csv
VISIT_TIMES = ("EXAMDATE", "VISDATE", "USERDATE")  # the first that a row has: phases of the study filled in others
EDIT_TIME = "UPDATE_STAMP"  # orders the rows of tables without any of them
BASELINE_VISITS = ("SC", "BL", "F", "SCMRI", "V01", "V02", "V03", "INIT", "4_SC", "4_BL")


def walk(sources: Sequence[str | os.PathLike]) -> list[Path]:
    """All files in the source folders, sorted, hidden ones left out. Raises NnmissError for a folder that is not there."""
    found: list[Path] = []
    for source in map(Path, sources):
        if not source.is_dir():
            raise NnmissError(f"source folder {source} does not exist: -i takes the folder with ADNI's downloads")
        for folder, below, names in os.walk(source):
            below[:] = [name for name in below if not name.startswith(".")]
            found += [Path(folder, name) for name in names if not name.startswith(".")]
    return sorted(found)


def find_table(files: Sequence[Path], pattern: str) -> Path | None:
    """The csv whose name is `pattern` (a regular expression, upper case) and perhaps a date; None when there is none.

    Raises NnmissError when there are several, because which one is meant cannot be known.
    """
    form = re.compile(rf"({pattern}){DATE_IN_NAME}\.csv", re.IGNORECASE)
    found = [path for path in files if form.fullmatch(path.name)]
    if len(found) > 1:
        raise NnmissError(f"the source holds {len(found)} files of one table: {shortened(map(str, found), 4)}; keep one")
    return found[0] if found else None


def read_table(path: Path) -> pd.DataFrame:
    """All cells as text, missing codes and empty cells as missing, columns in upper case without spaces at the ends.

    Whole numbers written with a point ("1.0") lose it. Raises NnmissError for a damaged file.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, na_values=[""], encoding_errors="replace")
    except (pd.errors.ParserError, pd.errors.EmptyDataError, OSError, ValueError) as error:
        raise NnmissError(f"{path} cannot be read as a table ({error}): download it again") from None
    table.columns = table.columns.str.strip().str.upper()
    table = table.apply(lambda column: column.str.strip().str.replace(r"^(-?\d+)\.0+$", r"\1", regex=True))
    return table.mask(table.isin([*MISSING_CODES, ""]))


def participants(tables: Sequence[pd.DataFrame]) -> dict[str, str]:
    """RID -> PTID, from every table that has both; one RID is one participant in all phases of the study.

    Raises NnmissError when a RID stands with two PTIDs.
    """
    ptid_of: dict[str, str] = {}
    for table in tables:
        if {"RID", "PTID"} <= set(table.columns):
            for rid, ptid in table[["RID", "PTID"]].dropna().drop_duplicates().itertuples(index=False):
                if ptid_of.setdefault(rid, ptid) != ptid:
                    raise NnmissError(f"RID {rid} stands with PTID {ptid_of[rid]} and {ptid}: the tables do not fit "
                                      "together")
    return ptid_of


def with_ptid(table: pd.DataFrame, ptid_of: dict[str, str], path: Path) -> pd.DataFrame:
    """The rows whose participant is known, with a PTID column. Raises NnmissError without PTID and RID columns."""
    if "PTID" not in table and "RID" not in table:
        raise NnmissError(f"{path} has neither PTID nor RID: its rows cannot be given to participants")
    known = table["RID"].map(ptid_of) if "RID" in table else pd.Series(None, index=table.index, dtype=object)
    ptid = table["PTID"].fillna(known) if "PTID" in table else known
    return table.assign(PTID=ptid)[ptid.notna()]


def in_time_order(table: pd.DataFrame) -> pd.DataFrame:
    """Rows sorted by visit; rows without a date come first, in the order of the file."""
    columns = [name for name in VISIT_TIMES if name in table] or [name for name in (EDIT_TIME,) if name in table]
    if not columns:
        return table
    times = pd.to_datetime(table[columns[0]], errors="coerce", format="mixed")
    for name in columns[1:]:
        times = times.fillna(pd.to_datetime(table[name], errors="coerce", format="mixed"))
    return table.loc[times.sort_values(kind="stable", na_position="first").index]


def at_baseline(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the first visits (screening and baseline); all rows of a table that names no visits."""
    columns = [name for name in ("VISCODE2", "VISCODE") if name in table]
    if not columns:
        return table
    visit = table[columns[0]].fillna(table[columns[-1]])  # VISCODE2 is empty in some rows of ADNI1
    return table[visit.fillna("").str.upper().isin(BASELINE_VISITS)]


def per_participant(table: pd.DataFrame, baseline: bool) -> pd.DataFrame:
    """PTID -> for each column the last value known, or with `baseline` the first one of the first visits."""
    table = in_time_order(at_baseline(table) if baseline else table)
    grouped = table.groupby("PTID", sort=True)
    return grouped.first() if baseline else grouped.last()


def rows_of(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """(PTID, its rows), by PTID."""
    return iter(table.groupby("PTID", sort=True))
