"""Time series: rows of a csv put into bins of equal length, gaps filled, categories one-hot, and what was measured."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nnmiss.classification.kinds.base import Kind
from nnmiss.classification.kinds.encoder_rules import series_encoder
from nnmiss.classification.kinds.npy_files import numbers
from nnmiss.classification.kinds.series_columns import binned, check_columns, columns_of
from nnmiss.classification.kinds.spec_checks import one_of, positive, true_or_false
from nnmiss.errors import NnmissError


class TimeSeriesKind(Kind):
    """Raw value: (T, V) float32, one column per variable; NaN where nothing was measured, categories as their position.

    With the 17 variables of the MIMIC benchmarks the transformed series have their 76 features: each variable in order, as
    its z-score or one-hot, then 17 columns of what was measured.
    """

    name = "timeseries"
    keys = ("time_column", "timestep", "length", "columns", "impute", "observed")

    def check_spec(self, spec: dict, where: str) -> dict:
        spec = super().check_spec(spec, where)
        spec["time_column"] = spec.get("time_column", "Hours")
        if not isinstance(spec["time_column"], str):
            raise NnmissError(f'{where}: "time_column" is {spec["time_column"]!r}, expected a column\'s name')
        spec["timestep"] = positive(spec, "timestep", 1.0, where)
        spec["length"] = positive(spec, "length", None, where)
        spec["columns"] = check_columns(spec.get("columns"), where)
        spec["impute"] = one_of(spec, "impute", ("previous", "mean"), where)
        spec["observed"] = true_or_false(spec, "observed", True, where)
        return spec

    def read(self, path: str | Path, spec: dict) -> np.ndarray:
        return binned(path, spec)

    def from_array(self, array: np.ndarray, spec: dict, where: str) -> np.ndarray:
        """(T, V) of values in bins already."""
        if array.ndim != 2 or array.shape[1] != len(spec["columns"]):
            raise NnmissError(f"{where} holds an array of shape {array.shape}, expected (steps, {len(spec['columns'])})")
        array = numbers(array, where, missing=True)
        for v, (name, column) in enumerate(spec["columns"].items()):
            codes, count = array[:, v][~np.isnan(array[:, v])], len(column.get("values", ()))
            if column["kind"] == "categorical" and not np.isin(codes, np.arange(count)).all():
                raise NnmissError(f"{where}, column {name!r}: expected positions 0 to {count - 1} in its \"values\"")
        return array

    def misfits(self, values: list, spec: dict, fitted: dict | None = None) -> dict[int, str]:
        return {}  # any number of steps; `read` has seen to the columns

    def fit(self, values: list, spec: dict, example: np.ndarray | None = None) -> dict:
        """{"fill", "shift", "scale"} by variable: what stands before the first measurement, and the z-score.

        The z-score is of the filled bins of all training series, as the MIMIC benchmarks have it; categories have (0, 1).
        """
        columns = columns_of(spec)
        series = np.concatenate(values).astype(np.float64) if values else np.zeros((0, len(columns.names)))
        fill = columns.fill(series)
        filled = [columns.filled(value.astype(np.float64), fill, spec["impute"]) for value in values]
        shift, scale = columns.zscores(np.concatenate(filled) if filled else series)
        return {key: dict(zip(columns.names, found.tolist())) for key, found in
                (("fill", fill), ("shift", shift), ("scale", scale))}

    def transform(self, values: list, spec: dict, fitted: dict) -> list[Tensor]:
        """n series (T, F) float32."""
        columns = columns_of(spec)
        fill, shift, scale = (np.array([fitted[key][name] for name in columns.names]) for key in ("fill", "shift", "scale"))
        series = []
        for value in values:
            filled = columns.filled(value.astype(np.float64), fill, spec["impute"])
            observed = ~np.isnan(value) if spec["observed"] else None
            series.append(torch.from_numpy(columns.features((filled - shift) / scale, observed)))
        return series

    def shape(self, values: list, spec: dict) -> tuple[int | None, ...]:
        return None, columns_of(spec).width + (len(spec["columns"]) if spec["observed"] else 0)

    def default_encoder(self, spec: dict, shape: tuple[int | None, ...], num_samples: int) -> dict:
        return dict(spec.get("encoder") or series_encoder(shape, num_samples))
