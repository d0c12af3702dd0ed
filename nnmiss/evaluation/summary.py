"""summary.json: every convention, and mean, median, std and n of each subset, region and metric."""
from __future__ import annotations

from math import isfinite
from typing import Any

import pandas as pd

from nnmiss import __version__
from nnmiss.evaluation.conventions import METRICS, Conventions
from nnmiss.evaluation.label_maps import Regions
from nnmiss.evaluation.predictions import subset_order


def summarise(results: pd.DataFrame, one_empty: list[tuple[str, str, str]], method: str, modalities: list[str],
              regions: Regions, conventions: Conventions) -> dict[str, Any]:
    """The content of summary.json.

    Args:
        results: long results, see `results.COLUMNS`.
        regions: the regions and suppressed columns of the results.
        one_empty: (case, subset, region) where the region is empty in either ground truth or prediction, not both. The
            BraTS rule penalises these (Dice 0, HD95 = diagonal), and a few of them decide a mean HD95: look at the
            medians.

    Returns:
        a dict that JSON can hold; undefined numbers are None. `std` is the sample's (n - 1).
    """
    metrics = [metric for metric in METRICS if metric in set(results["metric"])]
    order = [s for s in subset_order(modalities) if s in set(results["subset"])]
    subsets = {}
    for subset in order:
        of_subset = results[results["subset"] == subset]
        subsets[subset] = {"n": int(of_subset["case"].nunique()), "regions": {}}
        for region in regions.members:
            of_region = of_subset[of_subset["region"] == region]
            entry: dict[str, Any] = {metric: _moments(of_region.loc[of_region["metric"] == metric, "value"])
                                     for metric in metrics}
            entry["n_one_empty"] = sum(s == subset and r == region for _, s, r in one_empty)
            subsets[subset]["regions"][region] = entry
    return {
        "nnmiss_version": __version__,
        "method": method,
        "conventions": conventions.as_dict(),
        "modalities": modalities,
        "regions": {name: list(members) for name, members in regions.members.items()},
        "ignore_label": regions.ignore,
        "n_cases": int(results["case"].nunique()),
        "mean_over_subsets": {region: {metric: _mean_over_subsets(subsets, region, metric)
                                       for metric in metrics} for region in regions.members},
        "subsets": subsets,
    }


def _moments(values: pd.Series) -> dict[str, float | int | None]:
    return {"mean": _number(values.mean()), "median": _number(values.median()), "std": _number(values.std()),
            "n": int(values.notna().sum())}


def _mean_over_subsets(subsets: dict, region: str, metric: str) -> float | None:
    means = [s["regions"][region][metric]["mean"] for s in subsets.values()]
    means = [m for m in means if m is not None]
    return sum(means) / len(means) if means else None


def _number(value: float) -> float | None:
    return float(value) if isfinite(value) else None


def without_nan(content: Any) -> Any:
    """The same nested dicts and lists with NaN and infinities replaced by None, which JSON can hold."""
    if isinstance(content, dict):
        return {key: without_nan(value) for key, value in content.items()}
    if isinstance(content, list):
        return [without_nan(value) for value in content]
    return None if isinstance(content, float) and not isfinite(content) else content
