"""What a training logs beside nnU-Net's curves: loss parts per epoch, tables over iterations, as csv and png."""
from __future__ import annotations

from pathlib import Path
from textwrap import shorten

import pandas as pd
from matplotlib.figure import Figure
from nnunetv2.training.logging.nnunet_logger import MetaLogger

from nnmiss.atomic_files import replacing
from nnmiss.inference.checkpoints import plain

Y_LABELS = {"importance_weights": "importance weight", "elections": "score of the modality alone",
            "gate_weights": "weight in the mixture"}  # of the tables' figures; elsewhere the title says what is drawn


class Progress:
    """Loss parts per epoch, and tables such as importance weights over iterations.

    Attributes:
        parts: name of a loss part -> its mean in every epoch of this stage.
        tables: name -> {"columns": [...], "rows": [[iteration, value, ...], ...]}; iterations count over all stages.
    """

    def __init__(self) -> None:
        self.parts: dict[str, list[float]] = {}
        self.tables: dict[str, dict[str, list]] = {}

    def add(self, epoch: int, means: dict[str, float]) -> None:
        """Takes the mean loss parts of an epoch; a repeated epoch (after a resume) replaces what came later."""
        for name, value in means.items():
            values = self.parts.setdefault(name, [])
            del values[epoch:]
            values.append(value)

    def add_row(self, table: str, columns: list[str], iteration: int, values: list[float]) -> None:
        """Adds a row to a table; rows at or after `iteration` (after a resume) are replaced."""
        content = self.tables.setdefault(table, {"columns": columns, "rows": []})
        while content["rows"] and content["rows"][-1][0] >= iteration:
            content["rows"].pop()
        content["rows"].append([iteration, *values])

    @staticmethod
    def short(parts: dict[str, float]) -> str:
        """'loss -0.512, distillation 0.031' for the progress bar."""
        return ", ".join(f"{name} {value:.3f}" for name, value in parts.items())

    def state(self) -> dict:
        """Plain values for the checkpoint."""
        return {"parts": self.parts, "tables": self.tables}

    def load(self, state: dict) -> None:
        """Takes back what `state` gave."""
        self.parts, self.tables = state["parts"], state["tables"]

    def write_tables(self, folder: str | Path, draw: bool = True) -> None:
        """Writes every table as <name>.csv and, unless told not to, draws it as <name>.png."""
        for name, table in self.tables.items():
            frame = pd.DataFrame(table["rows"], columns=["iteration", *table["columns"]])
            with replacing(Path(folder) / f"{name}.csv") as temporary:
                frame.to_csv(temporary, index=False)
            if draw:
                _draw_table(frame, name, Path(folder) / f"{name}.png")


def _draw_table(frame: pd.DataFrame, name: str, path: Path) -> None:
    """One line per column, columns with a common prefix before ':' in one panel (MetaKD Fig. 4 and 5)."""
    groups: dict[str, list[str]] = {}
    for column in frame.columns[1:]:
        groups.setdefault(column.partition(":")[0] if ":" in column else "", []).append(column)
    across = min(len(groups), 4)
    down = -(-len(groups) // across)
    figure = Figure(figsize=(6 * across, 4 * down), layout="constrained")
    for position, (group, columns) in enumerate(groups.items(), 1):
        axis = figure.add_subplot(down, across, position)
        for column in columns:
            axis.plot(frame["iteration"], frame[column], marker=".", label=column.partition(":")[2] or column)
        axis.set(xlabel="iteration", ylabel=Y_LABELS.get(name, "value"),
                 title=shorten((group or name).replace("_", " "), 45, placeholder=" ..."))
        axis.grid(alpha=0.3)
        axis.legend()
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110)


class ProgressLogger(MetaLogger):
    """nnU-Net's logger, whose progress.png also shows the method's loss parts (and takes a tenth of the time)."""

    def __init__(self, output_folder: str, resume: bool, progress: Progress):
        super().__init__(output_folder, resume)
        self.progress = progress

    def log(self, key: str, value, step: int) -> None:
        """As nnU-Net's, in plain numbers: NumPy's would be summed otherwise than what comes back from a file."""
        super().log(key, plain(value), step)

    def plot_progress_png(self, output_folder: str) -> None:
        """Writes progress.png: losses with pseudo Dice, loss parts, learning rate, seconds per epoch."""
        log = self.get_checkpoint()
        figure = Figure(figsize=(12, 8), layout="constrained")
        losses, parts, rate, duration = figure.subplots(2, 2).flat
        losses.plot(log["train_losses"], marker=".", label="training loss")
        losses.plot(log["val_losses"], marker=".", label="validation loss")
        losses.legend(loc="upper left")
        dice = losses.twinx()
        dice.plot(log["mean_fg_dice"], "g:", label="pseudo Dice")
        dice.plot(log["ema_fg_dice"], "g-", label="pseudo Dice, moving average")
        dice.set_ylim(0, 1)
        dice.legend(loc="lower right")
        for name, values in self.progress.parts.items():
            parts.plot(values, marker=".", label=name)
        parts.legend()
        rate.plot(log["lrs"], marker=".")
        duration.plot([b - a for a, b in zip(log["epoch_start_timestamps"], log["epoch_end_timestamps"])], marker=".")
        titles = ("loss and pseudo Dice", "parts of the training loss", "learning rate", "seconds per epoch")
        for axis, title in zip((losses, parts, rate, duration), titles):
            axis.set(title=title, xlabel="epoch")
            axis.grid(alpha=0.3)
        rate.set_ylim(bottom=0)
        duration.set_ylim(bottom=0)
        with replacing(Path(output_folder) / "progress.png") as temporary:
            figure.savefig(temporary, dpi=80)

