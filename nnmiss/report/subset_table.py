"""The table of all modality subsets on a colour scale, with n of each row, and the figures beside it."""
from __future__ import annotations

from html import escape
from math import isfinite, nan

import numpy as np
import pandas as pd

from nnmiss.availability import parse_subset, reported_subsets, subset_name
from nnmiss.evaluation import figures
from nnmiss.evaluation.conventions import LOWER_IS_BETTER, metric_title
from nnmiss.evaluation.results import count_text, results_with
from nnmiss.evaluation.tables import ordered_regions
from nnmiss.report.drawing import figure_html
from nnmiss.report.html_text import cell, circles, count, folded, head, number, paragraph, shaded, table, tag
from nnmiss.report.means import MEAN, averages, mean_of_regions, subset_counts, subset_means
from nnmiss.report.shared_results import restricted
from nnmiss.report.sources import Source

LESION_COUNTS = ("lesion_tp", "lesion_fp", "lesion_fn")  # more or fewer of them is not better as such
MOST_ROWS = 63  # all subsets of six modalities


def subset_body(sources: list[Source], shared: list[Source]) -> str:
    """Table and heat map of every method, the first one shown, a choice above where there are several; more figures.

    `shared` are the methods that can be compared, on what they share: what several of them are drawn together by.
    """
    panels = [tag("div", f"<div>{method_tables(source)}</div>{heatmap(source, f'heatmap{i}')}", class_="figures")
              for i, source in enumerate(sources)]
    if len(sources) > 1:
        panels = [_choice(sources), *(tag("div", panel, class_="panel", id=f"method-{i}",
                                          aria_label=source.name, role="group")
                                      for i, (panel, source) in enumerate(zip(panels, sources)))]
    return tag("div", "\n".join(panels), class_="methods") + subset_figures(sources[0], shared)


def method_tables(source: Source) -> str:
    """Main metrics side by side in one table; the others folded."""
    rest = [m for m in source.metrics if m not in source.first_metrics]
    notes = paragraph(f"{source.name} has {len(source.subsets)} subsets. Shown are single modalities, all but one, and "
                      "all; the average is over every subset.", "note") if len(source.subsets) > MOST_ROWS else ""
    body = table_of(source, source.first_metrics) + notes
    if rest:
        pairs = [rest[i:i + 2] for i in range(0, len(rest), 2)]
        body += folded("Further metrics: " + ", ".join(metric_title(m, source.conventions) for m in rest),
                       "".join(table_of(source, pair) for pair in pairs))
    return body


def shown_subsets(source: Source) -> list[str]:
    """The rows of tables: every subset that occurs, of many modalities those that reports cover."""
    if len(source.subsets) <= MOST_ROWS:
        return source.subsets
    wanted = {subset_name(s, source.modalities) for s in reported_subsets(len(source.modalities))}
    return [s for s in source.subsets if s in wanted] or source.subsets[:MOST_ROWS]


def table_of(source: Source, metrics: list[str]) -> str:
    """One table: circles, n, a block of regions for each metric; where n is not the same, each block has its own."""
    titles, m = ordered_regions(source.regions), len(source.modalities)
    blocks = [_block(source, metric) for metric in metrics]
    counts = [subset_counts(source, metric).apply(count_text, axis="columns") for metric in metrics]
    same = all(of.equals(counts[0]) for of in counts)
    header = [[head("Modalities", "colgroup", colspan=m + 1)], [head("no.", class_="number")]]
    header[0] += [head("n", rowspan=2, class_="number")] if same else []
    header[1] += [head(name, class_="circle") for name in source.modalities]
    for metric, block in zip(metrics, blocks):
        names = [*([] if same else ["n"]), *(titles.get(name, "mean") for name in block.columns)]
        header[0].append(head(metric_title(metric, source.conventions), "colgroup", "start", len(names)))
        header[1] += [head(name, class_="number start" if i == 0 else "number") for i, name in enumerate(names)]
    rows, last = [], 0
    for subset in shown_subsets(source):
        present = parse_subset(subset, source.modalities)
        name = tag("span", f" {escape(subset)}", class_="unseen")
        line = [tag("th", f"{sum(present)}{name}", scope="row", class_="number" + (" rule" if sum(present) > last else ""))]
        line += [*circles(present, source.modalities), *([cell(counts[0][subset])] if same else [])]
        for block, of in zip(blocks, counts):
            line += [] if same else [cell(of[subset], "number start")]
            line += [shaded(number(value), block.attrs["share"](value)) for value in block.loc[subset]]
        rows.append(line)
        last = sum(present)
    footer = [tag("th", f"Average of {len(source.subsets)} rows", scope="row", colspan=m + 1 + same)]
    for block in blocks:
        of = averages(block.drop(columns=MEAN, errors="ignore"), source)
        footer += [*([] if same else [cell("")]), *(cell(number(of[name])) for name in block.columns)]
    return table(_caption(source, metrics, blocks), header, rows, [footer], "subsets")


def _block(source: Source, metric: str) -> pd.DataFrame:
    """(subsets, regions) means, with a column MEAN of several regions; attrs: low, high, share (value -> 0..1)."""
    means = subset_means(source, metric).dropna(axis="columns", how="all")
    if sum(region in source.counted for region in means.columns) > 1:
        means[MEAN] = mean_of_regions(means, source)
    values = means.to_numpy(float)
    low, high = (np.nanmin(values), np.nanmax(values)) if np.isfinite(values).any() else (nan, nan)

    def share(value: float) -> float | None:
        if not isfinite(value) or not high > low or metric in LESION_COUNTS:
            return None
        part = (value - low) / (high - low)
        return 1 - part if metric in LOWER_IS_BETTER else part

    means.attrs.update(share=share, low=low, high=high)
    return means


def _caption(source: Source, metrics: list[str], blocks: list[pd.DataFrame]) -> str:
    scales = []
    for metric, block in zip(metrics, blocks):
        if metric in LESION_COUNTS:
            continue
        ends = (block.attrs["low"], block.attrs["high"])
        worst, best = reversed(ends) if metric in LOWER_IS_BETTER else ends
        scales.append(f"{metric_title(metric, source.conventions)} {number(worst)} (palest) to {number(best)} (strongest)")
    text = (f"{source.name}: mean over the n cases of each row that have a value (a range where regions differ); a filled "
            "circle is a modality that was shown.")
    if len(source.counted) < len(source.regions):
        text += " Columns called suppressed do not count in the mean."
    return text + (f" The stronger the blue, the better: {'; '.join(scales)}." if scales else "")


def _choice(sources: list[Source]) -> str:
    """Radio buttons whose panel the style sheet shows; on paper all are printed."""
    buttons = [f'<input type="radio" name="method" id="choose-{i}"{" checked" if i == 0 else ""}>'
               + tag("label", escape(source.name), for_=f"choose-{i}") for i, source in enumerate(sources)]
    return tag("fieldset", tag("legend", "Method") + "".join(buttons), class_="choice")


def subset_figures(ours: Source, shared: list[Source]) -> str:
    """Dice against the number of modalities of the methods that can be compared, box plots of the first method."""
    if "dice" not in ours.metrics:
        return paragraph(f"{ours.name} has no Dice: heat map, box plots and Dice by number of modalities are left out.",
                         "note")
    regions = _dice_regions(ours)
    titles = ordered_regions(regions)
    kept, _ = results_with("dice", {s.name: s.results for s in shared})
    shown = [s for s in restricted(shared, kept) if set(regions) <= set(_dice_regions(s))]
    text = "How much each further modality brings."
    if len(shown) > 1:
        cases = count(shown[0].results["case"].nunique(), "case")
        text += f" {', '.join(s.name for s in shown)} on the same cases and subsets ({cases})."
    if len(set(np.concatenate([subset_counts(s, "dice").to_numpy().ravel() for s in shown]))) > 1:
        text += " n differs between dots: each is a mean over the cases that have its modalities and a value."
    by_count = figure_html(figures.dice_by_count({s.name: s.results for s in shown}, ours.modalities, titles), "bycount",
                           "Mean Dice against the number of modalities, a panel per region, a line per method.", text)
    if subset_counts(ours, "dice").to_numpy().max() < 2:
        return by_count + paragraph("Box plots are left out: no subset has more than one case.", "note")
    rows = ours.results[ours.results["region"].isin(regions)]
    boxes = figure_html(figures.boxplots(rows, ours.modalities, titles, ours.name), "boxes",
                        f"Box plots of the Dice of all cases of {ours.name}, a panel per region, a box per subset.",
                        "How far cases spread around these means.")
    return by_count + boxes


def heatmap(source: Source, prefix: str) -> str:
    """The mean Dice on a scale from 0 to 100, for comparison by eye with other pages; nothing where there is no Dice."""
    regions = _dice_regions(source)
    rows = source.results[source.results["region"].isin(regions) & source.results["subset"].isin(shown_subsets(source))]
    if not (rows["metric"] == "dice").any():
        return ""
    figure = figures.heatmap(rows, source.modalities, ordered_regions(regions), source.name)
    alt = (f"Heat map of the mean Dice of {source.name}: a row per subset, a column per region; the numbers are those of "
           "the table.")
    return figure_html(figure, prefix, alt, "The same Dice on a scale from 0 to 100 %.")


def _dice_regions(source: Source) -> list[str]:
    rows = source.results[(source.results["metric"] == "dice") & source.results["value"].notna()]
    there = set(rows["region"])
    return [r for r in source.regions if r in there]
