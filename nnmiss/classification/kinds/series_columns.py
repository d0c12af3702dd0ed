"""The variables of a time series: their entries in dataset.json, their cells in a csv, their place among the features."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnmiss.classification.kinds.csv_files import MISSING, number, read_cells
from nnmiss.classification.kinds.scaling import zscore
from nnmiss.classification.kinds.spec_checks import check_keys, one_of
from nnmiss.errors import NnmissError, shortened

MOST_STEPS = 100_000
LARGEST = float(np.finfo(np.float32).max)
EPSILON = 1e-6  # hours; puts a row at a bin's end into that bin, as the MIMIC benchmarks do


def check_columns(columns: dict | list | None, where: str) -> dict[str, dict]:
    """"columns" of dataset.json with their defaults; a list of names means continuous ones. Raises NnmissError."""
    if isinstance(columns, list) and all(isinstance(name, str) for name in columns):
        columns = {name: {} for name in columns} if len(set(columns)) == len(columns) else None
    if not isinstance(columns, dict) or not columns:
        raise NnmissError(f'{where}: "columns" must name the variables, each once, as '
                          '{"Glucose": {"kind": "continuous"}}')
    return {name: _check_column({"kind": column} if isinstance(column, str) else column, f"{where}: column {name!r}")
            for name, column in columns.items()}


def _check_column(column: dict, where: str) -> dict:
    column = check_keys(column, ("kind", "values", "normal", "mean", "sd"), where)
    column["kind"] = one_of(column, "kind", ("continuous", "categorical"), where)
    if column["kind"] == "continuous":
        if "values" in column:
            raise NnmissError(f'{where}: "values" are for "kind": "categorical"')
        for key in ("normal", "mean", "sd"):
            if column.get(key) is not None:
                column[key] = number(str(column[key]))
                if column[key] is None or np.isnan(column[key]) or (key == "sd" and column[key] <= 0):
                    raise NnmissError(f'{where}: "{key}" must be a {"positive " * (key == "sd")}number')
        if (column.get("mean") is None) != (column.get("sd") is None):
            raise NnmissError(f'{where}: "mean" and "sd", which replace the fitted ones, come together')
        return column
    values = column.get("values")
    if not isinstance(values, list) or not values:
        raise NnmissError(f'{where}: a categorical column needs "values", the list of its categories')
    column["values"] = [str(value).strip() for value in values]
    if len(set(column["values"])) < len(values) or "" in column["values"]:
        raise NnmissError(f'{where}: "values" must be distinct and not empty, got {values!r}')
    if column.get("normal") is not None and category(str(column["normal"]), column["values"]) is None:
        raise NnmissError(f'{where}: "normal" {column["normal"]!r} is not among its "values"')
    return column


def category(cell: str, values: list[str]) -> int | None:
    """Position of a cell in `values`, the same text or the same number ("15.0" is "15"); None where there is none."""
    if cell in values:
        return values.index(cell)
    value = number(cell)
    return next((i for i, known in enumerate(values) if value is not None and number(known) == value), None)


def binned(path: str | Path, spec: dict) -> np.ndarray:
    """(T, V) float32 of a csv: the last value of each bin, NaN where it has none; columns that are not named are ignored.

    Bin t holds t * timestep < time <= (t + 1) * timestep, the first also time 0. T = length / timestep, rounded up; without
    a length it reaches to the last row, even one of times only. Rows before 0 or after the length do not count.

    Raises NnmissError naming line and column of a cell that is no number or category, and for columns that are lacking.
    """
    header, rows = read_cells(path)
    names = [spec["time_column"], *spec["columns"]]
    lacking = [name for name in names if name not in header]
    if lacking:
        raise NnmissError(f"{path} lacks column {shortened(map(repr, lacking))}; it has {shortened(map(repr, header), 30)}")
    place = [header.index(name) for name in names]
    times = [number(row[place[0]]) for row in rows]
    for line, (time, row) in enumerate(zip(times, rows), 2):
        if time is None or time != time:
            raise NnmissError(f"{path}, row {line}, column {names[0]!r}: {row[place[0]]!r} is no time")
    end = spec["length"] or max(times)
    kept = sorted((i for i, time in enumerate(times) if -EPSILON <= time <= end + EPSILON), key=times.__getitem__)
    if not kept:
        raise NnmissError(f"{path}: no row lies from {names[0]} 0 to {end:g}, they are at {min(times):g} to {max(times):g}")
    step = spec["timestep"]
    if end / step > MOST_STEPS:
        raise NnmissError(f"{path}: {end:g} / {step:g} (length / timestep) are more than {MOST_STEPS} steps: check the "
                          'times, or give "length" or a longer "timestep" in dataset.json')
    out = np.full((max(1, int(end / step + 1 - EPSILON)), len(spec["columns"])), np.nan, np.float32)
    for i in kept:
        at = min(max(0, int(times[i] / step - EPSILON)), len(out) - 1)
        for v, (name, column) in enumerate(spec["columns"].items()):
            cell = rows[i][place[v + 1]]
            if cell:
                value = _value(cell, column, f"{path}, row {i + 2}, column {name!r}")
                if value == value:
                    out[at, v] = value
    return out


def _value(cell: str, column: dict, where: str) -> float:
    """Number, or position of a category; NaN where the cell says that it is missing."""
    if column["kind"] == "categorical":
        code = category(cell, column["values"])
        if code is None and cell.lower() in MISSING:
            return np.nan
        if code is None:
            raise NnmissError(f"{where}: {cell!r} is not one of its values {shortened(map(repr, column['values']), 15)}")
        return code
    value = number(cell)
    if value is None or abs(value) > LARGEST:
        raise NnmissError(f"{where}: {cell!r} is no finite number")
    return value


@dataclass(frozen=True)
class Columns:
    """Where the V variables lie among the features.

    names: of the variables. categorical: (V,) bool.
    normal: (V,) what to assume before any measurement; NaN where that is the training mean or commonest category.
    place: (V,) first feature of each. sizes: (V,) number of features of each. fixed: (V, 2) given mean and sd, or NaN.
    """

    names: list[str]
    categorical: np.ndarray
    normal: np.ndarray
    place: np.ndarray
    sizes: np.ndarray
    fixed: np.ndarray

    @property
    def width(self) -> int:
        """Number of features without those of what was measured."""
        return int(self.sizes.sum())

    def fill(self, series: np.ndarray) -> np.ndarray:
        """(V,) `normal` or else, of what (T, V) holds, the mean or the commonest category (0 where it holds nothing)."""
        out = self.normal.copy()
        for v in np.flatnonzero(np.isnan(out)):
            known = series[:, v][~np.isnan(series[:, v])]
            if self.categorical[v]:
                out[v] = np.bincount(known.astype(int), minlength=1).argmax()
            else:
                out[v] = known.mean() if len(known) else 0
        return out

    def filled(self, series: np.ndarray, fill: np.ndarray, impute: str) -> np.ndarray:
        """(T, V) without gaps: the last measurement or, before the first ("mean": everywhere), `fill`."""
        known = ~np.isnan(series)
        if impute == "mean":
            return np.where(known, series, fill)
        last = np.maximum.accumulate(np.where(known, np.arange(len(series))[:, None], -1), 0)  # (T, V)
        return np.where(last >= 0, np.take_along_axis(series, last.clip(0), 0), fill)

    def zscores(self, series: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(mean, sd) (V,) of filled series (T, V); as given where they are, (0, 1) of categories."""
        mean, sd = zscore(series)
        given = ~np.isnan(self.fixed[:, 0])
        mean, sd = np.where(given, self.fixed[:, 0], mean), np.where(given, self.fixed[:, 1], sd)
        return np.where(self.categorical, 0, mean), np.where(self.categorical, 1, sd)

    def features(self, series: np.ndarray, observed: np.ndarray | None) -> np.ndarray:
        """(T, F) float32: every variable in order, categories one-hot, then `observed` (T, V) as 0 and 1."""
        out = np.zeros((len(series), self.width), np.float32)
        plain = np.flatnonzero(~self.categorical)
        out[:, self.place[plain]] = series[:, plain]
        chosen = np.flatnonzero(self.categorical)
        out[np.arange(len(series))[:, None], self.place[chosen] + series[:, chosen].astype(int)] = 1
        return out if observed is None else np.concatenate([out, observed.astype(np.float32)], 1)


def columns_of(spec: dict) -> Columns:
    """The variables of a specification."""
    entries = list(spec["columns"].values())
    sizes = np.array([len(column.get("values", (0,))) for column in entries])
    normal = [np.nan if column.get("normal") is None else
              category(str(column["normal"]), column["values"]) if column["kind"] == "categorical" else column["normal"]
              for column in entries]
    fixed = [[np.nan if column.get(key) is None else column[key] for key in ("mean", "sd")] for column in entries]
    return Columns(list(spec["columns"]), np.array([column["kind"] == "categorical" for column in entries]),
                   np.array(normal, float), np.cumsum(sizes) - sizes, sizes, np.array(fixed, float))
