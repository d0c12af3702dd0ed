"""Reads a pandas table out of a pickle without running anything that the pickle names.

A pickle is a program: it names functions and has them called. Here every name that pandas' and NumPy's tables need stands
for an inert record of what it was called with, any other name is refused, and the table is rebuilt from the records with
checks. No function or class of pandas, NumPy or any other package is looked up.
"""
from __future__ import annotations

import os
import pickle
import re
from math import prod
from pathlib import Path

import numpy as np
import pandas as pd

from nnmiss.errors import NnmissError

# name in a pickle -> what it stands for. Both spellings of NumPy's modules: 1.x and 2.x; several of pandas'.
NAMES = {
    **{(f"numpy.{core}.multiarray", "_reconstruct"): "array" for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): "buffer" for core in ("core", "_core")},
    ("numpy", "ndarray"): "type",
    ("numpy", "dtype"): "dtype",
    **{(module, "DataFrame"): "frame" for module in ("pandas", "pandas.core.frame")},
    ("pandas.core.internals.managers", "BlockManager"): "manager",
    ("pandas._libs.internals", "_unpickle_block"): "block",
    ("pandas.core.internals.blocks", "new_block"): "block",
    ("pandas._libs.arrays", "__pyx_unpickle_NDArrayBacked"): "text array",
    **{(module, name): "type" for module in ("pandas.arrays", "pandas.core.arrays.string_") for name in
       ("StringArray", "StringArrayNumpySemantics")},
    **{(module, "StringDtype"): "type" for module in ("pandas", "pandas.core.arrays.string_")},
    ("pandas.core.indexes.base", "_new_Index"): "index",
    **{(module, "Index"): "type" for module in ("pandas", "pandas.core.indexes.base")},
    **{(module, "RangeIndex"): "type" for module in ("pandas", "pandas.core.indexes.range")},
    ("pandas.core.indexes.numeric", "Int64Index"): "type",
    **{(module, "slice"): "slice" for module in ("builtins", "__builtin__")},
    ("_codecs", "encode"): "bytes",
}
DTYPES = re.compile(r"[biuf][1248]|O8?")  # of arrays; no text, dates or structures stand in these tables
DAMAGE = (pickle.UnpicklingError, EOFError, ImportError, AttributeError, IndexError, KeyError, TypeError, ValueError,
          MemoryError, OverflowError, RecursionError)


class _Record:
    """What a name in the pickle was called with, and the state it was then given."""

    __slots__ = ("args", "state")
    kind = ""

    def __new__(cls, *args: object) -> _Record:
        record = object.__new__(cls)
        record.args, record.state = args, None
        return record

    def __init__(self, *args: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):
    """Builds records only; the classes are made anew for every file, so that a pickle cannot change them for another."""

    def __init__(self, file, path: Path):
        super().__init__(file)
        self.path = path
        self.kinds = {kind: type(kind, (_Record,), {"__slots__": (), "kind": kind}) for kind in set(NAMES.values())}

    def find_class(self, module: str, name: str) -> type:
        if (module, name) not in NAMES:
            raise NnmissError(f"{self.path} is refused: it wants to call {module}.{name}, which no table of images needs. "
                              "A pickle can run any program; do not open this one with anything else either")
        return self.kinds[NAMES[module, name]]


def read_frame(path: str | os.PathLike) -> pd.DataFrame:
    """The table in a pickle that pandas' to_pickle wrote, rows numbered from 0; cells are numbers, text or arrays.

    Raises NnmissError for a file that is absent, damaged, no such table, or names anything else than a table needs.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            record = _Unpickler(file, path).load()
        return pd.DataFrame(_columns(record))
    except FileNotFoundError:
        raise NnmissError(f"{path} does not exist") from None
    except DAMAGE as error:
        raise NnmissError(f"{path} is no table written by pandas' to_pickle, or is damaged "
                          f"({type(error).__name__}: {error})") from None


def _columns(frame: object) -> dict[str, pd.Series]:
    """Column name -> values, from the record of a DataFrame."""
    manager = _of_kind(_of_kind(frame, "frame").state["_mgr"], "manager")
    blocks, axes = manager.args
    names = [str(name) for name in _labels(axes[0])]
    columns: dict[int, np.ndarray] = {}
    for block in blocks:
        values, placement = _of_kind(block, "block").args[:2]
        values = _array(values)
        values = values[None] if values.ndim == 1 else values  # (columns of the block, rows)
        where = _placement(placement, len(names))
        if len(where) != len(values):
            raise ValueError("a block has another number of columns than places")
        columns.update(zip(where, values))
    if sorted(columns) != list(range(len(names))) or len({len(column) for column in columns.values()}) > 1:
        raise ValueError("columns are lacking or of different lengths")
    return {name: pd.Series(list(columns[i]), dtype=columns[i].dtype) for i, name in enumerate(names)}


def _labels(index: object) -> list:
    """The labels of the columns."""
    content = _of_kind(index, "index").args[1]
    return list(_array(content["data"])) if "data" in content else \
        list(range(content["start"], content["stop"], content["step"]))


def _placement(record: object, count: int) -> list[int]:
    if isinstance(record, _Record) and record.kind == "slice":
        return list(range(count))[slice(*record.args)]
    return [int(i) for i in _array(record)]


def _array(record: object, within: bool = False) -> np.ndarray:
    """The array that a record stands for. The cells of an array of objects may be arrays of numbers (`within`), no more:
    arrays that repeat each other within each other would take for ever."""
    record = _of_kind(record, "array", "buffer", "text array")
    if record.kind == "text array":
        return _array(next(part for part in record.state if getattr(part, "kind", "") in ("array", "buffer")))
    axes = None
    if record.kind == "buffer":
        data, dtype, shape, order = record.args[:4]
        if order == "K":  # the axes lie in memory in another order, which is the fifth
            order, axes = "C", [int(axis) for axis in record.args[4]]
    else:
        _, shape, dtype, fortran, data = record.state
        order = "F" if fortran else "C"
    dtype, shape = _dtype(dtype), tuple(int(n) for n in shape)
    if not all(n >= 0 for n in shape) or order not in ("C", "F"):
        raise ValueError(f"an array of shape {shape} in order {order!r}")
    if dtype.hasobject:
        if within or not isinstance(data, list) or len(data) != prod(shape):
            raise ValueError("an array of objects without them")
        flat = np.empty(len(data), object)
        for i, cell in enumerate(data):
            flat[i] = _array(cell, within=True) if isinstance(cell, _Record) else _plain(cell)
    else:
        flat = np.frombuffer(_bytes(data), dtype)
    out = flat.reshape(shape, order=order)
    return out if axes is None else out.transpose(axes)


def _dtype(record: object) -> np.dtype:
    code, order = _of_kind(record, "dtype").args[0], (record.state or (3, "|"))[1]
    if not isinstance(code, str) or not DTYPES.fullmatch(code) or order not in ("<", ">", "|", "="):
        raise ValueError(f"an array of type {code!r}")
    return np.dtype(object) if code.startswith("O") else np.dtype(code).newbyteorder(order)


def _bytes(data: object) -> bytes:
    """Raw content; protocol 2 writes it as text to be encoded."""
    if isinstance(data, _Record) and data.kind == "bytes" and data.args[1] in ("latin1", "latin-1"):
        return str(data.args[0]).encode("latin-1")
    if not isinstance(data, (bytes, bytearray)):
        raise ValueError("an array without content")
    return bytes(data)


def _plain(cell: object) -> object:
    if not isinstance(cell, (str, int, float, bool, type(None))):
        raise ValueError(f"a cell that is a {type(cell).__name__}")
    return cell


def _of_kind(record: object, *kinds: str) -> _Record:
    if not isinstance(record, _Record) or record.kind not in kinds:
        raise ValueError(f"expected a {' or '.join(kinds)}, got {getattr(record, 'kind', None) or type(record).__name__}")
    return record
