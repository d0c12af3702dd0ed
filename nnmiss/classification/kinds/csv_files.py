"""Tables of text cells from csv, csv.gz and parquet; every cell stays text until its column's type is known."""
from __future__ import annotations

import csv
import gzip
import io
import math
import os
from pathlib import Path
from typing import BinaryIO

import torch

from nnmiss.errors import NnmissError
from nnmiss.inference.memory import free_bytes

LITTLE, LARGEST = 2**26, 2**30  # bytes of text that are read whatever is free, and at most
BYTES_PER_BYTE = 8  # of memory, of text in cells

MISSING = frozenset({"", "na", "n/a", "nan", "null", "<na>"})  # of cells, without regard to case and spaces

SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}  # of csv files that are not separated by commas


def read_cells(path: str | os.PathLike) -> tuple[list[str], list[list[str]]]:
    """(column names, rows of cells) of a csv, csv.gz or parquet file, without empty lines and spaces around cells.

    Raises NnmissError when the file is absent, damaged, empty, not separated by commas, or has repeated or nameless columns
    (the first may be nameless, as pandas writes an index), or rows of another length.
    """
    lines = _parquet(path) if str(path).lower().endswith((".parquet", ".pq")) else _csv(path)
    if not lines:
        raise NnmissError(f"{path} is empty, expected a line of column names and rows below it")
    header, rows = lines[0][1], []
    other = next((name for mark, name in SEPARATORS.items() if mark in header[0]), None) if len(header) == 1 else None
    if other:
        raise NnmissError(f"{path}: its cells seem to be separated by {other}; save it with commas")
    bad = sorted({name for name in header if header.count(name) > 1 or (not name and name in header[1:])})
    if bad:
        raise NnmissError(f"{path}: column names must differ and not be empty, got {', '.join(map(repr, bad))}")
    for line, cells in lines[1:]:
        if len(cells) != len(header):
            raise NnmissError(f"{path}, line {line}: {len(cells)} cells, but there are {len(header)} columns")
        rows.append(cells)
    if not rows:
        raise NnmissError(f"{path} has column names but no row")
    return header, rows


def _csv(path: str | os.PathLike) -> list[tuple[int, list[str]]]:
    """(line number, cells) of every line that is not empty."""
    try:
        with open(path, "rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        opener = gzip.open if packed else open
        with opener(path, "rb") as raw, io.TextIOWrapper(io.BufferedReader(_Bounded(raw)), "utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            return [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader
                    if len(cells) > 1 or "".join(cells).strip()]
    except FileNotFoundError:
        raise NnmissError(f"{path} does not exist") from None
    except (OSError, EOFError, csv.Error, UnicodeDecodeError, ValueError) as error:
        raise NnmissError(f"{path} cannot be read as csv ({error}): expected a whole file of UTF-8 text, cells separated "
                          "by commas") from None
    except Exception as error:  # zlib's errors have no common base
        raise NnmissError(f"{path} cannot be unpacked ({error}): it is damaged") from None


class _Bounded(io.RawIOBase):
    """A file that raises ValueError where it is longer, unpacked, than this machine can hold as cells, or not text."""

    def __init__(self, file: BinaryIO):
        self.file, self.left = file, max(LITTLE, min(LARGEST, free_bytes(torch.device("cpu")) // BYTES_PER_BYTE))

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        content = self.file.read(len(buffer))
        self.left -= len(content)
        if self.left < 0:
            raise ValueError("unpacked it is larger than any table that can be read here")
        if b"\0" in content:
            raise ValueError("it holds NUL bytes")
        buffer[:len(content)] = content
        return len(content)


def _parquet(path: str | os.PathLike) -> list[tuple[int, list[str]]]:
    import pandas

    if not Path(path).is_file():
        raise NnmissError(f"{path} does not exist")
    try:
        frame = pandas.read_parquet(path)
    except ImportError:
        raise NnmissError(f"{path}: parquet needs pyarrow (pip install pyarrow), or save the table as csv.gz") from None
    except Exception as error:  # pyarrow's own errors
        raise NnmissError(f"{path} cannot be read as parquet ({error})") from None
    if frame.index.name is not None:
        frame = frame.reset_index()
    cells = frame.astype(object).where(frame.notna(), "").to_numpy().tolist()
    rows = [[str(cell).strip() for cell in row] for row in cells]
    return list(enumerate([[str(name) for name in frame.columns], *rows], 1))


def number(cell: str) -> float | None:
    """The finite number in a cell, NaN where it is MISSING, None where it is anything else."""
    if cell.strip().lower() in MISSING:
        return math.nan
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) and "_" not in cell else None  # Python reads the genotype 3_4 as 34
