"""How much a fusion uses each modality: the conditional utilisation rate and d_util (MIND, Eq. 6), per epoch."""
from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from nnmiss.atomic_files import replacing

from .classification_curves import DOTTED


def leave_one_out(num_modalities: int) -> Tensor:
    """(M + 1, M) bool: all modalities, then all but the first, all but the second, ..."""
    return torch.cat([torch.ones(1, num_modalities, dtype=torch.bool), ~torch.eye(num_modalities, dtype=torch.bool)])


def utilisation_rates(full: float, without: list[float]) -> list[float]:
    """Eq. 6: u_m = (A(all) - A(all but m)) / A(all), what modality m adds to the others.

    With two modalities "all but A" is B alone, which is the paper's formula.

    Args:
        full: an accuracy with all M modalities.
        without: M accuracies; entry m without modality m.

    Returns:
        M rates; NaN where an accuracy is unknown or the full one is 0.
    """
    return [(full - rest) / full if full and not math.isnan(full) else math.nan for rest in without]


def utilisation_difference(rates: list[float]) -> float:
    """d_util: u_A - u_B; for M > 2 the largest rate minus the smallest, which is never negative. NaN where one is."""
    if any(math.isnan(rate) for rate in rates):
        return math.nan
    return rates[0] - rates[1] if len(rates) == 2 else max(rates) - min(rates)


def columns(modalities: list[str]) -> list[str]:
    """Columns of the table: u_<modality> of each, then d_util."""
    return [*(f"u_{name}" for name in modalities), "d_util"]


def row(full: float, without: list[float]) -> list[float]:
    """Values of `columns`; see `utilisation_rates`."""
    rates = utilisation_rates(full, without)
    return [*rates, utilisation_difference(rates)]


def draw(table: dict[str, list], best_epoch: int | None, path: str | Path) -> None:
    """Draws the rates and their difference over the epochs, with a line at the epoch that was kept (Fig. 3).

    Nothing is drawn where none is known, as without a validation sample that has all modalities.

    Args:
        table: {"columns": ["epoch", *columns], "rows": [[iteration, epoch, values ...], ...]}, as Progress has it.
    """
    frame = pd.DataFrame(table["rows"], columns=["iteration", *table["columns"]])
    if frame.iloc[:, 2:].isna().all(axis=None):
        return
    figure = Figure(figsize=(7, 4), layout="constrained")
    axis = figure.add_subplot()
    for column in frame.columns[2:]:
        axis.plot(frame["epoch"], frame[column], "k--" if column == "d_util" else "-", label=column,
                  marker="." if len(frame) <= DOTTED else "")
    if best_epoch is not None:
        axis.axvline(best_epoch, color="0.5", linestyle=":", label="best epoch")
    axis.axhline(0, color="0.8", linewidth=0.8)
    axis.set(xlabel="epoch", ylabel="conditional utilisation rate")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axis.grid(alpha=0.3)
    axis.legend()
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110)
