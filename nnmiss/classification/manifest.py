"""Reads manifest.csv, one row per sample, and names every cell that is wrong."""
from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from nnmiss.classification.description import SPLIT_COLUMN, Description, check_relative
from nnmiss.classification.kinds.csv_files import read_cells
from nnmiss.errors import NnmissError, nearest_names, shortened

FILE_NAMES = ("manifest.csv", "manifest.csv.gz")
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Problem:
    """Something wrong: with a sample (its id), or with the data set as a whole (sample None).

    Problems of label, subject and split cells are `training_only`: prediction does not need them.
    """

    sample: str | None
    text: str
    training_only: bool = False

    def __str__(self) -> str:
        return self.text if self.sample is None else f"sample {self.sample}: {self.text}"


@dataclass
class Manifest:
    """The rows of a manifest.csv, in its order.

    ids: unique (a row whose id is empty or stands there already is left out, with a problem).
    groups: subject of each row, its own id where there is no such column. split: "train", "val", "test" or "".
    targets: as SampleSet.targets; unlabelled where a label cell is empty or wrong.
    paths: modality without a "file" -> cell of each row, "" where absent; modalities whose column is lacking are absent.
    """

    path: Path
    columns: list[str]
    ids: list[str]
    groups: list[str]
    split: list[str]
    targets: Tensor
    paths: dict[str, list[str]]
    problems: list[Problem] = field(default_factory=list)


def read_manifest(folder: str | Path, description: Description) -> Manifest:
    """The manifest in `folder`, with the problems of its cells; label, subject, split and path columns may be absent.

    Files are not looked for. Raises NnmissError when there is no manifest, for what `read_cells` refuses, without the id
    column, and with some of the label columns of a multilabel task but not all.
    """
    path = _find(Path(folder))
    table = _read(path)
    _check_header(table, description, path)
    problems: list[Problem] = []
    table = _unique_ids(table, description.id_column, problems)
    ids = table[description.id_column].tolist()
    paths = {name: table[name].tolist() if name in table else [""] * len(ids) for name in description.path_modalities}
    return Manifest(path, list(table.columns), ids, _groups(table, ids, description.group_column, problems),
                    _split(table, ids, problems), _targets(table, ids, description, problems), paths, problems)


def required_columns(description: Description) -> list[str]:
    """The columns that a manifest for training must have."""
    named = [description.group_column] if "group_column" in description.content else []
    return [description.id_column, *named, *description.label_columns, *description.path_modalities]


def path_problems(folder: Path, manifest: Manifest) -> list[Problem]:
    """Path cells that leave the data set's folder, or name a file that is not there."""
    problems = []
    for modality, cells in manifest.paths.items():
        for sample, cell in zip(manifest.ids, cells):
            if not cell:
                continue
            try:
                check_relative(cell, f"column {modality}:")
            except NnmissError as error:
                problems.append(Problem(sample, str(error)))
                continue
            if not os.path.isfile(folder / cell):
                problems.append(Problem(sample, f"column {modality}: file {cell} is not there (leave the cell empty where "
                                                "the sample lacks the modality)"))
    return problems


def _find(folder: Path) -> Path:
    there = [folder / name for name in FILE_NAMES if (folder / name).is_file()]
    if len(there) != 1:
        raise NnmissError(f"{folder} has {'both' if there else 'neither'} {FILE_NAMES[0]} {'and' if there else 'nor'} "
                          f"{FILE_NAMES[1]}: exactly one of them must list the samples")
    return there[0]


def _read(path: Path) -> pd.DataFrame:
    """All cells as text, "" where empty; the index is the row, the header being row 1 and empty lines not counted."""
    header, rows = read_cells(path)
    return pd.DataFrame(rows, columns=header, index=range(2, len(rows) + 2), dtype=object)


def _check_header(table: pd.DataFrame, description: Description, path: Path) -> None:
    columns = list(table.columns)
    if description.id_column not in columns:
        raise NnmissError(f"{path} has no column {description.id_column!r} for the id. "
                          f"{nearest_names(description.id_column, columns)}")
    there = [name for name in description.label_columns if name in columns]
    lacking = [name for name in description.label_columns if name not in columns]
    if there and lacking:
        raise NnmissError(f"{path} has columns for {len(there)} of {len(there) + len(lacking)} labels, but lacks "
                          f"{shortened(map(repr, lacking))}: give all of them or none")


def _unique_ids(table: pd.DataFrame, column: str, problems: list[Problem]) -> pd.DataFrame:
    """The first row of every id."""
    rows = {name: list(where) for name, where in table.groupby(column, sort=False).groups.items()}
    for row in rows.pop("", []):
        problems.append(Problem(None, f"column {column}: empty in row {row} (the header is row 1)"))
    for name, where in rows.items():
        if len(where) > 1:
            problems.append(Problem(None, f"column {column}: id {name!r} stands in rows {shortened(map(str, where))}: ids "
                                          "must be unique"))
    return table.loc[[where[0] for where in rows.values()]]


def _groups(table: pd.DataFrame, ids: list[str], column: str, problems: list[Problem]) -> list[str]:
    if column not in table:
        return list(ids)
    for name, group in zip(ids, table[column]):
        if not group:
            problems.append(Problem(name, f"column {column}: empty, so it cannot be kept on one side of a split", True))
    return [group or name for name, group in zip(ids, table[column])]


def _split(table: pd.DataFrame, ids: list[str], problems: list[Problem]) -> list[str]:
    if SPLIT_COLUMN not in table:
        return [""] * len(ids)
    cells = table[SPLIT_COLUMN].tolist()
    given = {"train", "val"} & set(cells)
    for name, cell in zip(ids, cells):
        if cell not in ("", *SPLITS):
            problems.append(Problem(name, f"column {SPLIT_COLUMN}: {cell!r} is none of {', '.join(SPLITS)}", True))
        elif not cell and given:
            problems.append(Problem(name, f"column {SPLIT_COLUMN}: empty, while others say {' or '.join(sorted(given))}",
                                    True))
    return [cell if cell in SPLITS else "" for cell in cells]


def _targets(table: pd.DataFrame, ids: list[str], description: Description, problems: list[Problem]) -> Tensor:
    columns = [name for name in description.label_columns if name in table]
    if description.task == "multilabel":
        cells = [_values(table[name].tolist(), ["0", "1"], name, ids, problems) for name in columns]
        return _float(torch.stack(cells, 1) if cells else torch.full((len(ids), len(description.classes)), -1))
    values = _values(table[columns[0]].tolist(), description.label_values, columns[0], ids, problems) if columns \
        else torch.full((len(ids),), -1)
    given = set(table[columns[0]]) - {""} if columns else set()
    if given and given <= set(description.classes) - set(description.label_values):
        problems.append(Problem(None, f'column {columns[0]} holds the names of "labels" in dataset.json, not its keys: it '
                                      'maps what stands in the manifest to a name, as {"0": "home", "1": "intensive care"}',
                                True))
    return values if description.task == "multiclass" else _float(values[:, None])


def _values(cells: list[str], values: list[str], column: str, ids: list[str], problems: list[Problem]) -> Tensor:
    """(N,) long: position of each cell among `values`, -1 where it is empty or wrong."""
    position = {value: i for i, value in enumerate(values)}
    code = {cell: position.get(cell, position.get(cell.removesuffix(".0"), -1))  # spreadsheets write 1.0 into columns
            for cell in set(cells)}  # that have empty cells
    wrong = {cell for cell, number in code.items() if cell and number < 0}
    problems += [Problem(name, f"column {column}: {cell!r} is none of the values {shortened(values, 20)}", True)
                 for name, cell in zip(ids, cells) if cell in wrong]
    return torch.tensor([code[cell] for cell in cells], dtype=torch.long)


def _float(values: Tensor) -> Tensor:
    """0/1 as float, NaN where -1."""
    return torch.where(values < 0, torch.nan, values.float())
