"""Figures of a classification: subsets with intervals, reliability, labels (MIND's Fig. 2), confusion."""
from __future__ import annotations

from math import isfinite
from pathlib import Path
from textwrap import shorten

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nnmiss.availability import AVAILABLE, all_subsets, reported_subsets, subset_name
from nnmiss.evaluation.classification.conventions import TITLES
from nnmiss.evaluation.classification.measure import Evaluation
from nnmiss.evaluation.classification.tables import label_subset, main_pair
from nnmiss.evaluation.figures import COLOURS, FAINT, INK, draw_subsets, save

NAMES = ("subsets.png", "reliability.png", "labels.png", "confusion.png")
MOST_LABELS = 60  # beyond, names would overlap
MOST_CLASSES = 30


def write_figures(folder: Path, evaluation: Evaluation, bins: dict[str, np.ndarray], confusion: np.ndarray | None) -> None:
    """Writes those of NAMES that there is something to draw of, and removes the others of an earlier evaluation.

    Args:
        bins: subset -> `metrics.calibration_bins` of our model.
        confusion: (C, C) samples of `label_subset`, true classes down and predicted ones across; None: multilabel.
    """
    labels = len(evaluation.truth.classes) + len(evaluation.truth.label_groups)
    drawn = {"subsets.png": subset_bars(evaluation), "reliability.png": reliability(bins, evaluation),
             "labels.png": label_dots(evaluation) if evaluation.truth.task != "binary" and labels <= MOST_LABELS else None,
             "confusion.png": confusion_matrix(confusion, evaluation)
             if confusion is not None and len(confusion) <= MOST_CLASSES else None}
    for name in NAMES:
        if drawn[name] is None:
            (folder / name).unlink(missing_ok=True)
        else:
            save(drawn[name], folder / name)


def subset_bars(evaluation: Evaluation) -> Figure:
    """The two main metrics of every subset with intervals, a dot per model; circles below say which modalities."""
    modalities, metrics = evaluation.truth.modalities, main_pair(evaluation.truth.task)
    reported = reported_subsets(len(modalities)) if len(modalities) > 5 else all_subsets(len(modalities))
    subsets = [s for s in reported if subset_name(s, modalities) in evaluation.shared]
    names = [subset_name(s, modalities) for s in subsets] + [AVAILABLE] * (AVAILABLE in evaluation.shared)
    heights = [2.2] * len(metrics) + [0.24 * len(modalities) + 0.2]
    figure = Figure(figsize=(min(max((0.34 + 0.1 * len(evaluation.names)) * len(names) + 1.6, 4.5), 40), sum(heights) + 1),
                    layout="constrained")
    *panels, dots = figure.subplots(len(metrics) + 1, 1, sharex=True, height_ratios=heights)
    for panel, metric in zip(panels, metrics):
        _draw_models(panel, evaluation, [(name, metric, "all") for name in names], vertical=True)
        panel.set_ylabel(f"{TITLES[metric]} (%)", fontsize=10)
        panel.grid(axis="y", color=FAINT, linewidth=0.5)
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(axis="x", length=0, labelbottom=False)
    draw_subsets(dots, subsets, modalities, vertical=False)
    dots.set_xlim(-0.6, len(names) - 0.4)
    if AVAILABLE in names:
        dots.text(len(names) - 1, (len(modalities) - 1) / 2, AVAILABLE, rotation=90, fontsize=7, ha="center",
                  va="center")
    _legend(figure, panels[0], evaluation)
    return figure


def label_dots(evaluation: Evaluation) -> Figure:
    """AUROC of every label and group of labels with intervals, a dot per model: MIND's Fig. 2, on its side."""
    truth, subset = evaluation.truth, label_subset(evaluation)
    names = [*truth.classes, *truth.label_groups, "all"]
    longest = min(42, max(map(len, names)))
    figure = Figure(figsize=(4.2 + 0.07 * longest, (0.2 + 0.06 * len(evaluation.names)) * len(names) + 1.3),
                    layout="constrained")
    axes = figure.subplots()
    _draw_models(axes, evaluation, [(subset, "auroc", name) for name in names], vertical=False)
    axes.set_yticks(range(len(names)), [shorten(n.replace("_", " "), 42, placeholder=" …") for n in names], fontsize=8)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.axhline(len(truth.classes) - 0.5, color=INK, linewidth=0.6, linestyle=":")
    axes.axvline(50, color=INK, linewidth=0.6, linestyle=":")
    axes.set_xlabel(f"AUROC (%), {_title(subset, evaluation)}", fontsize=9)
    axes.grid(axis="x", color=FAINT, linewidth=0.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    _legend(figure, axes, evaluation)
    return figure


def reliability(bins: dict[str, np.ndarray], evaluation: Evaluation) -> Figure:
    """Share of right predictions (or of positives) against the mean confidence of each bin, a panel per subset."""
    modalities = evaluation.truth.modalities
    kept = {*(subset_name(s, modalities) for s in reported_subsets(len(modalities)) if sum(s) in (1, len(modalities))),
            AVAILABLE}
    shown = {subset: sums for subset, sums in bins.items() if subset in kept} or bins
    columns = min(len(shown), 4)
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(2.6 * columns + 0.6, 2.7 * rows + 0.8), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    multiclass = evaluation.truth.task == "multiclass"
    for panel, (subset, sums) in zip(panels.flat, shown.items()):
        n, confidence, right = sums[:, sums[0] > 0]
        error = np.abs(right - confidence).sum() / n.sum()
        panel.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=":")
        panel.plot(confidence / n, right / n, color=COLOURS[0], linewidth=1.3)
        panel.scatter(confidence / n, right / n, s=6 + 150 * n / n.sum(), color=COLOURS[0], alpha=0.6, linewidths=0)
        count = len(evaluation.own[subset][0])
        panel.set_title(f"{_title(subset, evaluation)}\nECE {100 * error:.1f} %, n = {count}", fontsize=9)
        panel.set_xlim(-0.03, 1.03)
        panel.set_ylim(-0.03, 1.03)
        panel.grid(color=FAINT, linewidth=0.5)
        panel.spines[["top", "right"]].set_visible(False)
    for empty in range(len(shown), rows * columns):
        panels.flat[empty].set_visible(False)
        panels.flat[empty - columns].tick_params(labelbottom=True)  # the panel above is now the lowest of its column
    pooled = ", all labels pooled" if evaluation.truth.task == "multilabel" else ""
    figure.supxlabel("mean confidence of a bin (area of a dot: its share)" if multiclass
                     else f"mean probability of a bin (area of a dot: its share{pooled})", fontsize=9)
    figure.supylabel("share that is right" if multiclass else "share of positives", fontsize=9)
    return figure


def confusion_matrix(counts: np.ndarray, evaluation: Evaluation) -> Figure:
    """Shares of each true class by predicted class, with the numbers of samples."""
    classes = [shorten(name.replace("_", " "), 20, placeholder=" …") for name in evaluation.truth.classes]
    shares = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = 0.42 * len(classes) + 0.06 * max(map(len, classes)) + 1
    figure = Figure(figsize=(max(side + 0.9, 3.8), max(side, 2.9)), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    for (row, column), count in np.ndenumerate(counts):
        if count:
            axes.text(column, row, f"{count:g}", ha="center", va="center", fontsize=7 if len(classes) > 12 else 8,
                      color="white" if shares[row, column] > 55 else INK)
    axes.set_xticks(range(len(classes)), classes, fontsize=8, rotation=90 if max(map(len, classes)) > 2 else 0)
    axes.set_yticks(range(len(classes)), classes, fontsize=8)
    axes.set_xlabel("predicted", fontsize=9)
    axes.set_ylabel("true", fontsize=9)
    axes.tick_params(length=0)
    subset = _title(label_subset(evaluation), evaluation)
    axes.set_title(f"{evaluation.names[0]}\n{subset}, n = {int(counts.sum())}", fontsize=9)
    figure.colorbar(image, ax=axes, label="% of the true class", fraction=0.046)
    return figure


def _title(subset: str, evaluation: Evaluation) -> str:
    """A subset's name, short enough for a panel."""
    if subset == "+".join(evaluation.truth.modalities):
        return "all modalities"
    return shorten(subset.replace("+", " + "), 26, placeholder=" …")


def _draw_models(axes: Axes, evaluation: Evaluation, places: list[tuple[str, str, str]], vertical: bool) -> None:
    """A dot with its interval per model at each place (subset, metric, label); values in %."""
    count = len(evaluation.names)
    for i, name in enumerate(evaluation.names):
        shift = min(0.16, 0.7 / count) * (i - (count - 1) / 2)
        for place, (subset, metric, label) in enumerate(places):
            m = evaluation.measured(subset, name, metric, label)
            m = m or evaluation.measured(subset, name, f"macro_{metric}", label)
            if m is None or not isfinite(m.value):
                continue
            spread = [[100 * (m.value - m.low)], [100 * (m.high - m.value)]] if isfinite(m.low) else None
            if spread is not None:  # a value may lie outside of its percentile interval
                spread = np.maximum(spread, 0)
            at, colour = (place + shift, 100 * m.value), COLOURS[i % len(COLOURS)]
            style = {"fmt": "o", "color": colour, "markersize": 5, "elinewidth": 1.4, "capsize": 2}
            if vertical:
                axes.errorbar(*at, yerr=spread, **style)
            else:
                axes.errorbar(*reversed(at), xerr=spread, **style)


def _legend(figure: Figure, axes: Axes, evaluation: Evaluation) -> None:
    """The models' names above, where there are several; else the name as title. What the bars are, below."""
    names, c = evaluation.names, evaluation.conventions
    bars = f"bars: {100 * c.level:g} % intervals of {c.resamples} resamples" if c.resamples else ""
    if len(names) == 1:
        axes.set_title(f"{names[0]}{f' ({bars})' if bars else ''}", fontsize=9)
        return
    for i, name in enumerate(names):
        axes.plot([], [], "o", color=COLOURS[i % len(COLOURS)], label=name)
    handles, texts = axes.get_legend_handles_labels()
    across = max(1, int(figure.get_figwidth() / (0.5 + 0.075 * max(map(len, texts)))))
    figure.legend(handles, texts, fontsize=8, loc="outside upper center", frameon=False, ncols=min(across, len(texts)),
                  title=bars or None, title_fontsize=8)
