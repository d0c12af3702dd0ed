"""Figures of an evaluation: heat map, Dice against the number of modalities, box plots per subset, reliability."""
from __future__ import annotations

from pathlib import Path
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from nnmiss.atomic_files import replacing
from nnmiss.availability import Present, all_subsets, reported_subsets, subset_name
from nnmiss.evaluation.calibration import expected_calibration_error
from nnmiss.evaluation.results import row_means
from nnmiss.evaluation.tables import ordered_regions

INK, FAINT = "#222222", "#d0d0d0"
LINES = ("-", "--", ":")  # for methods beyond the number of colours
NAMES = ("heatmap.png", "dice_by_count.png", "boxplots.png")
FEW_CASES = 10  # up to here every case is drawn as a dot on its box
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999", "#f0e442")  # Okabe and Ito


def write_figures(folder: Path, methods: dict[str, pd.DataFrame], modalities: list[str], regions: list[str]) -> None:
    """Writes NAMES: heat map and box plots of the first method and Dice by count of all, each atomically."""
    ours, titles = next(iter(methods)), ordered_regions(regions)
    drawn = (heatmap(methods[ours], modalities, titles, ours), dice_by_count(methods, modalities, titles),
             boxplots(methods[ours], modalities, titles, ours))
    for figure, name in zip(drawn, NAMES):
        save(figure, folder / name)


def save(figure: Figure, path: Path) -> None:
    """Writes a figure atomically, 150 dots per inch, without touching pyplot's global state."""
    FigureCanvasAgg(figure)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150, facecolor="white")


def heatmap(results: pd.DataFrame, modalities: list[str], titles: dict[str, str], name: str) -> Figure:
    """Mean Dice (%), one row per subset (circles say which modalities) and one column per region."""
    means = row_means(results, "dice") * 100
    subsets = _drawn_subsets(means.index, modalities)
    values = means.loc[[subset_name(s, modalities) for s in subsets], list(titles)].to_numpy()
    left, right = 0.45 * len(modalities) + 0.3, max(1.0 * len(titles) + 1.2, 3.4)
    figure = Figure(figsize=(left + right, 0.32 * len(subsets) + 1.3), layout="constrained")
    dots, axes = figure.subplots(1, 2, sharey=True, width_ratios=[left, right])
    draw_subsets(dots, subsets, modalities, vertical=True)
    image = axes.imshow(values, cmap="viridis", vmin=0, vmax=100, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        text = "-" if np.isnan(value) else f"{value:.1f}"
        axes.text(column, row, text, ha="center", va="center", fontsize=9, color="white" if value < 60 else INK)
    axes.set_xticks(range(len(titles)), [_broken(title) for title in titles.values()])
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.tick_params(axis="y", labelleft=False)
    figure.colorbar(image, ax=axes, label="Dice (%)", fraction=0.08)
    figure.suptitle(f"{name}: mean Dice", fontsize=11)
    return figure


def dice_by_count(methods: dict[str, pd.DataFrame], modalities: list[str], titles: dict[str, str]) -> Figure:
    """Mean Dice (%) against the number of modalities: a panel per region, a line per method, a dot per subset."""
    columns = min(len(titles), 4)
    rows = -(-len(titles) // columns)
    figure = Figure(figsize=(3.1 * columns + 0.6, 2.9 * rows + 0.7 + 0.08 * len(methods)), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    size = {subset_name(s, modalities): sum(s) for s in all_subsets(len(modalities))}
    means = {name: row_means(results, "dice") * 100 for name, results in methods.items()}
    for panel, (region, title) in zip(panels.flat, titles.items()):
        for i, (name, table) in enumerate(means.items()):
            colour, counts = COLOURS[i % len(COLOURS)], table.index.map(size).to_numpy()
            shift = min(0.08, 0.6 / len(means)) * (i - (len(means) - 1) / 2)  # the dots of methods lie side by side
            panel.plot(counts + shift, table[region], "o", color=colour, alpha=0.35, markersize=4, markeredgewidth=0)
            line = table[region].groupby(counts).mean()
            panel.plot(line.index + shift, line, marker="o", color=colour, markersize=5, label=name,
                       linestyle=LINES[i // len(COLOURS) % len(LINES)], linewidth=2 if i == 0 else 1.3)
        panel.set_title(_broken(title), fontsize=10)
        panel.set_xticks(range(1, len(modalities) + 1))
        panel.set_ylim(0, 102)
        panel.grid(color=FAINT, linewidth=0.5)
        panel.spines[["top", "right"]].set_visible(False)
    for empty in range(len(titles), rows * columns):
        panels.flat[empty].set_visible(False)
        panels.flat[empty - columns].tick_params(labelbottom=True)  # the panel above is now the lowest of its column
    _legend_above(figure, panels[0, 0], 3.1 * columns + 0.6)
    figure.supxlabel("modalities available (dots: subsets, line: mean)", fontsize=9)
    figure.supylabel("mean Dice (%)", fontsize=9)
    return figure


def boxplots(results: pd.DataFrame, modalities: list[str], titles: dict[str, str], name: str) -> Figure:
    """Dice (%) of all cases: a panel per region, a box per subset (line: median), circles below say which."""
    dice = results[results["metric"] == "dice"]
    subsets = _drawn_subsets(dice["subset"], modalities)
    heights = [2.0] * len(titles) + [0.22 * len(modalities) + 0.1]
    figure = Figure(figsize=(min(max(0.42 * len(subsets) + 1.4, 5), 40), sum(heights) + 0.6), layout="constrained")
    *panels, dots = figure.subplots(len(titles) + 1, 1, sharex=True, height_ratios=heights)
    colours = [COLOURS[(sum(s) - 1) % len(COLOURS)] for s in subsets]  # by the number of modalities
    sizes = set()
    for panel, (region, title) in zip(panels, titles.items()):
        of_region = dice[dice["region"] == region].dropna(subset="value").groupby("subset")["value"].apply(list)
        values = [np.multiply(of_region.get(subset_name(s, modalities), []), 100) for s in subsets]
        sizes |= set(map(len, values))
        boxes = panel.boxplot(values, positions=range(len(subsets)), widths=0.6, patch_artist=True,
                              medianprops={"color": INK}, flierprops={"marker": ".", "markersize": 4})
        for place, (patch, colour, dots_of) in enumerate(zip(boxes["boxes"], colours, values)):
            patch.set(facecolor=colour, alpha=0.6)
            if len(dots_of) <= FEW_CASES:
                panel.plot([place] * len(dots_of), dots_of, ".", color=INK, markersize=4)
        panel.set_ylabel(_broken(title), fontsize=10)
        panel.set_ylim(-3, 103)
        panel.grid(axis="y", color=FAINT, linewidth=0.5)
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(axis="x", length=0, labelbottom=False)
    draw_subsets(dots, subsets, modalities, vertical=False)
    figure.suptitle(f"{name}: Dice (%) per case, {'up to ' if len(sizes) > 1 else ''}n = {max(sizes)}", fontsize=11)
    return figure


def reliability(pooled: dict[tuple[str, str], np.ndarray], modalities: list[str], name: str) -> Figure:
    """Accuracy against confidence by bin, a panel per region, a line per number of modalities.

    Args:
        pooled: (subset, region) -> `calibration.bin_sums` of all cases; those of subsets of one size are added.
    """
    titles = ordered_regions(list(dict.fromkeys(region for _, region in pooled)))
    size = {subset_name(s, modalities): sum(s) for s in all_subsets(len(modalities))}
    columns = min(len(titles), 4)
    rows = -(-len(titles) // columns)
    legend = 0.35 + 0.18 * -(-len(modalities) // 2)
    figure = Figure(figsize=(3.3 * columns + 0.6, (3.3 + legend) * rows + 0.6), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    for panel, (region, title) in zip(panels.flat, titles.items()):
        panel.plot([0.5, 1], [0.5, 1], color=INK, linewidth=0.8, linestyle=":")
        for count in sorted({size[subset] for subset, _ in pooled}):
            sums = sum(s for (subset, of), s in pooled.items() if of == region and size[subset] == count)
            if not sums[0].any():
                continue
            n, confidence, correct = sums[:, sums[0] > 0]
            error, colour = expected_calibration_error(sums), COLOURS[(count - 1) % len(COLOURS)]
            panel.plot(confidence / n, correct / n, color=colour, linewidth=1.3, label=f"{count}: ECE {100 * error:.1f} %")
            panel.scatter(confidence / n, correct / n, s=4 + 150 * n / n.sum(), color=colour, alpha=0.6, linewidths=0)
        panel.set_title(_broken(title), fontsize=10)
        panel.set_xlim(0.49, 1.01)
        panel.set_ylim(-0.02, 1.02)
        panel.grid(color=FAINT, linewidth=0.5)
        panel.spines[["top", "right"]].set_visible(False)
        if len(panel.lines) > 1:
            panel.legend(title="modalities", title_fontsize=8, fontsize=8, loc="upper center", ncols=2, frameon=False,
                         bbox_to_anchor=(0.5, -0.1), columnspacing=1, handlelength=1.5)  # below: lines may be anywhere
    for empty in panels.flat[len(titles):]:
        empty.set_visible(False)
    figure.suptitle(f"{name}\nreliability, all cases pooled", fontsize=11)
    figure.supxlabel("mean confidence max(p, 1 - p) of a bin\n(area of a dot: its share of the voxels)", fontsize=9)
    figure.supylabel("share of correct voxels", fontsize=9)
    return figure


def _drawn_subsets(names: pd.Index | pd.Series, modalities: list[str]) -> list[Present]:
    """The subsets that occur; beyond five modalities only the reported ones: hundreds could not be told apart."""
    there = set(names)
    subsets = [s for s in all_subsets(len(modalities)) if subset_name(s, modalities) in there]
    reported = set(reported_subsets(len(modalities)))
    return [s for s in subsets if s in reported] or subsets


def _broken(title: str) -> str:
    """A region's title on several lines, as wide as a column of the heat map."""
    return fill(title.replace("_", " "), 12)


def _legend_above(figure: Figure, axes: Axes, width: float) -> None:
    """The names of the methods above the panels, as many beside each other as the width (inches) takes."""
    handles, names = axes.get_legend_handles_labels()
    across = max(1, int(width / (0.5 + 0.075 * max(map(len, names)))))
    figure.legend(handles, names, fontsize=8, loc="outside upper center", frameon=False, ncols=min(across, len(names)))


def draw_subsets(axes: Axes, subsets: list[Present], modalities: list[str], vertical: bool) -> None:
    """A grid of circles, filled where a modality is present: subsets down (vertical) or across."""
    grid = np.argwhere(np.ones((len(subsets), len(modalities)), bool))  # (subset, modality)
    across, down = (grid[:, 1], grid[:, 0]) if vertical else (grid[:, 0], grid[:, 1])
    filled = [INK if subsets[s][m] else "white" for s, m in grid]
    axes.scatter(across, down, s=34, c=filled, edgecolors=INK, linewidths=0.8, clip_on=False)
    names = range(len(modalities))
    if vertical:
        axes.set_xticks(names, modalities, fontsize=8, rotation=90 if max(map(len, modalities)) > 5 else 0)
        axes.xaxis.tick_top()
        axes.set_xlim(-0.6, len(modalities) - 0.4)
        axes.tick_params(axis="y", labelleft=False)
    else:
        axes.set_yticks(names, modalities, fontsize=8)
        axes.set_ylim(len(modalities) - 0.4, -0.6)
        axes.tick_params(axis="x", labelbottom=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
