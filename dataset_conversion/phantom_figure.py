"""A picture of a phantom case: every modality in three planes, with the outlines of the nested regions."""
from __future__ import annotations

import os

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from nnmiss.atomic_files import replacing

REGION_COLOURS = {"whole tumour": "#2fd08a", "tumour core": "#ffb000", "enhancing": "#ff3b5c"}  # labels >= 1, >= 2, 3
PLANES = ("sagittal", "coronal", "axial")


def draw_case(path: str | os.PathLike, images: np.ndarray, labels: np.ndarray, modalities: tuple[str, ...],
              title: str) -> None:
    """Draws (M, X, Y, Z) images and (X, Y, Z) labels to `path` (png, pdf or svg, by its ending), atomically.

    Rows are modalities, columns the planes through the tumour core, each plain and with outlines.
    """
    centre = [int(np.median(where)) for where in np.nonzero(labels >= 2)]
    figure = Figure(figsize=(2.1 * 6, 2.2 * len(modalities) + 0.9), facecolor="black", layout="constrained")
    axes = figure.subplots(len(modalities), 6, squeeze=False)
    for row, (name, image) in enumerate(zip(modalities, images)):
        window = np.percentile(image[image > 0], (1, 99.7))
        for plane in range(3):
            shown = np.take(image, centre[plane], axis=plane).T
            truth = np.take(labels, centre[plane], axis=plane).T
            for outlined, ax in enumerate(axes[row, 2 * plane: 2 * plane + 2]):
                ax.imshow(shown, cmap="gray", vmin=min(window[0] * 0.5, window[0]), vmax=window[1], origin="lower")
                ax.set_axis_off()
                if outlined:
                    outline(ax, truth)
                if row == 0 and not outlined:
                    ax.set_title(PLANES[plane], color="white", fontsize=11, loc="left")
        axes[row, 0].text(-0.06, 0.5, name, transform=axes[row, 0].transAxes, color="white", fontsize=12,
                          rotation=90, va="center", ha="right")
    handles = [Line2D([], [], color=colour, label=region) for region, colour in REGION_COLOURS.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, labelcolor="white")
    figure.suptitle(title, color="white", fontsize=13)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110)


def outline(ax, truth: np.ndarray) -> None:
    """Draws the borders of the nested regions of a slice of labels, (rows, columns), over the image in `ax`."""
    for level, width, colour in zip((1, 2, 3), (1.2, 2.4, 0.9), REGION_COLOURS.values()):  # the core's shows beneath
        if (truth >= level).any():
            ax.contour(truth >= level, levels=[0.5], colors=[colour], linewidths=width)
