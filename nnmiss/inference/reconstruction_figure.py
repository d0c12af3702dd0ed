"""Input, reconstruction and truth side by side (the all-stage paper's Fig. 3)."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

INCHES = 1.9  # a panel's width


@dataclass(frozen=True)
class Panel:
    """One image of the figure.

    Attributes:
        title: above it.
        image: (slices, rows, columns).
        window: the image whose 0.5th and 99.5th percentile are black and white; None: its own. A reconstruction is shown
            in its truth's window, so that a wrong scale is seen.
    """

    title: str
    image: np.ndarray
    window: np.ndarray | None = None


def middle_slice(foreground: np.ndarray) -> int:
    """Number of the slice (first axis) in the middle of the foreground; of the image where there is none."""
    slices = np.flatnonzero(foreground.any((1, 2)))
    return int(slices[len(slices) // 2]) if len(slices) else len(foreground) // 2


def write_figure(rows: list[list[Panel]], foreground: np.ndarray, spacing: list[float], title: str, path: Path) -> None:
    """Draws rows of panels at the middle slice of `foreground` (slices, rows, columns) bool; written atomically."""
    from matplotlib.figure import Figure  # here, because every prediction would wait for this package and scipy.stats

    from nnmiss.evaluation.figures import save

    number = middle_slice(foreground)
    aspect = spacing[1] / spacing[2]
    columns, shape = max(map(len, rows)), foreground.shape
    height = INCHES * shape[1] * aspect / shape[2] + 0.3
    figure = Figure(figsize=(INCHES * columns + 0.2, height * len(rows) + 0.4), layout="constrained")
    for axes, row in zip(figure.subplots(len(rows), columns, squeeze=False), rows):
        for ax in axes:
            ax.set_axis_off()
        for ax, panel in zip(axes, row):
            black, white = np.percentile(panel.image if panel.window is None else panel.window, [0.5, 99.5])
            ax.imshow(panel.image[number], cmap="gray", vmin=black, vmax=max(white, black + 1e-6), aspect=aspect)
            ax.set_title(panel.title, fontsize=8)
    figure.suptitle(f"{title}, slice {number}", fontsize=9)
    save(figure, path)
