"""Puts the score tables that BraTS portals return (IPP, Synapse) together to the long table of results."""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import isclose
from pathlib import Path

import pandas as pd

from nnmiss.availability import parse_subset, subset_name
from nnmiss.errors import NnmissError
from nnmiss.evaluation.predictions import subset_order
from nnmiss.evaluation.results import COLUMNS
from nnmiss.export.portal_columns import REGION_ORDER
from nnmiss.export.portal_csv import read_portal_csv

METRICS = ("dice", "hd95", "sensitivity", "specificity", "lesion_dice", "lesion_hd95")
PENALTIES = (373.12866, 374.0, 373.0, 337.0)  # HD95 of a region that is empty in one of truth and prediction only


@dataclass
class PortalScores:
    """All CSVs of one method as long results (`results.COLUMNS`), in the order of the tables."""

    results: pd.DataFrame
    files: list[Path]
    errors: list[str]
    notes: list[str]


def read_portal_scores(specifications: Iterable[str], modalities: list[str]) -> PortalScores:
    """Reads `SUBSET=CSV` (flair+t1=scores.csv) or `CSV`, which counts as all modalities.

    Several files of one subset are put together where they hold different metrics, as Synapse's all_scores.csv and
    all_legacy_scores.csv do. Raises NnmissError for a file that cannot be read at all, an unknown subset, or two files that
    give one value.
    """
    files, errors, notes, rows, files_of_rows = [], [], [], [], []
    for specification in specifications:
        subset, path = _subset_and_path(specification, modalities)
        table = read_portal_csv(path)
        files.append(path.resolve())
        errors += [f"{path}: {text}" for text in table.errors]
        notes += [f"{path}: {text}" for text in table.notes]
        rows += [(case, subset, region, metric, value) for case, region, metric, value in table.rows]
        files_of_rows += [path] * len(table.rows)
    results = pd.DataFrame(rows, columns=COLUMNS)
    twice = results.duplicated(COLUMNS[:-1])
    if twice.any():
        key = results.loc[twice.idxmax(), COLUMNS[:-1]]
        first, second = (files_of_rows[i] for i in results.index[(results[COLUMNS[:-1]] == key).all(axis=1)][:2])
        raise NnmissError(f"{first} and {second} both give {key['metric']} of {key['region']} of case {key['case']} with "
                          f"{key['subset']}: give one CSV per subset, as SUBSET=CSV")
    if results.empty:
        raise NnmissError("no score could be imported:\n  " + "\n  ".join(errors[:10]))
    with_dice = set(results.loc[results["metric"] == "dice", "subset"])
    without = [subset for subset in dict.fromkeys(results["subset"]) if subset not in with_dice]
    if without:
        notes.append(f"no Dice of whole regions for {', '.join(without)}: it is in all_legacy_scores.csv (2023) or "
                     "all_full_scores.csv (2024, 2025) of the same submission, which may be given besides")
    return PortalScores(_ordered(results, modalities), files, errors, notes)


def one_empty(results: pd.DataFrame) -> list[tuple[str, str, str]]:
    """(case, subset, region) with Dice 0 and the HD95 that portals give where exactly one side is empty, or nothing could
    be scored; from the values, as the CSV does not say it."""
    wide = results.pivot_table(index=["case", "subset", "region"], columns="metric", values="value", dropna=False)
    if not {"dice", "hd95"} <= set(wide.columns):
        return []
    penalised = wide["hd95"].apply(lambda v: any(isclose(v, p, abs_tol=0.006) for p in PENALTIES))
    return sorted(wide.index[(wide["dice"] == 0) & penalised])


def _subset_and_path(specification: str, modalities: list[str]) -> tuple[str, Path]:
    """'flair+t1=FILE' as canonical subset and path; without '=' all modalities."""
    path = Path(specification)
    if "=" in specification and not path.exists():
        names, _, file = specification.partition("=")
        return subset_name(parse_subset(names, modalities), modalities), Path(file)
    return "+".join(modalities), path


def _ordered(results: pd.DataFrame, modalities: list[str]) -> pd.DataFrame:
    place = {"subset": subset_order(modalities), "region": list(REGION_ORDER), "metric": list(METRICS)}

    def key(column: pd.Series) -> pd.Series:
        known = place.get(column.name)
        return column.map({v: i for i, v in enumerate(known)}) if known else column

    return results.sort_values(COLUMNS[:-1], key=key, ignore_index=True)
