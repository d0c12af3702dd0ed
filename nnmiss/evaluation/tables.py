"""Tables of all modality subsets in the layout of MetaKD's Table 1: what stands in them, before any markup."""
from __future__ import annotations

from dataclasses import dataclass
from math import isfinite, nan

import numpy as np
import pandas as pd

from nnmiss import __version__
from nnmiss.availability import Present, all_subsets, subset_name
from nnmiss.brats_years import canonical_region
from nnmiss.evaluation.conventions import LOWER_IS_BETTER, TITLES, Conventions, scale_of, unit_of
from nnmiss.evaluation.results import count_text, row_counts, row_means
from nnmiss.evaluation.statistics import subset_row_test

UNDEFINED = "-"
SUPPRESSED = "_suppressed"  # ends the names of columns with small enhancing tumours suppressed, see `suppression`
BRATS_REGIONS = {"enhancing_tumor": "ET", "tumor_core": "TC", "whole_tumor": "WT"}  # of `canonical_region` -> title


@dataclass(frozen=True)
class Cell:
    """One printed value: text, and "best", "second" or "" for how it ranks among the methods of its block."""

    text: str
    rank: str = ""


@dataclass(frozen=True)
class SubsetTable:
    """Everything printed; `markup` turns it into Markdown or LaTeX."""

    metric: str
    modalities: list[str]
    blocks: list[tuple[str, list[str]]]
    """Title and column names of each region."""
    rows: list[tuple[Present, list[Cell], str]]
    """Present modalities, one cell per column of all blocks, number of cases with a value: "5" or, of several
    regions and methods, "3\u20135"."""
    footers: list[tuple[str, list[Cell]]]
    """The average row and, in comparisons, the p-value row."""
    caption: str


def region_title(region: str) -> str:
    """"ET", "TC" or "WT" for a region that is called as one of them, "ET suppressed" for its column, else the name."""
    of = region.removesuffix(SUPPRESSED)
    title = BRATS_REGIONS.get(canonical_region(of))
    if title is None:
        return region
    return title if of == region else f"{title} suppressed"


def ordered_regions(regions: list[str]) -> dict[str, str]:
    """Region name -> title. Where ET, TC and WT are all there: ET, its suppressed column, TC, WT, then what else there is.

    Otherwise names as they come.
    """
    titles = {region: region_title(region) for region in regions}
    order = [title for of in BRATS_REGIONS.values() for title in (of, f"{of} suppressed")]
    brats = [title for title in titles.values() if title in order]
    if not set(BRATS_REGIONS.values()) <= set(brats) or len(set(brats)) < len(brats):
        return {region: region for region in regions}
    place = {title: i for i, title in enumerate(order)}
    return {region: titles[region] for region in sorted(regions, key=lambda r: place.get(titles[r], len(place)))}


def build_table(methods: dict[str, pd.DataFrame], modalities: list[str], regions: list[str], metric: str,
                conventions: Conventions, include_average: bool = False) -> SubsetTable:
    """Makes the table of one metric.

    Args:
        methods: name -> long results; the first is ours. Several must be on the same cases and subsets.
        regions: region names in the order of dataset.json; those without values of the metric are left out.
        metric: of `conventions.TABLE_METRICS`; see `conventions.LOWER_IS_BETTER` and `scale_of`.
        include_average: see `statistics.subset_row_test`.
    """
    ours, scale, higher = next(iter(methods)), scale_of(metric), metric not in LOWER_IS_BETTER
    means = {name: row_means(results, metric) * scale for name, results in methods.items()}
    titles = {region: title for region, title in ordered_regions(regions).items() if region in means[ours]}
    means = {name: of.reindex(columns=list(titles)) for name, of in means.items()}
    names = [*list(methods)[1:], ours]  # ours last, beside Imprv
    comparing = len(names) > 1
    subsets = [(s, subset_name(s, modalities)) for s in all_subsets(len(modalities))]
    subsets = [(s, name) for s, name in subsets if name in means[ours].index]
    cells: list[list[Cell]] = [[] for _ in subsets]
    average, p_row, tested = [], [], set()
    for region in titles:
        values = np.array([[means[m][region].get(name, nan) for m in names] for _, name in subsets])  # (rows, methods)
        for row, line in zip(cells, values):
            row += ranked(line, higher, comparing)
        average += ranked(nan_mean(values), higher, comparing)
        tests = [subset_row_test(values[:, -1], values[:, i], higher, include_average) for i in range(len(names) - 1)]
        tested |= {t.n for t in tests}
        p_row += [Cell(p_text(t.p)) for t in tests] + ([Cell(UNDEFINED), Cell(UNDEFINED)] if comparing else [])
    counts = pd.concat([row_counts(results, metric).reindex(index=[name for _, name in subsets], columns=list(titles))
                        for results in methods.values()], axis="columns").fillna(0)
    footers = [("Average", average)]
    if comparing:
        n = "/".join(map(str, sorted(tested)))
        footers.append((f"p-value (n = {n})", p_row))
    columns = names + ["Imprv"] if comparing else [""]
    return SubsetTable(metric, modalities, [(titles[r], columns) for r in titles],
                       [(s, row, count_text(counts.loc[name])) for (s, name), row in zip(subsets, cells)], footers,
                       _caption(ours, metric, conventions, comparing, include_average, counts))


def nan_mean(values: np.ndarray) -> np.ndarray:
    """Column means of (rows, columns) without NaN; NaN for a column that has nothing else."""
    return np.array([column[np.isfinite(column)].mean() if np.isfinite(column).any() else nan for column in values.T])


def improvement(line: np.ndarray, higher_is_better: bool) -> float:
    """Gain of the last value over the best of the others, relative to the latter; NaN where undefined."""
    others = line[:-1][np.isfinite(line[:-1])]
    if not len(others):
        return nan
    best = others.max() if higher_is_better else others.min()
    gain = line[-1] - best if higher_is_better else best - line[-1]
    return gain / best if best else nan


def ranked(line: np.ndarray, higher: bool, comparing: bool) -> list[Cell]:
    """Cells of one row of a block. Ranks go by the printed digits, so that equal numbers look equal."""
    texts = [number_text(v) for v in line]
    if not comparing:
        return [Cell(t) for t in texts]
    printed = sorted({float(t) for t in texts if t != UNDEFINED}, reverse=higher)
    ranks = dict(zip(printed, ("best", "second") if len(line) > 2 else ("best",)))  # of two, the other is no rank
    cells = [Cell(t, "" if t == UNDEFINED else ranks.get(float(t), "")) for t in texts]
    gain = improvement(line, higher)
    return cells + [Cell(f"{100 * gain:.2f}%" if isfinite(gain) else UNDEFINED)]


def number_text(value: float) -> str:
    """Two decimals; a dash for NaN."""
    return f"{value:.2f}" if isfinite(value) else UNDEFINED


def p_text(p: float) -> str:
    """7.3e-5 as papers print it; two decimals from 0.1 on; a dash for NaN."""
    if not isfinite(p):
        return UNDEFINED
    if p >= 0.1:
        return f"{p:.2f}"
    digits, _, exponent = f"{p:.1e}".partition("e")
    return f"{digits}e{int(exponent)}" if p else "0"


def _caption(ours: str, metric: str, conventions: Conventions, comparing: bool, include_average: bool,
             counts: pd.DataFrame) -> str:
    name = f"{TITLES[metric]} ({unit_of(metric, conventions)}{', lower is better' if metric in LOWER_IS_BETTER else ''})"
    name = name[0].upper() + name[1:]
    n = count_text(counts.to_numpy().ravel())
    text = f"{name} of {ours} by available modalities, mean over n = {n} cases; average over the {len(counts)} rows. "
    if comparing:
        text += ("Best bold, of three or more second best italic. Imprv: gain over the best other method. "
                 f"p-value: one-tailed paired t-test of {ours} against each method over the rows"
                 + (" and the average row. " if include_average else ". "))
    return text + f"Conventions: {conventions.sentence(metric)}. nnmiss {__version__}."
