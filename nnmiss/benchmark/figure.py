"""One figure of a benchmark: every seed of every variant, and the differences to the reference with their intervals."""
from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nnmiss.benchmark.comparison import ALL, Comparison, Entry
from nnmiss.evaluation.figures import COLOURS, FAINT, INK, save

LONGEST_LABEL = 40
REFERENCE = "#666666"


def write_figure(comparison: Comparison, path: Path) -> None:
    """Left: a dot per seed and a line at the mean. Right: difference to the reference, of each seed and with interval."""
    entries = [*comparison.open, *comparison.dedicated]
    longest = min(LONGEST_LABEL, max(len(_label(entry)) for entry in entries))
    figure = Figure(figsize=(7.2 + 0.075 * longest, 0.42 * len(entries) + 1.5), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for place, entry in enumerate(entries):
        colour = REFERENCE if entry.variant == comparison.reference else COLOURS[1 if entry.subset else 0]
        _draw_seeds(left, place, entry, colour)
        _draw_difference(right, place, entry, colour)
    left.set_yticks(range(len(entries)), [_label(entry) for entry in entries], fontsize=8)
    left.set_ylim(len(entries) - 0.4, -0.6)
    dotted = "; dotted: reference on that subset" if comparison.dedicated else ""
    left.set_xlabel(f"Dice (%), mean over subsets and regions\n(dot: a seed, line: mean{dotted})", fontsize=9)
    right.axvline(0, color=INK, linewidth=0.8)
    right.set_xlabel(f"difference to {comparison.reference}\n(percentage points, 95 % interval)", fontsize=9)
    figure.suptitle(f"n = {_span(len(e.seeds) for e in entries)} seeds, {_span(e.rows['case'].nunique() for e in entries)} "
                    "cases", fontsize=9)
    for panel in (left, right):
        panel.grid(axis="x", color=FAINT, linewidth=0.5)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(axis="y", length=0)
        if comparison.dedicated:  # their Dice is of one subset and not to be read against the rows above
            panel.axhline(len(comparison.open) - 0.5, color=INK, linewidth=0.8, linestyle=":")
    save(figure, path)


def _span(counts) -> str:
    low, high = min(counts := list(counts)), max(counts)
    return f"{low}" if low == high else f"{low} to {high}"


def _label(entry: Entry) -> str:
    text = entry.label if not entry.subset or entry.subset in entry.label else f"{entry.label} ({entry.subset})"
    return text if len(text) <= LONGEST_LABEL else text[: LONGEST_LABEL - 1] + "…"


def _draw_seeds(axes: Axes, place: int, entry: Entry, colour: str) -> None:
    means = entry.means[ALL].to_numpy()
    if not len(means):
        return
    spread = np.linspace(-0.16, 0.16, len(means)) if len(means) > 1 else np.zeros(1)
    axes.plot(means, place + spread, "o", color=colour, markersize=5, alpha=0.75, markeredgewidth=0)
    axes.plot([means.mean()] * 2, [place - 0.3, place + 0.3], "-", color=colour, linewidth=2)
    if entry.subset:
        axes.plot([entry.reference_mean] * 2, [place - 0.3, place + 0.3], ":", color=REFERENCE, linewidth=2)


def _draw_difference(axes: Axes, place: int, entry: Entry, colour: str) -> None:
    found = entry.differences.get(ALL)
    if found is None:
        if entry.against is None:
            axes.text(0, place, " reference", fontsize=8, va="center", color=colour)
        return
    axes.plot([found.ci_low, found.ci_high], [place, place], "-", color=colour, linewidth=2)
    axes.plot(list(found.per_seed.values()), [place - 0.2] * len(found.per_seed), "o", color=colour, markersize=4,
              alpha=0.6, markeredgewidth=0)
    axes.plot(found.mean, place, "D", color=colour, markersize=6, markeredgecolor="white")
