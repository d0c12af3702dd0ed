"""What a classification training logs in every epoch, as csv and png."""
from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from nnmiss.atomic_files import replacing

from .progress import Progress

MANY = 10  # lines of one panel that can be told apart
DOTTED = 30  # epochs up to which each has a dot, without which a single one would not be seen


class Curves:
    """Losses, validation scores, learning rate and seconds of every epoch of a stage.

    Attributes:
        columns: name -> a value per epoch, such as "train_losses", "score" (that epochs are compared by) and
            "score:image+sound" (of one subset).
    """

    def __init__(self) -> None:
        self.columns: dict[str, list[float]] = {"train_losses": [], "val_losses": [], "score": [], "lrs": [], "seconds": []}

    def add(self, epoch: int, scores: dict[str, float] | None = None, **values: float) -> None:
        """Takes values of an epoch; a repeated epoch (after a resume) replaces what came later."""
        for name, value in {**values, **{f"score:{name}": value for name, value in (scores or {}).items()}}.items():
            column = self.columns.setdefault(name, [])
            del column[epoch:]  # in place: schedules read the list
            column.append(float(value))

    def state(self) -> dict[str, list[float]]:
        """Plain values for the checkpoint."""
        return {name: list(values) for name, values in self.columns.items()}

    def load(self, state: dict[str, list[float]]) -> None:
        """Takes back what `state` gave."""
        for name, values in state.items():
            self.columns.setdefault(name, [])[:] = values

    def write(self, folder: str | Path, parts: Progress, score: str, draw: bool = True) -> None:
        """Writes progress.csv (a row per epoch, with the loss parts) and, unless told not to draw, progress.png."""
        columns = {**self.columns, **{f"part:{name}": values for name, values in parts.parts.items()}}
        frame = pd.DataFrame({name: pd.Series(values, dtype=float) for name, values in columns.items()})
        frame.insert(0, "epoch", range(1, len(frame) + 1))
        with replacing(Path(folder) / "progress.csv") as temporary:
            frame.to_csv(temporary, index=False)
        if not draw:
            return
        figure = Figure(figsize=(12, 8), layout="constrained")
        panels = {"loss": ["train_losses", "val_losses"], f"validation {score}": [c for c in columns if "score" in c],
                  "parts of the training loss": [c for c in columns if c.startswith("part:")], "learning rate": ["lrs"]}
        axes = figure.subplots(2, 2).flat
        for axis, (title, names) in zip(axes, panels.items()):
            _draw_panel(axis, frame, names)
            axis.set(title=title, xlabel="epoch")
        axes[-1].set_ylim(bottom=0)
        with replacing(Path(folder) / "progress.png") as temporary:
            figure.savefig(temporary, dpi=80)


def _draw_panel(axis: Axes, frame: pd.DataFrame, names: list[str]) -> None:
    """A line per column; of many subsets single modalities, all of them and `available` in colour, the others in grey."""
    largest = max((name.count("+") for name in names), default=0)
    grey = [name for name in names if 0 < name.count("+") < largest] if len(names) > MANY else []
    marker = "." if len(frame) <= DOTTED else ""
    for number, name in enumerate(grey):
        axis.plot(frame["epoch"], frame[name], color="0.85", marker=marker, label="_" if number else "other subsets")
    for name in (name for name in names if name not in grey):
        label = "all modalities" if grey and name.count("+") == largest else _label(name)
        axis.plot(frame["epoch"], frame[name], "k-" if name == "score" else "-", marker=marker, label=label)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axis.grid(alpha=0.3)
    if 1 < len(names) - len(grey) <= 2 * MANY:
        beside = {"loc": "center left", "bbox_to_anchor": (1, 0.5)} if grey else {}
        axis.legend(fontsize="small", **beside)


def _label(column: str) -> str:
    return {"train_losses": "training", "val_losses": "validation", "score": "epochs are compared by"}.get(
        column, column.partition(":")[2] or column)
