"""Tables: one row of numbers and categories per sample; types, ranges and vocabulary come from the training samples."""
from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nnmiss.classification.kinds.base import Kind, check_unique
from nnmiss.classification.kinds.csv_files import MISSING, number, read_cells
from nnmiss.classification.kinds.encoder_rules import mlp_encoder
from nnmiss.classification.kinds.scaling import SCALINGS
from nnmiss.classification.kinds.spec_checks import one_of
from nnmiss.errors import NnmissError, nearest_names, shortened

NAMES_FROM = 20  # cells: a column of text that differs in most of at least so many rows is no category but a name or a date


class TableKind(Kind):
    """Raw value: {column: cell}, all cells text."""

    name = "table"
    keys = ("columns", "scaling", "impute")

    def check_spec(self, spec: dict, where: str) -> dict:
        spec = super().check_spec(spec, where)
        if not isinstance(spec.get("file"), str):
            raise NnmissError(f'{where}: a table needs "file", a csv, csv.gz or parquet file whose first column is the id')
        spec["columns"] = spec.get("columns") or {}
        types = ("numeric", "categorical", "ignore")
        if not isinstance(spec["columns"], dict) or not set(map(str, spec["columns"].values())) <= set(types):
            raise NnmissError(f'{where}: "columns" must map names to one of {", ".join(types)}, got {spec["columns"]!r}')
        spec["scaling"] = one_of(spec, "scaling", ("minmax", "zscore"), where)
        spec["impute"] = one_of(spec, "impute", ("mean", "median"), where)
        return spec

    def read(self, path: str | Path, spec: dict) -> dict[str, str]:
        raise NnmissError(f'{path}: a table is one "file" of all samples, not a file of each')

    def read_file(self, path: str | Path, spec: dict) -> tuple[list[str], list[dict[str, str]]]:
        """Columns that dataset.json says to ignore are left out. Raises NnmissError as `read_cells`, for repeated or empty
        ids, columns that dataset.json types but the file lacks, and cells of numeric ones that are no numbers."""
        header, rows = read_cells(path)
        ids, names = [row[0] for row in rows], header[1:]
        check_unique(ids, path)
        if "" in ids:
            raise NnmissError(f"{path}: row {ids.index('') + 2} has no id in its first column {header[0]!r}")
        for name, kind in spec["columns"].items():
            if name not in names and kind != "ignore":
                raise NnmissError(f"{path} lacks column {name!r}, which dataset.json names. {nearest_names(name, names)}")
        used = [i for i, name in enumerate(header) if i and spec["columns"].get(name) != "ignore"]
        if not used:
            raise NnmissError(f"{path} has no column but the id {header[0]!r}")
        values = [{header[i]: row[i] for i in used} for row in rows]
        for name in (name for name, kind in spec["columns"].items() if kind == "numeric"):
            bad = [(i, row[name]) for i, row in zip(ids, values) if number(row[name]) is None]
            if bad:
                raise NnmissError(f"{path}: column {name!r} is numeric, but has {len(bad)} other cells: "
                                  f"{shortened(f'{cell!r} of {i!r}' for i, cell in bad)}")
        return ids, values

    def pack(self, values: list, spec: dict) -> dict[str, np.ndarray]:
        """All cells end to end as UTF-8, with their lengths (n, columns) and the column names."""
        names = list(values[0]) if values else []
        cells = [row[name].encode() for row in values for name in names]
        return {"columns": np.array(names, dtype=np.str_), "text": np.frombuffer(b"".join(cells), np.uint8),
                "lengths": np.array([len(cell) for cell in cells], np.int32).reshape(len(values), len(names))}

    def unpack(self, arrays: dict[str, np.ndarray], spec: dict) -> list[dict[str, str]]:
        names, text = arrays["columns"].tolist(), arrays["text"].tobytes()
        ends = np.cumsum(arrays["lengths"], dtype=np.int64).reshape(arrays["lengths"].shape)
        return [{name: text[end - length:end].decode() for name, end, length in zip(names, row, lengths)}
                for row, lengths in zip(ends.tolist(), arrays["lengths"].tolist())]

    def misfits(self, values: list, spec: dict, fitted: dict | None = None) -> dict[int, str]:
        """Rows that lack a column of training, or whose cell in a numeric one is no number."""
        if not fitted:
            return {}
        wrong = {}
        for i, row in enumerate(values):
            lacking = [name for name in fitted["columns"] if name not in row]
            bad = [f"{name} is {row[name]!r}" for name, column in fitted["columns"].items()
                   if name in row and column["kind"] == "numeric" and number(row[name]) is None]
            if lacking:
                wrong[i] = f"the table lacks column {shortened(map(repr, lacking))}, which the training samples have"
            elif bad:
                wrong[i] = f"in columns that are numeric in the training samples, {shortened(bad)}"
        return wrong

    def fit(self, values: list, spec: dict, example: dict | None = None) -> dict:
        """{"columns": {name: ...}, "left_out": {name: why}}: numeric {"kind", "fill", "shift", "scale"}, categorical
        {"kind", "fill", "values"}. Raises NnmissError when no training sample has the table or no column is left."""
        if not values:
            raise NnmissError("no training sample has this table, so its columns, ranges and categories are unknown: leave "
                              "it out of dataset.json or change the split")
        columns, left_out = {}, {}
        for name in values[0]:
            cells = [row[name] for row in values if row[name].lower() not in MISSING]
            guess = "categorical" if any(number(cell) is None for cell in cells) else "numeric"
            kind = spec["columns"].get(name, guess)
            if not cells:
                left_out[name] = "empty in every training sample"
            elif kind == "numeric":
                columns[name] = self._numeric(np.array([number(row[name]) for row in values], float), spec)
            elif name not in spec["columns"] and len(cells) >= NAMES_FROM and len(set(cells)) > len(cells) / 2:
                left_out[name] = (f"{len(set(cells))} different texts in {len(cells)} training samples: no category "
                                  '(to use it, call it "categorical" in dataset.json)')
            else:
                counts = Counter(cells)
                columns[name] = {"kind": "categorical", "fill": min(counts, key=lambda cell: (-counts[cell], cell)),
                                 "values": sorted(counts)}
        if not columns:
            raise NnmissError("no column of this table can be used: "
                              + shortened(f"{name} ({why})" for name, why in left_out.items()))
        return {"columns": columns, "left_out": left_out}

    @staticmethod
    def unseen(values: list, fitted: dict) -> list[str]:
        """Categorical columns in which some of these tables hold what training had not: zeros after `transform`."""
        said = []
        for name, column in fitted["columns"].items():
            if column["kind"] == "categorical":
                cells = [row[name] for row in values if row[name].lower() not in MISSING]
                new = [cell for cell in cells if cell not in column["values"]]
                if new:
                    said.append(f"column {name} of {len(new)} sample(s) holds categories that training had not, which "
                                f"count as none: {shortened(sorted(set(new)), 5)}")
        return said

    @staticmethod
    def suspicions(spec: dict, fitted: dict) -> list[str]:
        """Columns guessed categorical of which most values are numbers, perhaps with a decimal comma: a typing mistake?"""
        said = []
        for name, column in fitted["columns"].items():
            if column["kind"] != "categorical" or name in spec["columns"]:
                continue
            strange = [value for value in column["values"] if number(value) is None]
            numbers = len(column["values"]) - sum(number(value.replace(",", ".")) is None for value in strange)
            if numbers > len(column["values"]) / 2:
                said.append(f"column {name} is read as {len(column['values'])} categories, because of cells that are no "
                            f"numbers: {shortened(map(repr, strange), 3)}. Correct them, or call it \"categorical\" in "
                            "dataset.json")
        return said

    @staticmethod
    def _numeric(column: np.ndarray, spec: dict) -> dict:
        """Fill and scaling of a numeric column (n,), NaN where missing."""
        fill = float({"mean": np.nanmean, "median": np.nanmedian}[spec["impute"]](column))
        shift, scale = SCALINGS[spec["scaling"]](np.where(np.isnan(column), fill, column)[:, None])
        return {"kind": "numeric", "fill": fill, "shift": float(shift[0]), "scale": float(scale[0])}

    def transform(self, values: list, spec: dict, fitted: dict) -> Tensor:
        """(n, F): numbers scaled, categories one-hot; a category that training had not is all zeros."""
        parts = []
        for name, column in fitted["columns"].items():
            cells = [row[name] for row in values]
            if column["kind"] == "numeric":
                numbers = np.array([number(cell) for cell in cells], float)
                parts.append(((np.where(np.isnan(numbers), column["fill"], numbers) - column["shift"])
                              / column["scale"])[:, None])
            else:
                place = {value: i for i, value in enumerate(column["values"])}
                codes = [place.get(column["fill"] if cell.lower() in MISSING else cell, -1) for cell in cells]
                parts.append(np.array(codes, int).reshape(-1, 1) == np.arange(len(place)))
        return torch.from_numpy(np.concatenate(parts, 1).astype(np.float32))

    def shape(self, values: list, spec: dict) -> tuple[int | None, ...]:
        """By all samples: each may bring a category of its own."""
        return tuple(self.transform(values[:1], spec, self.fit(values, spec)).shape[1:])

    def default_encoder(self, spec: dict, shape: tuple[int | None, ...], num_samples: int) -> dict:
        return dict(spec.get("encoder") or mlp_encoder(shape, num_samples))
