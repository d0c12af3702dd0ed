"""Curves of a training: read from its checkpoints (nothing that could run code), drawn over all its stages."""
from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nnmiss.errors import NnmissError
from nnmiss.evaluation.figures import COLOURS, FAINT, INK

CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_latest.pth", "checkpoint_best.pth")
MOST_POINTS = 1500  # of a line; a longer one is thinned out evenly


@dataclass(frozen=True)
class StageCurves:
    """What one stage logged: name -> a value per epoch."""

    stage: str
    curves: dict[str, list[float]]
    parts: dict[str, list[float]]
    regions: list[list[float]]
    """(epochs, regions) pseudo Dice."""

    @property
    def epochs(self) -> int:
        return max((len(values) for values in self.curves.values()), default=0)


def read_stages(fold: Path) -> list[StageCurves]:
    """The curves of every stage of fold_K in their order in time, the last one at the end.

    Raises NnmissError when there is no checkpoint that can be read.
    """
    folders = [*(p for p in fold.glob("stage_*") if p.is_dir()), fold]
    stages, problems = [], []
    for folder in folders:
        path = next((folder / name for name in CHECKPOINTS if (folder / name).is_file()), None)
        if path is None:
            continue
        try:
            stages.append(_read(path, folder.name.removeprefix("stage_") if folder != fold else ""))
        except NnmissError as error:
            problems.append(str(error))
    if not stages:
        raise NnmissError("; ".join(problems) or f"{fold} has no checkpoint")
    return [stage for _, stage in sorted(stages, key=lambda pair: pair[0])]


def _read(path: Path, stage: str) -> tuple[float, StageCurves]:
    """(start in time, curves) of a checkpoint; its weights are mapped, not read."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, ValueError, KeyError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise NnmissError(f"cannot read {path} ({reason})") from None
    log = content.get("logging") if isinstance(content, dict) else None
    if not isinstance(log, dict) or not log.get("train_losses"):
        raise NnmissError(f"{path} holds no curves")
    own = content.get("nnmiss") or {}
    names = {"train_losses": "training loss", "val_losses": "validation loss", "mean_fg_dice": "pseudo Dice",
             "ema_fg_dice": "moving average", "lrs": "learning rate"}
    curves = {title: [float(v) for v in log.get(key) or []] for key, title in names.items()}
    seconds = [b - a for a, b in zip(log.get("epoch_start_timestamps") or [], log.get("epoch_end_timestamps") or [])]
    curves["seconds"] = [float(s) for s in seconds]
    started = (log.get("epoch_start_timestamps") or [float("inf")])[0]
    parts = (own.get("progress") or {}).get("parts") or {}
    return float(started), StageCurves(stage or str(own.get("stage") or ""), curves,
                                       {str(k): [float(x) for x in v] for k, v in parts.items()},
                                       [list(map(float, row)) for row in log.get("dice_per_class_or_region") or []])


def curves_figure(stages: list[StageCurves]) -> Figure:
    """Losses, pseudo Dice and, if there are several, the parts of the loss, over the epochs of all stages."""
    parts = list(dict.fromkeys(name for stage in stages for name in stage.parts if name != "loss"))
    panels = 3 if len(parts) > 1 else 2
    figure = Figure(figsize=(11, 2.9), layout="constrained")
    axes = figure.subplots(1, panels)
    _lines(axes[0], stages, ["training loss", "validation loss"], "loss")
    _lines(axes[1], stages, ["pseudo Dice", "moving average"], "pseudo Dice of validation batches")
    axes[1].set_ylim(0, 1)
    if panels == 3:
        _lines(axes[2], stages, parts, "parts of the training loss", parts=True)
    return figure


def _lines(axes: Axes, stages: list[StageCurves], names: list[str], title: str, parts: bool = False) -> None:
    epochs = sum(stage.epochs for stage in stages)
    for i, name in enumerate(names):
        start, label = 0, name
        for stage in stages:
            values = (stage.parts if parts else stage.curves).get(name) or []
            x, y = thinned(np.arange(start + 1, start + len(values) + 1), np.array(values, float))
            axes.plot(x, y, color=COLOURS[i % len(COLOURS)], linewidth=1.4, label=label if len(values) else None,
                      marker="." if epochs < 60 else None, markersize=5)
            label = None if len(values) else label
            start += stage.epochs
    _style(axes, title, "epoch")
    start = 0
    for stage in stages:
        if len(stages) > 1:
            axes.axvline(start + 0.5, color=INK, linewidth=0.6, linestyle=":")
            axes.annotate(stage.stage, (start + 0.5, 0.0), xycoords=("data", "axes fraction"), xytext=(3, 3), fontsize=7,
                          textcoords="offset points", rotation=90 if len(stages) > 3 else 0)  # side by side, many overlap
        start += stage.epochs
    axes.legend(fontsize=8, frameon=False)


def table_figure(frame: pd.DataFrame, name: str) -> Figure:
    """A table over iterations (importance weights, elections, gate weights, features): a line per column.

    Columns with a common prefix before ':' share a panel, as the trainer's own figure has it.
    """
    groups: dict[str, list[str]] = {}
    for column in frame.columns[1:]:
        groups.setdefault(column.partition(":")[0] if ":" in column else "", []).append(column)
    columns = min(len(groups), 3)
    rows = -(-len(groups) // columns)
    figure = Figure(figsize=(11 if columns > 1 else 6.5, 2.9 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    for axes, (group, members) in zip(panels.flat, groups.items()):
        for i, column in enumerate(members):
            x, y = thinned(frame.iloc[:, 0].to_numpy(float), frame[column].to_numpy(float))
            axes.plot(x, y, color=COLOURS[i % len(COLOURS)], linewidth=1.4, label=column.partition(":")[2] or column,
                      marker="." if len(x) < 60 else None, markersize=5)
        _style(axes, (group or name).replace("_", " "), "iteration")
        axes.legend(fontsize=8, frameon=False)
    for empty in panels.flat[len(groups):]:
        empty.set_visible(False)
    return figure


def thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most MOST_POINTS of the points, evenly chosen, the last one among them."""
    if len(x) <= MOST_POINTS:
        return x, y
    kept = np.unique(np.linspace(0, len(x) - 1, MOST_POINTS).round().astype(int))
    return x[kept], y[kept]


def _style(axes: Axes, title: str, xlabel: str) -> None:
    axes.set_title(title if len(title) <= 48 else title[:47] + "…", fontsize=9)
    axes.set_xlabel(xlabel, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(color=FAINT, linewidth=0.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.get_major_locator().set_params(integer=True)
