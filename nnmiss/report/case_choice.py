"""Ranks cases by their mean over the table and chooses those whose images go into the page."""
from __future__ import annotations

from dataclasses import dataclass
from difflib import SequenceMatcher

import pandas as pd

from nnmiss.errors import NnmissError, nearest_names
from nnmiss.evaluation.conventions import LOWER_IS_BETTER
from nnmiss.report.html_text import count
from nnmiss.report.sources import Source

DEFAULT_CASES = 3
LISTED = 20  # names in an error message


@dataclass(frozen=True)
class RankedCase:
    """A case's mean over all its subsets and regions, and where it is worst."""

    name: str
    mean: float
    by_region: dict[str, float]
    """Region -> mean over the case's subsets; NaN where undefined everywhere."""
    subsets: int
    """How many subsets it has; a case that lacks modalities has fewer, and its mean is over these."""
    worst_subset: str
    worst_region: str
    worst: float


def rank_cases(source: Source, metric: str) -> list[RankedCase]:
    """All cases with a value, worst first. Undefined values are left out; every subset and counted region counts alike."""
    shown = source.results[(source.results["metric"] == metric) & source.results["value"].notna()]
    rows = shown[shown["region"].isin(source.counted)]
    if rows.empty:
        return []
    falling = metric in LOWER_IS_BETTER
    means = rows.groupby("case")["value"].mean()
    regions = shown.pivot_table(index="case", columns="region", values="value", aggfunc="mean")
    subsets = rows.groupby("case")["subset"].nunique()
    grouped = rows.groupby("case")["value"]
    lowest = rows.loc[grouped.idxmax() if falling else grouped.idxmin()].set_index("case")
    order = means.reset_index().sort_values(["value", "case"], ascending=[not falling, True])["case"]
    region_values = regions.reindex(columns=source.regions).to_dict("index")
    return [RankedCase(case, float(means[case]), region_values[case], int(subsets[case]), lowest.at[case, "subset"],
                       lowest.at[case, "region"], float(lowest.at[case, "value"])) for case in order]


def choose_cases(ranked: list[RankedCase], wanted: list[str], there: set[str]) -> list[str]:
    """Names of the cases to show: the named ones, or so many: worst, median, best, then the next worst.

    Args:
        ranked: worst first.
        wanted: --cases: names, or one number (a case of that name wins); empty: DEFAULT_CASES.
        there: names of all cases of all results.

    Raises NnmissError for a name that no results have, and for a number among names.
    """
    if len(wanted) == 1 and wanted[0].isdecimal() and wanted[0] not in there:
        number = int(wanted[0])
    elif wanted:
        unknown = [name for name in wanted if name not in there]
        numbers = [name for name in unknown if name.isdecimal()]
        if numbers:
            raise NnmissError(f"--cases {' '.join(wanted)}: {numbers[0]} is no case, and as a number of cases it must "
                              f"stand alone. Give names, or --cases {numbers[0]}")
        if unknown:
            raise NnmissError(f"--cases: no results have case {unknown[0]}, of {count(len(there), 'case')}. "
                              + nearest_names(unknown[0], _closest(unknown[0], there)))
        return list(dict.fromkeys(wanted))
    else:
        number = DEFAULT_CASES
    names = [case.name for case in ranked]
    if not names:
        return []
    order = [names[0], names[len(names) // 2], names[-1], *names]
    return list(dict.fromkeys(order))[:number]


def _closest(name: str, there: set[str]) -> list[str]:
    """The LISTED names most alike, first: those of a thousand cases fill the terminal."""
    def unlike(other: str) -> float:
        return -SequenceMatcher(None, name.lower(), other.lower()).ratio()

    return sorted(sorted(there), key=unlike)[:LISTED]


def case_table(source: Source, metric: str) -> pd.DataFrame:
    """(cases, subsets) mean over regions, columns in the order of tables."""
    rows = source.results[(source.results["metric"] == metric) & source.results["region"].isin(source.counted)]
    return rows.pivot_table(index="case", columns="subset", values="value", aggfunc="mean").reindex(columns=source.subsets)
