"""Our method against each other method: tests over subset rows and over cases, for summary.json and table.md."""
from __future__ import annotations

from dataclasses import asdict
from math import nan

import numpy as np
import pandas as pd

from nnmiss.evaluation.conventions import LOWER_IS_BETTER, TITLES, Conventions, metric_title, scale_of
from nnmiss.evaluation.results import row_means
from nnmiss.evaluation.statistics import case_level_test, holm, subset_row_test
from nnmiss.evaluation.tables import UNDEFINED, ordered_regions, p_text

HEADER = ("metric", "region", "against", "cases", "mean difference", "95 % interval", "d_z", "95 % interval",
          "Wilcoxon p", "Holm p", "t-test p", "Holm p")


def compare_methods(methods: dict[str, pd.DataFrame], regions: list[str], metrics: list[str],
                    include_average: bool = False, seed: int = 0) -> list[dict]:
    """All tests of the first method against the others, which must be on the same cases and subsets.

    Args:
        methods: name -> long results; the first is ours.
        regions, metrics: those to compare; any metric that the results hold.
        include_average: see `statistics.subset_row_test`.
        seed: of the bootstrap.

    Returns:
        one dict per metric, region and other method; regions of which ours has no value of the metric are left out.
        `row_test`: one-tailed paired t-test over the rows of the table, see `statistics.subset_row_test`. `case_test`:
        see `statistics.CaseTest`, over pairs of case and subset where both values are defined; `p_holm` and `p_t_holm`
        are corrected over the methods of its metric and region.
    """
    ours, *others = methods
    regions = list(ordered_regions(regions))
    entries = []
    for metric in metrics:
        rows = {name: row_means(results, metric) for name, results in methods.items()}
        cases = {other: _paired_case_means(methods[ours], methods[other], metric) for other in others}
        held = set(methods[ours].loc[methods[ours]["metric"] == metric, "region"])  # suppressed ones have no ECE
        for region in (r for r in regions if r in held):
            group = []
            for other in others:
                row_pair = _aligned(rows[ours], rows[other], region)
                row_test = subset_row_test(*row_pair, metric not in LOWER_IS_BETTER, include_average)
                of_region = cases[other][cases[other]["region"] == region]
                case_test = case_level_test(of_region["ours"], of_region["other"], seed)
                group.append({"metric": metric, "region": region, "ours": ours, "other": other,
                              "row_test": asdict(row_test), "case_test": asdict(case_test)})
            for key in ("p", "p_t"):
                for entry, p in zip(group, holm([entry["case_test"][key] for entry in group])):
                    entry["case_test"][f"{key}_holm"] = p
            entries += group
    return entries


def comparison_rows(entries: list[dict], conventions: Conventions | None = None) -> list[list[str]]:
    """The tests over cases as texts, a row per entry, columns HEADER; shares in percentage points."""
    rows = []
    titles = ordered_regions(list(dict.fromkeys(entry["region"] for entry in entries)))
    for entry in entries:
        test, scale = entry["case_test"], scale_of(entry["metric"])
        rows.append([
            metric_title(entry["metric"], conventions), titles[entry["region"]], entry["other"], str(test["n"]),
            _signed(scale * test["mean_difference"]), _interval(scale * test["ci_low"], scale * test["ci_high"]),
            _signed(test["d_z"]), _interval(test["d_z_low"], test["d_z_high"]),
            *(p_text(test[key]) for key in ("p", "p_holm", "p_t", "p_t_holm"))])
    return rows


def comparison_caption(entries: list[dict]) -> str:
    """What the columns of `comparison_rows` are."""
    ours = entries[0]["ours"]
    lower = list(dict.fromkeys(TITLES.get(e["metric"], e["metric"]) for e in entries if e["metric"] in LOWER_IS_BETTER))
    sign = f" For {' and '.join(lower)}, negative is better." if lower else ""
    return (f"Over cases: each case's mean over its subsets, {ours} minus the other; only pairs of case and subset where "
            f"both are defined.{sign} d_z: mean difference divided by the standard deviation of the differences (Cohen). "
            "Intervals: bootstrap over cases (mean: percentile, d_z: BCa; none of d_z of few cases or where most "
            "differences are equal). Two-sided Wilcoxon signed-rank test and paired "
            "t-test, each Holm-corrected over the methods of its metric and region.")


def comparison_markdown(entries: list[dict], conventions: Conventions | None = None) -> str:
    """The tests over cases as a Markdown table with its caption above."""
    lines = [HEADER, ("---",) * 3 + ("--:",) * (len(HEADER) - 3)]
    lines += [[text.replace("|", r"\|") for text in row] for row in comparison_rows(entries, conventions)]
    return f"{comparison_caption(entries)}\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _paired_case_means(ours: pd.DataFrame, other: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Columns case, region, ours, other: means over the subsets of a case in which both methods have a defined value.

    Without this, an undefined value of one method (HD95 of an empty region under `empty=nan`) would compare means over
    different subsets. Cases that have no such subset are left out.
    """
    keys = ["case", "subset", "region"]
    both = [frame.loc[frame["metric"] == metric, [*keys, "value"]] for frame in (ours, other)]
    pairs = both[0].rename(columns={"value": "ours"}).merge(both[1].rename(columns={"value": "other"}), on=keys)
    pairs = pairs[np.isfinite(pairs[["ours", "other"]].astype(float)).all(axis=1)]
    return pairs.groupby(["case", "region"], as_index=False)[["ours", "other"]].mean()


def _aligned(ours: pd.DataFrame, other: pd.DataFrame, region: str) -> tuple[np.ndarray, np.ndarray]:
    """(rows,) means of both over the union of their rows; NaN where a method lacks a row or the region."""
    index = ours.index.union(other.index)
    return tuple((frame[region].reindex(index) if region in frame else pd.Series(nan, index)).to_numpy(float)
                 for frame in (ours, other))


def _signed(value: float) -> str:
    return f"{value:+.2f}" if np.isfinite(value) else UNDEFINED


def _interval(low: float, high: float) -> str:
    return f"{low:+.2f} to {high:+.2f}" if np.isfinite([low, high]).all() else UNDEFINED
