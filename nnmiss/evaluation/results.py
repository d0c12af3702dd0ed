"""The long table of results: its columns, reading those of other methods, and restricting methods to common cases."""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from nnmiss.atomic_files import read_json, replacing
from nnmiss.availability import parse_subset, subset_name
from nnmiss.errors import NnmissError
from nnmiss.evaluation.conventions import TITLES, Conventions

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
        try:
            conventions = Conventions.from_dict(read_json(summary, "summary").get("conventions", {}))
        except NnmissError as error:
            raise NnmissError(f"{summary}: {error}") from None
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

    Raises NnmissError when two methods have one name, or regions or conventions differ, naming what does. The bins of the
    ECE may differ unless there is an ECE of both (of ours `with_ece` says so), and so may the rules of lesion-wise
    metrics where one method has none.
    """
    names = [name, *(m.name for m in others)]
    if len(set(names)) < len(names):
        raise NnmissError(f"methods to compare need different names, got {', '.join(names)}: use NAME=PATH or --name")
    notes = []
    for other in others:
        if other.conventions is None:
            notes.append(f"{other.name}: no summary.json beside its results, its conventions are taken to be ours")
        else:
            bins_matter = with_ece and (other.results["metric"] == "ece").any()
            both_lesionwise = conventions.lesionwise and other.conventions.lesionwise
            but = [field for field, matters in (
                ("ece_bins", bins_matter), ("lesionwise", both_lesionwise),
                ("et_replace", conventions.et_threshold or other.conventions.et_threshold)) if not matters]
            different = conventions.differences(other.conventions, tuple(but))
            if different:
                raise NnmissError(f"{other.name} was evaluated with other conventions than {name}: {'; '.join(different)}. "
                                  "Evaluate it again with the same flags of nnmiss_evaluate")
        theirs = set(other.results["region"])
        if theirs != set(regions):
            raise NnmissError(f"{other.name} has regions {sorted(theirs)}, {name} has {sorted(regions)}: evaluate both "
                              "with one dataset.json")
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


def results_with(metric: str, methods: dict[str, pd.DataFrame]) -> tuple[dict[str, pd.DataFrame], list[str]]:
    """The values of a metric of the methods that have it, on the pairs of case and subset all of these have, and notes.

    Empty where the first method has none. Where no pair is common, the first alone.
    """
    title = TITLES[metric]
    ours, *others = [Method(name, frame[frame["metric"] == metric], None) for name, frame in methods.items()]
    if ours.results.empty:
        return {}, []
    notes = [f"{m.name} has no {title}: its table leaves it out" for m in others if m.results.empty]
    try:
        kept, more_notes = common_results([ours, *(m for m in others if len(m.results))])
    except NnmissError as error:
        return {ours.name: ours.results}, [*notes, f"{title} is not compared: {error}"]
    return kept, notes + [f"{title}: {note}" for note in more_notes]


def row_means(results: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Mean over cases: one row per subset, one column per region. Undefined values (NaN) are left out."""
    chosen = results[results["metric"] == metric]
    return chosen.pivot_table(index="subset", columns="region", values="value", aggfunc="mean", dropna=False)


def row_counts(results: pd.DataFrame, metric: str) -> pd.DataFrame:
    """How many cases each of `row_means` is of: (subsets, regions) numbers of defined values."""
    chosen = results[results["metric"] == metric]
    return chosen.pivot_table(index="subset", columns="region", values="value", aggfunc="count", dropna=False, fill_value=0)


def count_text(counts: Iterable[float]) -> str:
    """n of several means: "5", or "3\u20135" where it differs."""
    there = {int(n) for n in counts} or {0}
    return f"{min(there)}\u2013{max(there)}" if len(there) > 1 else f"{min(there)}"
