"""The figure of a classification's benchmark: every seed of every variant, a panel per subset."""
from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nnmiss.benchmark.classification import Comparison, Entry
from nnmiss.benchmark.figure import LONGEST_LABEL, REFERENCE
from nnmiss.evaluation.classification.conventions import TITLES
from nnmiss.evaluation.figures import COLOURS, FAINT, INK, save

MOST_PANELS = 6


def write_figure(comparison: Comparison, path: Path) -> None:
    """A dot per seed and a line at the mean, a row per variant and a panel per measure; dashed: the reference's mean."""
    measures, metric = comparison.measures[:MOST_PANELS], comparison.metrics[0]
    entries = comparison.entries
    longest = min(LONGEST_LABEL, max(len(entry.label) for entry in entries))
    figure = Figure(figsize=(1.9 * len(measures) + 0.075 * longest + 0.6, 0.36 * len(entries) + 1.6), layout="constrained")
    panels = figure.subplots(1, len(measures), sharey=True, squeeze=False)[0]
    for panel, measure in zip(panels, measures):
        for place, entry in enumerate(entries):
            _draw(panel, place, entry, comparison, measure, metric)
        panel.set_title(measure, fontsize=9)
        panel.grid(axis="x", color=FAINT, linewidth=0.5)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(axis="y", length=0)
        panel.tick_params(axis="x", labelsize=8)
        panel.locator_params(axis="x", nbins=4)
    panels[0].set_yticks(range(len(entries)), [_short(entry.label) for entry in entries], fontsize=8)
    panels[0].set_ylim(len(entries) - 0.4, -0.6)
    figure.supxlabel(f"{TITLES[metric]} (%); dot: a {comparison.unit}, line: mean, dashed: {_short(comparison.reference)}",
                     fontsize=9)
    save(figure, path)


def _short(label: str) -> str:
    return label if len(label) <= LONGEST_LABEL else label[: LONGEST_LABEL - 1] + "…"


def _draw(axes: Axes, place: int, entry: Entry, comparison: Comparison, measure: str, metric: str) -> None:
    values = comparison.units(entry, measure, metric).to_numpy()
    if not len(values) or (entry.subset and measure == "mean over subsets"):
        return
    is_reference = entry.variant == comparison.reference
    colour = REFERENCE if is_reference else COLOURS[1 if entry.subset else 0]
    spread = np.linspace(-0.16, 0.16, len(values)) if len(values) > 1 else np.zeros(1)
    axes.plot(values, place + spread, "o", color=colour, markersize=4, alpha=0.7, markeredgewidth=0)
    axes.plot([values.mean()] * 2, [place - 0.3, place + 0.3], "-", color=colour, linewidth=2)
    if is_reference:
        axes.axvline(values.mean(), color=INK, linewidth=0.7, linestyle="--", zorder=0)
