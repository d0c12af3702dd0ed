"""Reads one score table that a BraTS portal returned: header, cases, and the rows of means as a check."""
from __future__ import annotations

import csv
from dataclasses import dataclass, field
from math import isclose, isfinite, isnan, nan
from pathlib import Path

import pandas as pd

from nnmiss.brats_years import CHALLENGES
from nnmiss.errors import NnmissError
from nnmiss.export.portal_columns import ID_COLUMNS, SUMMARY_ROWS, Header, read_header

MEAN_TOLERANCE = 1e-3  # relative; IPP rounds values to five digits
DOWNLOAD_AGAIN = "give the CSV as the portal sent it, not saved again by a spreadsheet"


@dataclass
class PortalTable:
    """One CSV: rows (case, region, metric, value), what could not be used, and what is worth knowing."""

    path: Path
    rows: list[tuple[str, str, str, float]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_portal_csv(path: str | Path) -> PortalTable:
    """Reads one CSV. Rows that cannot be used become errors that name the case; the others are kept.

    Raises NnmissError when the file is absent, no table, or has no column of scores.
    """
    path = Path(path)
    lines = _read_lines(path)
    names = lines[0]
    header = read_header(names)
    if _number(names[1]) is not None:
        raise NnmissError(f"{path} has no header, its first line is {','.join(names[:3])},...: {DOWNLOAD_AGAIN}")
    if not header.columns:
        raise NnmissError(f"{path}: no column of scores among {', '.join(names)[:300]}: expected names as Dice_ET, "
                          f"Hausdorff95_WT, LesionWise_Dice_TC; {DOWNLOAD_AGAIN}")
    if names[0].strip().lower() not in ID_COLUMNS and not header.by_position:
        raise NnmissError(f"{path}: the first column is {names[0]!r}, expected the case ids (Label, scan_id or "
                          f"subject_id): {DOWNLOAD_AGAIN}")
    table = PortalTable(path)
    _note_columns(table, header)
    summaries: dict[str, list[str]] = {}
    seen: set[str] = set()
    for number, cells in enumerate(lines[1:], start=2):
        label = cells[0].strip()
        if label.lower() in SUMMARY_ROWS:
            summaries.setdefault(label.lower(), cells)
        elif summaries and not any(challenge.is_id(_case_of(label)) for challenge in CHALLENGES.values()):
            table.errors.append(f"line {number}, {label!r}, stands below rows of means and is no case id of BraTS: "
                                f"{DOWNLOAD_AGAIN}")
        else:
            _add_row(table, header, cells, number, len(names), seen)
    _check_means(table, header, summaries.get("mean"))
    if not summaries:
        table.notes.append("no rows of means at the end, as portals write them: the table may be cut short")
    return table


def _read_lines(path: Path) -> list[list[str]]:
    """Header and rows, without empty ones."""
    if path.suffix.lower() in (".zip", ".xlsx", ".xls"):
        raise NnmissError(f"{path} is not a CSV: unpack it, and {DOWNLOAD_AGAIN}")
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            lines = [line for line in csv.reader(file) if any(cell.strip() for cell in line)]
    except FileNotFoundError:
        raise NnmissError(f"scores {path} not found: give the CSV that the portal returned") from None
    except (OSError, UnicodeDecodeError, csv.Error) as problem:
        raise NnmissError(f"scores {path} cannot be read as CSV ({problem}): {DOWNLOAD_AGAIN}") from None
    if not lines:
        raise NnmissError(f"scores {path} is empty: {DOWNLOAD_AGAIN}")
    if len(lines[0]) < 2:
        raise NnmissError(f"scores {path} has one column, {lines[0][0][:80]!r}: expected columns separated by commas; "
                          f"{DOWNLOAD_AGAIN}")
    return lines


def _note_columns(table: PortalTable, header: Header) -> None:
    if header.by_position:
        table.notes.append("column names unknown: taken by IPP's order, the first three as Dice, the last three as HD95, "
                           "each ET, WT, TC (" + ", ".join(c.name for c in header.columns) + ")")
    if header.unknown:
        table.notes.append(f"unknown columns were left out: {', '.join(header.unknown)}")
    if header.left_out:
        table.notes.append(f"columns that have no place in the tables were left out: {', '.join(header.left_out)}")


def _add_row(table: PortalTable, header: Header, cells: list[str], number: int, width: int, seen: set[str]) -> None:
    """Adds the values of a case, or an error that names it."""
    label = cells[0].strip()
    case = _case_of(label)
    if any("notfound" in cell.replace(" ", "").lower() for cell in cells):
        table.errors.append(f"case {case}: the portal found no ground truth of that name (GroundTruthSeg/NotFound): name "
                            "the file as the official case is called and submit again")
        return
    if not case:
        table.errors.append(f"line {number} has no case id: {DOWNLOAD_AGAIN}")
        return
    if case in seen:
        table.errors.append(f"case {case} stands there twice, again in line {number}: the first is used")
        return
    seen.add(case)
    if len(cells) != width:
        table.errors.append(f"case {case}: line {number} has {len(cells)} columns, the header {width}")
        return
    values = [(column, _number(cells[column.index])) for column in header.columns]
    bad = [f"{column.name} {cells[column.index]!r}" for column, value in values if value is None]
    if bad:
        table.errors.append(f"case {case}: not a number: {', '.join(bad)}")
        return
    if all(isnan(value) for _, value in values):
        table.errors.append(f"case {case}: no value at all, the portal could not score it (geometry or shape)")
        return
    if label.endswith("*"):
        table.notes.append(f"case {case} is marked with *: the portal could not score it and gave it the worst values")
    table.rows += [(case, column.region, column.metric, value) for column, value in values]


def _case_of(label: str) -> str:
    """The case id of a row: without the * of cases that could not be scored, and without file endings."""
    case = label.removesuffix("*").strip()
    for ending in (".nii.gz", "-seg", "_seg", "_gtv"):
        case = case.removesuffix(ending)
    return case


def _number(text: str) -> float | None:
    """The number in a cell, NaN for an empty one, 'nan' and infinities; None for anything else."""
    if not text.strip():
        return nan
    try:
        value = float(text)
    except ValueError:
        return None
    return value if isfinite(value) else nan


def _check_means(table: PortalTable, header: Header, cells: list[str] | None) -> None:
    """Notes, unless rows were rejected, that means in the file differ from those of its rows; and undefined values."""
    apart = []
    rows = pd.DataFrame(table.rows, columns=["case", "region", "metric", "value"])
    for column in header.columns:
        values = rows.loc[(rows["region"] == column.region) & (rows["metric"] == column.metric), "value"]
        undefined = list(rows.loc[values.index[values.isna()], "case"])
        if undefined:
            table.notes.append(f"{column.name} is undefined for {len(undefined)} of {len(values)} cases and left out of "
                               f"their mean: {', '.join(undefined[:3])}{' ...' if len(undefined) > 3 else ''}")
        theirs = _number(cells[column.index]) if cells and column.index < len(cells) else nan
        if theirs is None:
            table.errors.append(f"row of means: {column.name} {cells[column.index]!r} is not a number")
        elif not isnan(theirs) and not isclose(theirs, values.mean(), rel_tol=MEAN_TOLERANCE, abs_tol=1e-5):
            apart.append(f"the file's mean of {column.name} is {theirs:.6g}, that of its {len(values)} rows is "
                         f"{values.mean():.6g}")
    if apart and not table.errors:
        more = f" (and {len(apart) - 1} more columns differ)" if len(apart) > 1 else ""
        table.notes.append(f"{apart[0]}{more}: rows are missing or were changed")
