"""The pictures of documentation/reference/phantom.md: python benchmarks/phantom_figures.py [-o FOLDER] [--size 72]

phantom_preset.png: one case in all modalities, with standard settings and with the preset. phantom_ingredients.png: the
same case with the ingredients of the preset switched on one at a time.
"""
from __future__ import annotations

import argparse
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from nnmiss.atomic_files import replacing
from nnmiss.dataset_conversion.phantom import PRESETS, PhantomSettings, make_case, preset_settings, training_labels
from nnmiss.dataset_conversion.phantom_figure import REGION_COLOURS, outline

FOLDER = Path(__file__).resolve().parent.parent / "documentation" / "reference" / "figures"


def show(ax, image: np.ndarray, labels: np.ndarray | None, plane: int) -> None:
    """One axial slice of the head, windowed by the whole image, with the outlines of the regions if labels are given."""
    low, high = np.percentile(image[image > 0], (1, 99.7))
    ax.imshow(image[:, :, plane].T, cmap="gray", vmin=low * 0.5, vmax=high, origin="lower")
    if labels is not None:
        outline(ax, labels[:, :, plane].T)
    (left, right), (low, high) = ((where.min() - 2, where.max() + 2) for where in np.nonzero(image[:, :, plane]))
    ax.set(facecolor="black", xlim=(left, right), ylim=(low, high), xticks=[], yticks=[])


def best_plane(labels: np.ndarray) -> int:
    """The axial slice with most enhancing tumour."""
    return int((labels == 3).sum((0, 1)).argmax())


def grid(rows: list[str], columns: list[str], width: float, height: float):
    """A dark figure with row names on the left, column names on top and the colours of the regions below."""
    figure = Figure(figsize=(width * len(columns) + 1.7, height * len(rows) + 0.8), facecolor="black",
                    layout="constrained")
    axes = figure.subplots(len(rows), len(columns), squeeze=False)
    for ax, name in zip(axes[:, 0], rows):
        ax.set_ylabel(name, color="white", fontsize=11, rotation=0, ha="right", va="center", labelpad=8)
    for ax, name in zip(axes[0], columns):
        ax.set_title(name, color="white", fontsize=11)
    handles = [Line2D([], [], color=colour, label=region) for region, colour in REGION_COLOURS.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, labelcolor="white")
    return figure, axes


def picture(drawn: BytesIO) -> Image.Image:
    """A palette image of greys and of the three colours on all of them, so that the file is small and colours stay."""
    colours = np.array([to_rgb(colour) for colour in REGION_COLOURS.values()]) * 255
    greys = np.linspace(0, 255, 112)[:, None] * np.ones(3)
    blends = [colour * share + under * (1 - share) for colour in colours for share in (1.0, 0.75, 0.5, 0.25)
              for under in (0.0, 80.0, 160.0, 240.0)]
    palette = Image.new("P", (1, 1))
    palette.putpalette(np.vstack([greys, blends]).round().astype(np.uint8).tobytes())
    return Image.open(drawn).convert("RGB").quantize(palette=palette, dither=Image.Dither.NONE)


def save(figure: Figure, path: Path) -> None:
    """Writes the picture in 160 colours, the outlines' own among them, atomically."""
    drawn = BytesIO()
    figure.savefig(drawn, dpi=80)
    with replacing(path) as temporary:
        picture(drawn).save(temporary, format="PNG", optimize=True)
    print(path, path.stat().st_size // 1024, "KiB")


def draw_preset(path: Path, size: int, number: int) -> None:
    """Standard settings against the preset: modality by modality, plain and with outlines."""
    settings = PhantomSettings(size=size), preset_settings("brats_like", size=size)
    figure, axes = grid(list(settings[0].names), ["standard", "with truth", "brats_like", "with truth"], 2.2, 2.2)
    for column, setting in enumerate(settings):
        images, labels = make_case(setting, number)
        for row, image in enumerate(images):
            show(axes[row, 2 * column], image, None, best_plane(labels))
            show(axes[row, 2 * column + 1], image, labels, best_plane(labels))
    save(figure, path)


def draw_ingredients(path: Path, size: int, number: int) -> None:
    """Rows: standard, then one ingredient each, of a strength that is seen; columns: modalities, with the truth."""
    plain = PhantomSettings(size=size)
    preset = PRESETS["brats_like"]
    rows = {
        "standard": plain,
        "contrasts\nbrats_like": replace(plain, contrasts="brats_like"),
        "invisible": replace(plain, invisible=True),
        "lookalikes 3": replace(plain, lookalikes=3),
        f"scanners {preset['scanners']}": replace(plain, scanners=preset["scanners"]),
        "registration\nerror 2": replace(plain, registration_error=2.0),
        "label noise 1\n(drawn: label\nof training)": replace(plain, label_noise=1.0),
    }
    figure, axes = grid(list(rows), list(plain.names), 2.0, 2.0)
    for row, setting in zip(axes, rows.values()):
        images, labels = make_case(setting, number)
        drawn = training_labels(setting, number)
        for ax, image in zip(row, images):
            show(ax, image, drawn, best_plane(labels))
    save(figure, path)


def main() -> None:
    """Draws both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", dest="output", type=Path, default=FOLDER)
    parser.add_argument("--size", type=int, default=72)
    parser.add_argument("--case", type=int, default=2)
    args = parser.parse_args()
    draw_preset(args.output / "phantom_preset.png", args.size, args.case)
    draw_ingredients(args.output / "phantom_ingredients.png", args.size, args.case)


if __name__ == "__main__":
    main()
