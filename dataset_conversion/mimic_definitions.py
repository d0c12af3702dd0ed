"""The public benchmark's definitions for MIMIC: 17 variables with their items and ranges, and 25 phenotypes by ICD code."""
from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from nnmiss.atomic_files import read_json

RESOURCES = Path(__file__).parent / "mimic_resources"
EVENT_TABLES = ("chartevents", "labevents")
TIME_COLUMN = "Hours"


@dataclass(frozen=True)
class Variable:
    """One of the 17 variables.

    Attributes:
        name: as in the benchmark's files.
        values: of a categorical variable, in the order of its one-hot columns; empty for a continuous one.
        normal: what stands in for a value that was never measured; text for a categorical variable.
        valid, outlier: (low, high) of a continuous variable: outside `outlier` a value is dropped, else clipped to `valid`.
        published: (mean, standard deviation) that the benchmark standardises a continuous variable with, of its own
            MIMIC-III bins with outliers left in.
        items: event table -> item ids that measure it.
        units: "in", "lb" or "oz" -> items charted in that unit, whatever their unit column says.
    """

    name: str
    values: tuple[str, ...]
    normal: str | float
    valid: tuple[float, float] | None
    outlier: tuple[float, float] | None
    published: tuple[float, float] | None
    items: dict[str, tuple[int, ...]]
    units: dict[str, tuple[int, ...]]

    @property
    def sorted_values(self) -> list[str]:
        """The categories in the order of their text, by which events store them (see `mimic_events`)."""
        return sorted(self.values)

    def column_spec(self, published: bool = False) -> dict:
        """This variable in the "columns" of a `timeseries` modality; `published`: with those mean and sd, not fitted."""
        if self.values:
            return {"kind": "categorical", "values": list(self.values), "normal": self.normal}
        fixed = dict(zip(("mean", "sd"), self.published)) if published else {}
        return {"kind": "continuous", "normal": self.normal, **fixed}


@dataclass(frozen=True)
class Phenotype:
    """A group of diagnoses: its type (acute, mixed or chronic) and its codes, without points, by version of the ICD."""

    name: str
    group: str
    codes: dict[str, frozenset[str]]


@cache
def variables() -> tuple[Variable, ...]:
    """The 17 variables in the benchmark's order, which is alphabetical."""
    entries = read_json(RESOURCES / "variables.json", "variables of MIMIC")["variables"]
    return tuple(Variable(name, tuple(entry.get("values", ())), entry["normal"], _pair(entry.get("valid")),
                          _pair(entry.get("outlier")), (entry["mean"], entry["sd"]) if "mean" in entry else None,
                          {table: tuple(entry[table]) for table in EVENT_TABLES},
                          {unit: tuple(items) for unit, items in entry.get("units", {}).items()})
                 for name, entry in entries.items())


@cache
def phenotypes() -> tuple[Phenotype, ...]:
    """The 25 phenotypes in the benchmark's order, which is alphabetical."""
    entries = read_json(RESOURCES / "phenotypes.json", "phenotypes of MIMIC")["phenotypes"]
    return tuple(Phenotype(name, entry["group"], {"9": frozenset(entry["icd9"]), "10": frozenset(entry["icd10"])})
                 for name, entry in entries.items())


def timeseries_spec(length_hours: float | None, published: bool = False) -> dict:
    """The `timeseries` modality: hourly bins of 17 variables and what was measured, 76 features in all. `published`: see
    `Variable.column_spec`."""
    return {"type": "timeseries", "time_column": TIME_COLUMN, "timestep": 1.0, "length": length_hours,
            "columns": {v.name: v.column_spec(published) for v in variables()}, "impute": "previous", "observed": True,
            "encoder": {"name": "lstm", "hidden": 256, "layers": 2, "dropout": 0.3}}


def _pair(values: list[float] | None) -> tuple[float, float] | None:
    return None if values is None else (values[0], values[1])
