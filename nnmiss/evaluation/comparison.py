"""Our method against each other method: tests over subset rows and over cases, for summary.json and table.md."""
from __future__ import annotations

from dataclasses import asdict

import pandas as pd

from nnmiss.evaluation.conventions import LOWER_IS_BETTER, PERCENT
from nnmiss.evaluation.results import case_means, row_means
from nnmiss.evaluation.statistics import case_level_test, holm, subset_row_test
from nnmiss.evaluation.tables import ordered_regions, p_text

METRIC_TITLES = {"dice": "Dice (%)", "hd95": "HD95", "ece": "ECE (%)"}


def compare_methods(methods: dict[str, pd.DataFrame], regions: list[str], metrics: list[str],
                    include_average: bool = False, seed: int = 0) -> list[dict]:
    """All tests of the first method against the others, which must be on the same cases and subsets.

    Returns one dict per metric, region and other method: `row_test` (one-tailed paired t-test, see
    `statistics.subset_row_test`) and `case_test` (Wilcoxon and bootstrap over cases; `p_holm` is corrected over the
    methods of its metric and region).
    """
    ours, *others = methods
    regions = list(ordered_regions(regions))
    entries = []
    for metric in metrics:
        rows = {name: row_means(results, metric) for name, results in methods.items()}
        cases = {name: case_means(results, metric) for name, results in methods.items()}
        for region in regions:
            group = []
            for other in others:
                row_pair, case_pair = (_aligned(means[ours], means[other], region) for means in (rows, cases))
                row_test = subset_row_test(*row_pair, metric not in LOWER_IS_BETTER, include_average)
                case_test = case_level_test(*case_pair, seed)
                group.append({"metric": metric, "region": region, "ours": ours, "other": other,
                              "row_test": asdict(row_test), "case_test": asdict(case_test)})
            for entry, p in zip(group, holm([entry["case_test"]["p"] for entry in group])):
                entry["case_test"]["p_holm"] = p
            entries += group
    return entries


def comparison_markdown(entries: list[dict]) -> str:
    """The tests over cases as a Markdown table; Dice and ECE in percentage points."""
    lines = ["| metric | region | against | cases | mean difference | 95 % interval | Wilcoxon p | Holm p |",
             "| --- | --- | --- | --: | --: | --: | --: | --: |"]
    titles = ordered_regions(list(dict.fromkeys(entry["region"] for entry in entries)))
    for entry in entries:
        test, scale = entry["case_test"], 100 if entry["metric"] in PERCENT else 1
        lines.append(
            f"| {METRIC_TITLES[entry['metric']]} | {titles[entry['region']]} | {entry['other']} | "
            f"{test['n']} | {scale * test['mean_difference']:+.2f} | {scale * test['ci_low']:+.2f} to "
            f"{scale * test['ci_high']:+.2f} | {p_text(test['p'])} | {p_text(test['p_holm'])} |")
    ours = entries[0]["ours"]
    return (f"Over cases: each case's mean over its subsets, {ours} minus the other; two-sided Wilcoxon signed-rank "
            "test, Holm-corrected over methods; percentile bootstrap over cases.\n\n" + "\n".join(lines) + "\n")


def _aligned(ours: pd.DataFrame, other: pd.DataFrame, region: str) -> tuple:
    index = ours.index.union(other.index)
    return tuple(frame[region].reindex(index).to_numpy(float) for frame in (ours, other))
