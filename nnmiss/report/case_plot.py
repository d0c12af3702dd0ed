"""Every case's mean as a point that links to its images, and a table of the worst cases and where they fail."""
from __future__ import annotations

import re
from html import escape
from math import isfinite

import numpy as np
from matplotlib.figure import Figure

from nnmiss.evaluation.conventions import LOWER_IS_BETTER, metric_title, scale_of
from nnmiss.evaluation.figures import COLOURS, FAINT, INK
from nnmiss.evaluation.tables import ordered_regions
from nnmiss.report.case_choice import RankedCase, case_table, rank_cases
from nnmiss.report.drawing import LINK, figure_html
from nnmiss.report.html_text import case_link, cell, count, head, number, paragraph, table, tag
from nnmiss.report.sources import Source

WORST = 10  # rows of the table
FEW = 12  # up to so many cases stand on the axis by name
LABELS = 4  # up to so many cases with images are named in the plot
WIDE, MOST = 10, 28  # characters that fit on the axis side by side; of any name in the plot
STRIP = 31  # up to so many subsets are drawn as a strip in the table


def cases_body(source: Source, embedded: set[str]) -> str:
    """Plot and table; `embedded` are the cases whose images are in the page."""
    metric = source.main_metric
    ranked = rank_cases(source, metric)
    if not ranked:
        return paragraph(f"{source.name} has no value of a case to rank by.", "note")
    title = metric_title(metric, source.conventions)
    few = ("A case that lacks modalities has fewer subsets, and its mean is over these. "
           if len({case.subsets for case in ranked}) > 1 else "")
    text = (f"{source.name}, {title}: each of {count(len(ranked), 'case')} is a mark for each region, at the mean over its "
            f"subsets; the line is the mean over all, by which cases are sorted. {few}A mark leads to the case's images "
            "where they are in the page (dotted lines), else to its row in the table.")
    rows = {case.name: f"case-{i}" for i, case in enumerate(ranked[:WORST])}
    points, figure = draw_cases(source, ranked, metric, embedded)
    targets = [(name, tooltip, "viewer" if name in embedded else rows.get(name)) for name, tooltip in points]
    drawing = figure_html(figure, "cases-plot", f"{title} of every case of {source.name}, sorted; the worst are in the "
                          "table below.", text, targets)
    return drawing + worst_table(source, ranked, metric, embedded)


def draw_cases(source: Source, ranked: list[RankedCase], metric: str,
               embedded: set[str]) -> tuple[list[tuple[str, str]], Figure]:
    """The figure, and (case, tooltip) of every mark by the number in its link."""
    scale, titles = scale_of(metric), ordered_regions(source.regions)
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    axes = figure.subplots()
    places = np.arange(1, len(ranked) + 1)
    apart = 0.12 if len(ranked) <= FEW else 0.0  # regions side by side, where there is room
    size = float(np.clip(9000 / len(ranked), 7, 36))
    points: list[tuple[str, str]] = []
    for i, (region, title) in enumerate(titles.items()):
        values = np.array([case.by_region.get(region, np.nan) for case in ranked], float) * scale
        there = np.flatnonzero(np.isfinite(values))
        if not len(there):
            continue
        shift = apart * (i - (len(titles) - 1) / 2)
        marks = axes.scatter(places[there] + shift, values[there], s=size, color=COLOURS[i % len(COLOURS)], alpha=0.75,
                             linewidths=0, label=title, zorder=3)
        marks.set_urls([f"{LINK}{len(points) + k}" for k in range(len(there))])
        points += [(ranked[k].name, _tooltip(ranked[k], title, values[k], scale, titles)) for k in there]
    axes.plot(places, [case.mean * scale for case in ranked], color=INK, linewidth=1.2, label="mean of all", zorder=4)
    shown = [i for i, case in enumerate(ranked) if case.name in embedded]
    for i in shown:
        axes.axvline(i + 1, color=INK, linewidth=0.8, linestyle=":", zorder=1)
        if len(ranked) > FEW and len(shown) <= LABELS:
            late = i > 0.7 * len(ranked)
            axes.annotate(_short(ranked[i].name), (i + 1, 1), xycoords=("data", "axes fraction"), fontsize=8,
                          xytext=(-3 if late else 3, 3), textcoords="offset points", ha="right" if late else "left")
    axes.set_xlim(1 - 0.03 * len(ranked) - 0.2, len(ranked) * 1.03 + 0.2)
    if len(ranked) <= FEW:
        names = axis_names([case.name for case in ranked])
        tilted = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if max(map(len, names)) > WIDE else {}
        axes.set_xticks(places, names, **tilted)
    else:
        axes.xaxis.get_major_locator().set_params(integer=True)
    axes.tick_params(labelsize=8)
    if scale == 100:
        axes.set_ylim(-2, 102)
    axes.set_xlabel("cases, worst first", fontsize=9)
    axes.set_ylabel(metric_title(metric, source.conventions), fontsize=9)
    axes.grid(axis="y", color=FAINT, linewidth=0.5)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), markerscale=(36 / size) ** 0.5)
    return points, figure


def worst_table(source: Source, ranked: list[RankedCase], metric: str, embedded: set[str]) -> str:
    """The first cases of the ranking, with links, their regions, every subset as a strip, and the lowest value."""
    scale, titles = scale_of(metric), ordered_regions(source.regions)
    regions = [r for r in titles if any(isfinite(case.by_region.get(r, np.nan)) for case in ranked)]
    by_subset = case_table(source, metric) * scale
    with_strip = 1 < len(source.subsets) <= STRIP
    header = [[head("", class_="number"), head("case"), head("mean", class_="number"),
               *(head(titles[r], class_="number") for r in regions), head("subsets", class_="number"),
               *([head("by subset")] if with_strip else []),
               head("highest" if metric in LOWER_IS_BETTER else "lowest", class_="number"), head("there")]]
    rows = []
    for place, case in enumerate(ranked[:WORST], 1):
        name = tag("span", case_link(case.name, embedded), id=f"case-{place - 1}")
        rows.append([cell(str(place)), tag("th", name, scope="row"), cell(number(case.mean * scale)),
                     *(cell(number(case.by_region.get(r, np.nan) * scale)) for r in regions), cell(str(case.subsets)),
                     *([_strip(by_subset.loc[case.name].to_dict(), metric)] if with_strip else []),
                     cell(number(case.worst * scale)),
                     cell(f"{titles[case.worst_region]} with {case.worst_subset}", "wrap")])
    left = len(ranked) - len(rows)
    total = count(len(ranked), "case")
    which = f"The {len(rows)} worst of {total}" if left else f"{total}, worst first"
    strip = " Squares: the subsets in the order of the table above, stronger blue is better." if with_strip else ""
    return table(f"{which}: {metric_title(metric, source.conventions)}, means over subsets; the last two columns say where "
                 f"the single worst value is.{strip}", header, rows, class_="plain")


def _strip(values: dict[str, float], metric: str) -> str:
    """A square per subset on the scale 0 to 100 (of HD95: 0 to the case's largest)."""
    finite = [v for v in values.values() if isfinite(v)]
    top = 100 if scale_of(metric) == 100 else max(finite, default=0) or 1
    squares = []
    for subset, value in values.items():
        if not isfinite(value):
            squares.append(f'<i class="none" title="{escape(subset)}: not there"></i>')
            continue
        share = 1 - value / top if metric in LOWER_IS_BETTER else value / top
        squares.append(f'<i style="--share:{share:.3f}" title="{escape(subset)}: {number(value)}"></i>')
    said = ", ".join(f"{subset} {number(value)}" for subset, value in values.items() if isfinite(value))
    return tag("td", tag("span", "".join(squares), class_="strip", role="img", aria_label=said))


def axis_names(names: list[str]) -> list[str]:
    """Names as they stand on the axis: long ones without what they all begin with, as BraTS20_Training_001 is …001."""
    first, last = min(names), max(names)
    same = next((i for i, (a, b) in enumerate(zip(first, last)) if a != b), min(len(first), len(last)))
    shared = re.match(r"(.*[\W_])?", first[:same], re.DOTALL)[0] if len(names) > 1 else ""
    if shared and max(map(len, names)) > WIDE:
        names = [f"…{name.removeprefix(shared)}" for name in names]
    return [_short(name) for name in names]


def _short(text: str) -> str:
    """At most MOST characters: beginning and, as names differ there, more of the end."""
    return text if len(text) <= MOST else f"{text[:8]}…{text[9 - MOST:]}"


def _tooltip(case: RankedCase, title: str, value: float, scale: float, titles: dict[str, str]) -> str:
    return (f"{case.name}\n{title} {number(value)}, mean over {count(case.subsets, 'subset')}\nall regions "
            f"{number(case.mean * scale)}; worst {number(case.worst * scale)} ({titles[case.worst_region]} with "
            f"{case.worst_subset})")
