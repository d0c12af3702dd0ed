"""What a classification training logs in every epoch, as csv and png."""
from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from nnmiss.atomic_files import replacing

from .progress import Progress


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
        for axis, (title, names) in zip(figure.subplots(2, 2).flat, panels.items()):
            for name in names:
                axis.plot(frame["epoch"], frame[name], "k-" if name == "score" else "-", label=_label(name))
            axis.set(title=title, xlabel="epoch")
            axis.grid(alpha=0.3)
            if 0 < len(names) <= 10:
                axis.legend(fontsize="small")
        with replacing(Path(folder) / "progress.png") as temporary:
            figure.savefig(temporary, dpi=80)


def _label(column: str) -> str:
    return {"train_losses": "training", "val_losses": "validation", "score": "compared"}.get(
        column, column.partition(":")[2] or column)
