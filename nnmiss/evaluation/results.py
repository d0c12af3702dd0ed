"""The long table of results: its columns, reading those of other methods, and restricting methods to common cases."""
from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from nnmiss.atomic_files import read_json, replacing
from nnmiss.availability import parse_subset, subset_name
from nnmiss.errors import NnmissError
from nnmiss.evaluation.conventions import Conventions

COLUMNS = ["case", "subset", "region", "metric", "value"]


@dataclass(frozen=True)
class Method:
    """Results of one method under the name it has in tables."""

    name: str
    results: pd.DataFrame
    """Columns `COLUMNS`; one row per case, subset, region and metric."""
    conventions: Conventions | None
    """None where no summary.json lies beside the results."""


def write_results(results: pd.DataFrame, path: Path) -> None:
    """Writes results.csv atomically; undefined values are empty cells."""
    with replacing(path) as temporary:
        results[COLUMNS].to_csv(temporary, index=False, lineterminator="\n")


def read_method(specification: str | Path, modalities: list[str]) -> Method:
    """Reads `PATH` or `NAME=PATH`, where PATH is a results.csv or a folder that holds one.

    The name defaults to the folder's. Subset names are made canonical. Raises NnmissError for an absent or malformed
    file, unknown modalities, values that are no numbers, or a row that stands there twice.
    """
    name, path = _name_and_path(str(specification))
    try:
        results = pd.read_csv(path, dtype=dict.fromkeys(COLUMNS[:-1], str), keep_default_na=False,
                              na_values={"value": [""]})
    except (OSError, ValueError) as error:  # pandas' parser errors are ValueErrors
        raise NnmissError(f"cannot read results {path} ({error})") from None
    if list(results.columns) != COLUMNS:
        raise NnmissError(f"{path}: columns must be {','.join(COLUMNS)}, got {','.join(map(str, results.columns))}")
    if results.empty:
        raise NnmissError(f"{path} has no rows: evaluate that method again")
    if not pd.api.types.is_numeric_dtype(results["value"]):
        bad = results["value"][pd.to_numeric(results["value"], errors="coerce").isna()].iloc[0]
        raise NnmissError(f"{path}: column value must hold numbers, got {bad!r}")
    canonical = {s: subset_name(parse_subset(s, modalities), modalities) for s in results["subset"].unique()}
    results["subset"] = results["subset"].map(canonical)
    twice = results.duplicated(COLUMNS[:-1])
    if twice.any():
        raise NnmissError(f"{path}: this row stands there twice: {','.join(results[twice].iloc[0, :4])}")
    summary = path.with_name("summary.json")
    conventions = None
    if summary.is_file():
        conventions = Conventions.from_dict(read_json(summary, "summary").get("conventions", {}))
    return Method(name, results, conventions)


def _name_and_path(specification: str) -> tuple[str, Path]:
    name, path = "", Path(specification)
    if "=" in specification and not path.exists():
        name, _, rest = specification.partition("=")
        path = Path(rest)
    if path.is_dir():
        path = path / "results.csv"
    if not path.is_file():
        raise NnmissError(f"results to compare with not found: {path}. Give a results.csv, a folder that holds one, or "
                          "NAME=PATH")
    return name or (path.resolve().parent.name if path.name == "results.csv" else path.stem), path


def check_comparable(name: str, regions: list[str], conventions: Conventions, others: list[Method],
                     with_ece: bool = False) -> list[str]:
    """Refuses methods that cannot stand beside ours, before anything is computed; returns notes.

    Raises NnmissError when two methods have one name, or regions or conventions differ. The bins of the ECE may, unless
    there is an ECE of both: of ours `with_ece` says so.
    """
    names = [name, *(m.name for m in others)]
    if len(set(names)) < len(names):
        raise NnmissError(f"methods to compare need different names, got {', '.join(names)}: use NAME=PATH or --name")
    notes = []
    for other in others:
        theirs = set(other.results["region"])
        if theirs != set(regions):
            raise NnmissError(f"{other.name} has regions {sorted(theirs)}, {name} has {sorted(regions)}: evaluate both "
                              "with one dataset.json")
        if other.conventions is None:
            notes.append(f"{other.name}: no summary.json beside its results, its conventions are taken to be ours")
            continue
        bins_matter = with_ece and (other.results["metric"] == "ece").any()
        if other.conventions != (conventions if bins_matter else
                                 replace(conventions, ece_bins=other.conventions.ece_bins)):
            raise NnmissError(f"{other.name} was evaluated with other conventions ({other.conventions}) than {name} "
                              f"({conventions}): evaluate it again with the same flags")
    return notes


def common_results(methods: list[Method]) -> tuple[dict[str, pd.DataFrame], list[str]]:
    """Restricts methods to the (case, subset) pairs all of them have: only these can be compared.

    Returns name -> results, and notes on what was left out. Raises NnmissError when nothing is common.
    """
    pairs = [set(zip(m.results["case"], m.results["subset"])) for m in methods]
    shared = set.intersection(*pairs)
    if not shared:
        raise NnmissError(f"{', '.join(m.name for m in methods)} have no case with the same subset in common: nothing "
                          "to compare")
    notes = [f"{method.name}: {len(own) - len(shared)} of {len(own)} pairs of case and subset left out of the "
             "comparison, another method lacks them" for method, own in zip(methods, pairs) if len(own) > len(shared)]
    kept = {m.name: m.results[[p in shared for p in zip(m.results["case"], m.results["subset"])]] for m in methods}
    return kept, notes


def ece_results(methods: dict[str, pd.DataFrame]) -> tuple[dict[str, pd.DataFrame], list[str]]:
    """The ECE of the methods that have one, on the pairs of case and subset that all of these have, and notes.

    Empty where the first method has none. Where no pair is common, the first alone.
    """
    all_ece = [Method(name, frame[frame["metric"] == "ece"], None) for name, frame in methods.items()]
    ours, *others = all_ece
    if ours.results.empty:
        return {}, []
    notes = [f"{m.name} has no ECE: its table leaves it out" for m in others if m.results.empty]
    try:
        kept, more_notes = common_results([ours, *(m for m in others if len(m.results))])
    except NnmissError as error:
        return {ours.name: ours.results}, [*notes, f"ECE is not compared: {error}"]
    return kept, notes + [f"ECE: {note}" for note in more_notes]


def row_means(results: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Mean over cases: one row per subset, one column per region. Undefined values (NaN) are left out."""
    chosen = results[results["metric"] == metric]
    return chosen.pivot_table(index="subset", columns="region", values="value", aggfunc="mean", dropna=False)


def case_means(results: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Mean over subsets: one row per case, one column per region. Undefined values (NaN) are left out."""
    chosen = results[results["metric"] == metric]
    return chosen.pivot_table(index="case", columns="region", values="value", aggfunc="mean", dropna=False)
