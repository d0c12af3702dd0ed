"""The diagnosis of each ADNI participant: cognitively normal, mild cognitive impairment, or dementia."""
from __future__ import annotations

from pathlib import Path

import pandas as pd

from nnmiss.dataset_conversion.adni_tables import at_baseline, in_time_order, rows_of
from nnmiss.errors import NnmissError

CLASSES = {"0": "CN", "1": "MCI", "2": "Dementia"}
LABELS = ("stable", "baseline")
CODES = ("1", "2", "3")  # of DIAGNOSIS


def read_labels(table: pd.DataFrame, rule: str, path: Path) -> tuple[dict[str, int], dict[str, str], list[str]]:
    """PTID -> 0, 1 or 2; PTID -> what is wrong with its rows; sentences about who was left out.

    Args:
        table: DXSUM with a PTID column.
        rule: "stable": participants whose diagnosis is known at every visit and never changes. "baseline": the first
            diagnosis of the first visits, whatever follows.

    Raises NnmissError without a DIAGNOSIS column or when nobody is left.
    """
    if "DIAGNOSIS" not in table:
        raise NnmissError(f"{path} has no column DIAGNOSIS (1, 2, 3): download the current DXSUM table, in which it stands "
                          "for all phases")
    labels, failed, incomplete, changing = {}, {}, 0, 0
    for ptid, rows in rows_of(table):
        found = in_time_order(at_baseline(rows) if rule == "baseline" else rows)["DIAGNOSIS"]
        known = found.dropna()
        strange = sorted(set(known) - set(CODES))
        if strange:
            failed[ptid] = f"{path.name}: DIAGNOSIS is {strange[0]!r}, expected 1, 2 or 3"
        elif known.empty or (rule == "stable" and found.isna().any()):
            incomplete += 1
        elif rule == "stable" and known.nunique() > 1:
            changing += 1
        else:
            labels[ptid] = int(known.iloc[0]) - 1
    if not labels:
        raise NnmissError(f"{path}: no participant has a usable diagnosis ({incomplete} without one at some visit, "
                          f"{changing} whose diagnosis changes)")
    notes = [f"participants with a diagnosis: {len(labels)}"]
    if incomplete:
        notes.append(f"left out without a diagnosis at {'some visit' if rule == 'stable' else 'baseline'}: {incomplete}")
    if changing:
        notes.append(f"left out because the diagnosis changes: {changing}")
    return labels, failed, notes
