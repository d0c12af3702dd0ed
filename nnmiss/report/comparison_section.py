"""Several methods on the cases and subsets they share: means side by side, and the tests over cases."""
from __future__ import annotations

import re
from math import nan

import numpy as np
import pandas as pd

from nnmiss.availability import parse_subset
from nnmiss.evaluation.comparison import HEADER, compare_methods, comparison_caption, comparison_rows
from nnmiss.evaluation.conventions import LOWER_IS_BETTER, TABLE_METRICS, metric_title
from nnmiss.evaluation.results import count_text, results_with
from nnmiss.evaluation.tables import UNDEFINED, ordered_regions
from nnmiss.report.html_text import DASH, MINUS, bullets, cell, circles, head, number, paragraph, table, tag
from nnmiss.report.means import MEAN, averages, mean_of_regions, subset_counts, subset_means
from nnmiss.report.shared_results import restricted
from nnmiss.report.sources import Source
from nnmiss.report.subset_table import shown_subsets


def overview_table(sources: list[Source]) -> str:
    """A row per method: cases, subsets and the mean over its own rows; the first question, answered at the top."""
    titles = ordered_regions(list(dict.fromkeys(r for source in sources for r in source.regions)))
    main = sources[0].main_metric
    header = [[head("Method"), head("cases", class_="number"), head("subsets", class_="number"),
               *(head(title, class_="number") for title in titles.values()), head("mean", class_="number")]]
    rows = []
    for source in sources:
        means = averages(subset_means(source, main), source)
        rows.append([head(source.name, "row"), cell(f"{len(source.cases):,}"), cell(str(len(source.subsets))),
                     *(cell(number(means.get(region, nan))) for region in (*titles, MEAN))])
    title = metric_title(main, sources[0].conventions)
    return table(f"{title}, mean over the subsets of each method's own cases.", header, rows, class_="plain")


def comparison_body(shared: list[Source], notes: list[str]) -> str:
    """What `shared_results` found, by each metric that two methods have; a sentence for each that has it not."""
    if len(shared) == 1:
        return bullets(notes)
    of_metric, more = {}, []
    for metric in TABLE_METRICS:
        kept, about = results_with(metric, {s.name: s.results for s in shared})
        more += about
        if len(kept) > 1:
            of_metric[metric] = restricted(shared, kept)
    if not of_metric:
        return paragraph("The methods share no metric that is compared.", "note") + bullets([*notes, *more])
    first = next(iter(of_metric))
    return side_by_side(of_metric[first], first) + tests_table(of_metric) + bullets([*notes, *more])


def side_by_side(sources: list[Source], metric: str) -> str:
    """A block per region and one of their mean, a column per method; the best of each row and block is bold."""
    ours, titles = sources[0], ordered_regions(sources[0].regions)
    means = [subset_means(s, metric) for s in sources]
    footers = [averages(of, ours) for of in means]
    blocks = {region: np.stack([of[region].to_numpy(float) for of in means], 1) for region in titles}
    if len(ours.counted) > 1:
        blocks[MEAN] = np.stack([mean_of_regions(of, ours).to_numpy() for of in means], 1)
    header = [[head("Modalities", "colgroup", colspan=len(ours.modalities)), head("n", rowspan=2, class_="number")],
              [head(name, class_="circle") for name in ours.modalities]]
    for region in blocks:
        header[0].append(head(titles.get(region, MEAN), "colgroup", "start", len(sources)))
        header[1] += [head(s.name, class_="number start" if i == 0 else "number") for i, s in enumerate(sources)]
    counts = pd.concat([subset_counts(s, metric) for s in sources], axis="columns")
    rows = [[*circles(parse_subset(subset, ours.modalities), ours.modalities), cell(count_text(counts.loc[subset])),
             *(c for block in blocks.values() for c in _best_bold(block[ours.subsets.index(subset)], metric))]
            for subset in shown_subsets(ours)]
    footer = [head(f"Average of {len(ours.subsets)} rows", "row", colspan=len(ours.modalities) + 1),
              *(c for region in blocks for c in _best_bold(np.array([of[region] for of in footers]), metric))]
    return table(f"{metric_title(metric, ours.conventions)} by available modalities, on the cases and subsets that all "
                 "methods have. Bold: best of its block.", header, rows, [footer], "compared")


def tests_table(of_metric: dict[str, list[Source]]) -> str:
    """What `compare_methods` finds over cases: difference, effect size, their intervals, p of two tests."""
    ours = next(iter(of_metric.values()))[0]
    entries = [entry for metric, of in of_metric.items()
               for entry in compare_methods({s.name: s.results for s in of}, ours.regions, [metric])]
    header = [[head(text, class_=None if i < 3 else "number") for i, text in enumerate(HEADER)]]
    rows = [[head(metric, "row"), cell(region, None), cell(other, None), *(cell(_signs(text)) for text in numbers)]
            for metric, region, other, *numbers in comparison_rows(entries, ours.conventions)]
    caption = f"{comparison_caption(entries)} Compared are trained networks: another seed gives others."
    return table(caption, header, rows, class_="plain")


def _best_bold(values: np.ndarray, metric: str) -> list[str]:
    """Cells of one row and block; equal printed numbers are equally bold."""
    finite = values[np.isfinite(values)]
    best = None
    if len(finite) > 1:
        best = number(float(finite.min() if metric in LOWER_IS_BETTER else finite.max()))
    texts = [number(float(v)) for v in values]
    return [tag("td", tag("b", text) if text == best else text, class_="number" + (" start" if i == 0 else ""))
            for i, text in enumerate(texts)]


def _signs(text: str) -> str:
    """A number of a text table with true minus signs, or the dash of the page."""
    return DASH if text == UNDEFINED else re.sub(r"(?<![^ ])-(?=\d)", MINUS, text)
