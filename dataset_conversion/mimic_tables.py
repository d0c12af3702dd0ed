"""The tables of a MIMIC-III or MIMIC-IV folder, found by name in any case, as csv or csv.gz, and read as text."""
from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from nnmiss.errors import NnmissError, shortened

TABLES = ("patients", "admissions", "icustays", "diagnoses_icd", "chartevents", "labevents")
SUBFOLDERS = ("core", "hosp", "icu")  # of MIMIC-IV; `core` until 1.0
DEPTH = 4  # folders below the one given in which the tables may lie
CHUNK_ROWS = 500_000  # about 0.3 GB of text at once


@dataclass(frozen=True)
class MimicTables:
    """Where the tables are. version: "III" or "IV"; layout: how to say it, as "MIMIC-IV (core, hosp, icu)"."""

    root: Path
    version: str
    layout: str
    paths: dict[str, Path]

    @property
    def stay_column(self) -> str:
        """The column that names an ICU stay."""
        return "icustay_id" if self.version == "III" else "stay_id"

    def read(self, table: str, columns: Sequence[str]) -> pd.DataFrame:
        """Some columns of a small table, lower-case names, text; empty cells are missing. Raises NnmissError."""
        return pd.concat(list(read_chunks(self.paths[table], columns)))

    def chunks(self, table: str, columns: Sequence[str], optional: Sequence[str] = ()) -> Iterator[pd.DataFrame]:
        """The same, in pieces of CHUNK_ROWS rows; `optional` columns are left out where the table lacks them."""
        return read_chunks(self.paths[table], columns, optional)


def find_tables(source: str | os.PathLike) -> MimicTables:
    """The tables of the release that lies in `source` or in a folder below it.

    Raises NnmissError when there is none, more than one, or one that lacks a table.
    """
    source = Path(source)
    if not source.is_dir():
        raise NnmissError(f"source folder {source} does not exist: -i takes the folder that holds MIMIC's tables")
    roots = {_release(path) for path in _walk(source) if _table_name(path) == "icustays"}
    if not roots:
        raise NnmissError(f"no icustays.csv or icustays.csv.gz in {source}: -i takes the folder of MIMIC-III, with the "
                          "tables in it, or of MIMIC-IV, with hosp and icu")
    if len(roots) > 1:
        raise NnmissError(f"more than one release in {source}: {shortened(map(str, sorted(roots)), 4)}; name one of them")
    root = roots.pop()
    paths = {}
    folders = [folder for folder in (root, *(root / name for name in SUBFOLDERS)) if folder.is_dir()]
    for path in sorted(path for folder in folders for path in folder.iterdir()):
        paths.setdefault(_table_name(path), path)  # x.csv comes before x.csv.gz
    lacking = [table for table in TABLES if table not in paths]
    if lacking:
        raise NnmissError(f"{root} lacks the tables {', '.join(lacking)} (csv or csv.gz): download them too")
    version = "III" if "icustay_id" in header(paths["icustays"]) else "IV"
    parts = [folder for folder in SUBFOLDERS if (root / folder).is_dir()]
    return MimicTables(root, version, f"MIMIC-{version}" + (f" ({', '.join(parts)})" if parts else ""),
                       {table: paths[table] for table in TABLES})


def header(path: Path) -> list[str]:
    """Lower-case column names of a table. Raises NnmissError for a damaged one."""
    with _named_errors(path):
        return [name.strip().lower() for name in pd.read_csv(path, nrows=0).columns]


def read_chunks(path: Path, columns: Sequence[str], optional: Sequence[str] = ()) -> Iterator[pd.DataFrame]:
    """A csv or csv.gz in pieces, all cells as text; a table without rows gives one piece without rows.

    Only an empty cell is missing: "None" is an answer of the Glasgow coma scale. Raises NnmissError for a table that lacks
    a column or is damaged.
    """
    names, wanted = header(path), {*columns, *optional}
    lacking = [name for name in columns if name not in names]
    if lacking:
        raise NnmissError(f"{path} lacks the columns {', '.join(lacking)}: expected a table of MIMIC")
    yield pd.DataFrame(columns=[name for name in names if name in wanted], dtype=str)
    with _named_errors(path), pd.read_csv(path, dtype=str, keep_default_na=False, na_values=[""], chunksize=CHUNK_ROWS,
                                          usecols=lambda name: name.strip().lower() in wanted) as pieces:
        for piece in pieces:
            piece.columns = piece.columns.str.strip().str.lower()
            yield piece


@contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    """Turns what pandas and gzip raise for a damaged table into an NnmissError that names it."""
    try:
        yield
    except (pd.errors.ParserError, pd.errors.EmptyDataError, EOFError, zlib.error, OSError, ValueError) as error:
        raise NnmissError(f"{path} cannot be read ({error}): download it again") from None


def _release(path: Path) -> Path:
    """The folder of the release that a table belongs to."""
    return path.parent.parent if path.parent.name.lower() in SUBFOLDERS else path.parent


def _table_name(path: Path) -> str:
    """'icustays' for ICUSTAYS.csv.gz, '' for other files."""
    name = path.name.lower().removesuffix(".gz")
    return name.removesuffix(".csv") if name.endswith(".csv") else ""


def _walk(folder: Path) -> Iterator[Path]:
    """Files at most DEPTH folders below."""
    top = len(folder.parts)
    for parent, below, names in os.walk(folder):
        below[:] = [name for name in below if not name.startswith(".")] if len(Path(parent).parts) - top < DEPTH else []
        yield from (Path(parent) / name for name in names)
