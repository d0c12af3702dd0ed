"""Several methods on the cases and subsets they share: means side by side, and the tests over cases."""
from __future__ import annotations

from dataclasses import replace
from math import nan

import numpy as np

from nnmiss.availability import parse_subset
from nnmiss.errors import NnmissError
from nnmiss.evaluation.comparison import compare_methods
from nnmiss.evaluation.conventions import LOWER_IS_BETTER, TABLE_METRICS
from nnmiss.evaluation.results import check_comparable, common_results, row_means
from nnmiss.evaluation.tables import nan_mean, ordered_regions, p_text
from nnmiss.report.html_text import DASH, MINUS, bullets, cell, circles, head, number, paragraph, table, tag
from nnmiss.report.sources import Source, metric_title, percent
from nnmiss.report.subset_table import shown_subsets

MEAN = "mean of regions"


def overview_table(sources: list[Source]) -> str:
    """A row per method: cases, subsets and the mean over its own rows; the first question, answered at the top."""
    regions = list(dict.fromkeys(r for source in sources for r in source.regions))
    titles = ordered_regions(regions)
    main = sources[0].main_metric
    header = [[head("Method"), head("cases", class_="number"), head("subsets", class_="number"),
               *(head(title, class_="number") for title in titles.values()), head("mean", class_="number")]]
    rows = []
    for source in sources:
        means = row_means(source.results, main).reindex(columns=list(titles)) * percent(main)
        averages = dict(zip(titles, nan_mean(means.to_numpy(float)))) if len(means) else dict.fromkeys(titles, nan)
        counted = np.array([averages[region] for region in source.counted])
        rows.append([head(source.name, "row"), cell(f"{len(source.cases):,}"), cell(str(len(source.subsets))),
                     *(cell(number(value)) for value in averages.values()), cell(number(nan_mean(counted[:, None])[0]))])
    title = metric_title(main, sources[0].conventions)
    return table(f"{title}, mean over the subsets of each method's own cases.", header, rows, class_="plain")


def comparison_body(sources: list[Source]) -> str:
    """The methods that can be compared with the first, on what all of them have; a sentence for each that cannot."""
    ours, *others = sources
    comparable, notes = [ours], []
    for other in others:
        try:
            notes += _check(ours, other)
            common_results([ours.method, other.method])
            comparable.append(other)
        except NnmissError as error:
            notes.append(f"{other.name} is not compared: {error}")
    if len(comparable) == 1:
        return bullets(notes)
    kept, more = common_results([s.method for s in comparable])
    shared = [replace(s, results=kept[s.name]) for s in comparable]
    metrics = [m for m in TABLE_METRICS if all(m in s.metrics for s in shared)]
    tables = [side_by_side(shared, metric) for metric in metrics[:1]]
    return "".join(tables) + tests_table(shared, metrics) + bullets([*notes, *more])


def side_by_side(sources: list[Source], metric: str) -> str:
    """A block per region and one of their mean, a column per method; the best of each row and block is bold."""
    ours = sources[0]
    titles = ordered_regions(ours.regions)
    means = {s.name: row_means(s.results, metric).reindex(index=ours.subsets, columns=list(titles)) * percent(metric)
             for s in sources}
    blocks = {title: np.stack([m[region].to_numpy(float) for m in means.values()], 1) for region, title in titles.items()}
    if len(ours.counted) > 1:
        blocks[MEAN] = np.stack([nan_mean(m[ours.counted].to_numpy(float).T) for m in means.values()], 1)
    header = [[head("Modalities", "colgroup", colspan=len(ours.modalities))],
              [head(name, class_="circle") for name in ours.modalities]]
    for title in blocks:
        header[0].append(head(title, "colgroup", "start", len(sources)))
        header[1] += [head(s.name, class_="number start" if i == 0 else "number") for i, s in enumerate(sources)]
    header[0].append(head("n", rowspan=2, class_="number last"))
    counts = ours.results[ours.results["metric"] == metric].groupby("subset")["case"].nunique()
    rows = [[*circles(parse_subset(subset, ours.modalities), ours.modalities),
             *(c for block in blocks.values() for c in _best_bold(block[ours.subsets.index(subset)], metric)),
             cell(str(int(counts.get(subset, 0))))] for subset in shown_subsets(ours)]
    footer = [head(f"Average of {len(ours.subsets)} rows", "row", colspan=len(ours.modalities)),
              *(c for block in blocks.values() for c in _best_bold(nan_mean(block), metric)), cell("")]
    return table(f"{metric_title(metric, ours.conventions)} by available modalities, on the cases and subsets that all "
                 "methods have. Bold: best of its block.", header, rows, [footer], "compared")


def tests_table(sources: list[Source], metrics: list[str]) -> str:
    """What `compare_methods` finds over cases: difference, effect size, their intervals, p of two tests."""
    if not metrics:
        return paragraph("The methods share no metric that is compared.", "note")
    ours = sources[0]
    entries = compare_methods({s.name: s.results for s in sources}, ours.regions, metrics)
    titles = ordered_regions(ours.regions)
    rows = []
    for entry in entries:
        test, scale = entry["case_test"], percent(entry["metric"])
        if not test["n"]:
            continue
        rows.append([head(metric_title(entry["metric"], ours.conventions), "row"), cell(titles[entry["region"]], None),
                     cell(entry["other"], None), cell(str(test["n"])), _signed(scale * test["mean_difference"]),
                     _interval(scale * test["ci_low"], scale * test["ci_high"]), _signed(test["d_z"]),
                     _interval(test["d_z_low"], test["d_z_high"]),
                     *(cell(p_text(test[key])) for key in ("p", "p_holm", "p_t", "p_t_holm"))])
    header = [[head("metric"), head("region"), head("against"), *(head(text, class_="number") for text in (
        "cases", "difference", "95 % interval", "d_z", "95 % interval", "Wilcoxon p", "Holm p", "t-test p", "Holm p"))]]
    lower = [metric_title(m, None) for m in metrics if m in LOWER_IS_BETTER]
    sign = f" For {' and '.join(lower)}, negative is better." if lower else ""
    return table(f"{ours.name} minus each other method, over cases: each case's mean over the subsets where both have a "
                 f"value.{sign} d_z: mean difference divided by the standard deviation of the differences. Intervals: "
                 "bootstrap over cases. Two-sided Wilcoxon signed-rank test and paired t-test, each Holm-corrected over "
                 "methods. Compared are trained networks: another seed gives others.", header, rows, class_="plain")


def _check(ours: Source, other: Source) -> list[str]:
    if ours.modalities != other.modalities:
        raise NnmissError(f"its modalities are {', '.join(other.modalities)}, those of {ours.name} "
                          f"{', '.join(ours.modalities)}")
    if ours.conventions is None:
        return [f"{ours.name}: no summary.json beside its results, its conventions are taken to be those of {other.name}"]
    with_ece = "ece" in ours.metrics
    return check_comparable(ours.name, ours.regions, ours.conventions, [other.method], with_ece)


def _best_bold(values: np.ndarray, metric: str) -> list[str]:
    """Cells of one row and block; equal printed numbers are equally bold."""
    finite = values[np.isfinite(values)]
    best = None
    if len(finite) > 1:
        best = number(float(finite.min() if metric in LOWER_IS_BETTER else finite.max()))
    texts = [number(float(v)) for v in values]
    return [tag("td", tag("b", text) if text == best else text, class_="number" + (" start" if i == 0 else ""))
            for i, text in enumerate(texts)]


def _signed(value: float) -> str:
    return cell(f"{value:+.2f}".replace("-", MINUS) if np.isfinite(value) else DASH)


def _interval(low: float, high: float) -> str:
    return cell(f"{number(low, 2)} to {number(high, 2)}" if np.isfinite([low, high]).all() else DASH)
