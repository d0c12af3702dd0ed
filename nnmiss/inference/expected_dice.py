"""The Dice to expect from a subset of modalities, by a model's own cross-validation: what to acquire next."""
from __future__ import annotations

from pathlib import Path

import pandas as pd

from nnmiss.availability import Present, subset_name


def read_validation_dice(model_folder: str | Path) -> pd.DataFrame | None:
    """Dice of every validation case of every fold: columns case, subset, region, value; None where there is none."""
    files = sorted(Path(model_folder).glob("fold_[0-9]*/validation/results.csv"))  # fold_all validates on training cases
    tables = []
    for file in files:
        try:
            table = pd.read_csv(file, dtype={"case": str, "subset": str})
            tables.append(table.loc[table["metric"] == "dice", ["case", "subset", "region", "value"]])
        except (ValueError, KeyError) as error:  # prediction does not depend on it
            print(f"warning: {file} is damaged and left out of the Dice to expect ({error})")
    return pd.concat(tables) if tables else None


def expected_dice(dice: pd.DataFrame | None, present: Present, modalities: list[str]) -> dict | None:
    """Mean cross-validation Dice with this subset, and with each absent modality added to it.

    Args:
        dice: from `read_validation_dice`.
        present: the subset a case was predicted with.
        modalities: names in channel order.

    Returns:
        {"with_these": {"mean", "cases", region: mean ...}, "adding": {modality: the same}}; None where the
        cross-validation did not cover the subset. Subsets with no validation case are left out of "adding".
    """
    here = _summary(dice, subset_name(present, modalities)) if dice is not None else None
    if here is None:
        return None
    adding = {}
    for i, name in enumerate(modalities):
        if not present[i]:
            more = tuple(p or k == i for k, p in enumerate(present))
            adding[name] = _summary(dice, subset_name(more, modalities))
    return {"with_these": here, "adding": {name: value for name, value in adding.items() if value is not None}}


def _summary(dice: pd.DataFrame, subset: str) -> dict | None:
    rows = dice[dice["subset"] == subset].dropna(subset=["value"])
    if rows.empty:
        return None
    regions = rows.groupby("region", sort=False)["value"].mean()
    return {"mean": round(float(regions.mean()), 4), "cases": int(rows["case"].nunique()),
            **{region: round(float(value), 4) for region, value in regions.items()}}
