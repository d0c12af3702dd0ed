"""Which subsets of modalities a data set's cases have, and how often: table and bar chart."""
from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from nnmiss.atomic_files import replacing, write_text
from nnmiss.availability import Present, subset_name

ROWS_SHOWN = 25  # of the printed table and the chart; the csv has all


def count_subsets(available: dict[str, Present], modalities: list[str]) -> pd.DataFrame:
    """One row per subset that occurs, most frequent first.

    Returns:
        Columns: subset (name), one 1/0 column per modality, number (of modalities), cases, percent.
    """
    counts = Counter(tuple(row) for row in available.values())
    order = sorted(counts, key=lambda s: (-counts[s], -sum(s), [not has for has in s]))
    return pd.DataFrame([{
        "subset": subset_name(subset, modalities),
        **{name: int(has) for name, has in zip(modalities, subset)},
        "number": sum(subset),
        "cases": counts[subset],
        "percent": round(100 * counts[subset] / len(available), 1),
    } for subset in order])


def markdown_table(table: pd.DataFrame, modalities: list[str], available: dict[str, Present]) -> str:
    """The table with filled circles for modalities that are there, and a last row with the cases that have each."""
    rows = [["● " if row[m] else "○ " for m in modalities] + [str(row["cases"]), f"{row['percent']:.1f}"]
            for _, row in table.head(ROWS_SHOWN).iterrows()]
    rest = table.iloc[ROWS_SHOWN:]
    if len(rest):
        rows.append(["…"] * len(modalities) + [str(rest["cases"].sum()), f"{rest['percent'].sum():.1f}"])
    have = np.array([available[case] for case in available]).sum(0)  # (M,)
    rows.append([f"{n} have it" for n in have] + [str(len(available)), "100.0"])
    header = [*modalities, "cases", "%"]
    widths = [max(len(r[i].strip()) for r in [header, *rows]) for i in range(len(header))]
    lines = ["| " + " | ".join(cell.strip().center(w) for cell, w in zip(r, widths)) + " |" for r in [header, *rows]]
    lines.insert(1, "|" + "|".join(":" + "-" * w + ":" for w in widths) + "|")
    return "\n".join(lines)


def draw_subsets(table: pd.DataFrame, modalities: list[str], path: str | Path) -> None:
    """Saves a bar chart of the subsets, each labelled by filled and open circles, as PNG."""
    shown = table.head(ROWS_SHOWN)
    rows = np.arange(len(shown))
    figure = Figure(figsize=(4.2 + 0.45 * len(modalities), 1.5 + 0.32 * len(shown)), layout="constrained")
    FigureCanvasAgg(figure)
    circles, bars = figure.subplots(1, 2, sharey=True, width_ratios=[0.45 * len(modalities) + 0.3, 3.4])
    for column, name in enumerate(modalities):
        has = shown[name].to_numpy(dtype=bool)
        circles.scatter(np.full(has.sum(), column), rows[has], s=60, color="#1f4e79", zorder=2)
        circles.scatter(np.full((~has).sum(), column), rows[~has], s=60, facecolor="white", edgecolor="#b0b0b0")
    circles.set_xticks(range(len(modalities)), modalities, rotation=45, ha="left", rotation_mode="anchor")
    circles.xaxis.tick_top()
    circles.tick_params(length=0)
    circles.set_yticks([])
    circles.set_xlim(-0.6, len(modalities) - 0.4)
    circles.set_ylim(len(shown) - 0.4, -0.6)
    drawn = bars.barh(rows, shown["cases"], color="#1f4e79", height=0.65)
    bars.bar_label(drawn, [f"{c} ({p:g} %)" for c, p in zip(shown["cases"], shown["percent"])], padding=3, fontsize=9)
    bars.set_xlim(0, 1.3 * shown["cases"].max())
    bars.set_xlabel("training cases")
    bars.xaxis.get_major_locator().set_params(integer=True)
    for axes in (circles, bars):
        for side in ("top", "right", "left") + (("bottom",) if axes is circles else ()):
            axes.spines[side].set_visible(False)
    bars.tick_params(axis="y", length=0)
    if len(table) > len(shown):
        bars.set_title(f"the {len(shown)} most frequent of {len(table)} subsets", fontsize=9)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150)


def write_subset_report(available: dict[str, Present], modalities: list[str], folder: str | Path) -> str:
    """Writes subsets.csv, subsets.md and subsets.png into `folder`. Returns the table as text, to be printed."""
    table = count_subsets(available, modalities)
    text = markdown_table(table, modalities, available)
    write_text(Path(folder) / "subsets.csv", table.to_csv(index=False))
    write_text(Path(folder) / "subsets.md", text + "\n")
    draw_subsets(table, modalities, Path(folder) / "subsets.png")
    return text
