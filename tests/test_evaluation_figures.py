"""Figures with many regions, methods and modalities: nothing lies on anything else, and every axis says what it shows."""
from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from nnmiss.availability import all_subsets, subset_name
from nnmiss.evaluation import figures
from nnmiss.evaluation.tables import ordered_regions
from nnmiss.trainers import progress

MODALITIES = ["flair", "t1", "t1ce", "t2", "adc", "swi_mag", "perfusion", "pet"]
REGIONS = ["whole_tumor", "tumor_core", "enhancing_tumor", "resection_cavity", "snfh", "netc"]


def results(modalities: list[str], regions: list[str], cases: int = 3, seed: int = 0) -> pd.DataFrame:
    names = [subset_name(s, modalities) for s in all_subsets(len(modalities))]
    index = pd.MultiIndex.from_product([[f"case{i}" for i in range(cases)], names, regions, ["dice"]],
                                       names=["case", "subset", "region", "metric"])
    return pd.DataFrame({"value": np.random.default_rng(seed).uniform(size=len(index))}, index=index).reset_index()


def boxes(figure, artists) -> list:
    """Where artists lie in the drawn figure, in pixels."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return [artist.get_window_extent(canvas.get_renderer()) for artist in artists]


def inside(figure, box) -> bool:
    return box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.width and box.y1 <= figure.bbox.height


@pytest.mark.parametrize("m, regions", [(2, 1), (4, 3), (8, 6)])
def test_reliability_has_its_legends_beside_the_lines(m, regions):
    modalities, pooled = MODALITIES[:m], {}
    for subset in all_subsets(m):
        for region in REGIONS[:regions]:
            confidence, n = np.linspace(0.51, 0.99, 15), np.arange(1.0, 16)
            pooled[subset_name(subset, modalities), region] = np.stack([n, n * confidence, 0.3 * n])  # low lines
    figure = figures.reliability(pooled, modalities, "metakd")
    panels = [panel for panel in figure.axes if panel.get_visible()]
    assert len(panels) == regions
    legends = boxes(figure, [panel.get_legend() for panel in panels])
    areas = boxes(figure, [panel.patch for panel in panels])
    labels = boxes(figure, [figure._supxlabel, figure._supylabel])
    for i, legend in enumerate(legends):
        assert inside(figure, legend) and not any(legend.overlaps(box) for box in (*areas, *labels, *legends[:i]))


@pytest.mark.parametrize("methods, regions", [(1, 1), (3, 3), (12, 6)])
def test_dice_by_count_names_every_method_beside_the_panels(methods, regions):
    frames = {f"modality_dropout_seed{i}": results(MODALITIES[:4], REGIONS[:regions], seed=i) for i in range(methods)}
    figure = figures.dice_by_count(frames, MODALITIES[:4], ordered_regions(REGIONS[:regions]))
    legend, = boxes(figure, figure.legends)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(frames) and inside(figure, legend)
    others = [panel.patch for panel in figure.axes] + [panel.title for panel in figure.axes if panel.get_visible()]
    assert not any(legend.overlaps(box) for box in boxes(figure, [*others, figure._supxlabel, figure._supylabel]))
    looks = {(line.get_color(), line.get_linestyle()) for line in figure.axes[0].lines if line.get_linestyle() != "None"}
    assert len(looks) == methods


@pytest.mark.parametrize("m, rows", [(2, 3), (4, 15), (5, 31), (8, 17)])
def test_heat_map_and_boxes_show_as_many_subsets_as_can_be_told_apart(m, rows):
    modalities, titles = MODALITIES[:m], ordered_regions(REGIONS)
    frame = results(modalities, REGIONS)
    figure = figures.heatmap(frame, modalities, titles, "metakd")
    _, panel, _ = figure.axes
    assert panel.images[0].get_array().shape == (rows, len(REGIONS))
    names = boxes(figure, panel.get_xticklabels())
    assert not any(a.overlaps(b) for a, b in pairwise(names)) and all(inside(figure, box) for box in names)
    assert figure.get_size_inches().max() < 15
    figure = figures.boxplots(frame, modalities, titles, "metakd")
    assert len(figure.axes) == len(REGIONS) + 1 and len(figure.axes[0].patches) == rows


def test_boxes_say_how_many_cases_they_hold_at_most():
    frame, titles = results(MODALITIES[:2], REGIONS[:1], cases=5), ordered_regions(REGIONS[:1])
    assert figures.boxplots(frame, MODALITIES[:2], titles, "metakd").get_suptitle().endswith("per case, n = 5")
    fewer = frame[(frame["subset"] != "t1") | (frame["case"] == "case0")]
    assert figures.boxplots(fewer, MODALITIES[:2], titles, "metakd").get_suptitle().endswith("per case, up to n = 5")


@pytest.mark.parametrize("table, label", [("elections", "score of the modality alone"),
                                          ("gate_weights", "weight in the mixture"),
                                          ("importance_weights", "importance weight"), ("features", "value")])
def test_tables_of_a_training_say_what_is_drawn(table, label, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(progress, "Figure", lambda **options: drawn.append(figures.Figure(**options)) or drawn[-1])
    log = progress.Progress()
    columns = [f"{region}:{modality}" for region in REGIONS for modality in MODALITIES[:4]]
    for iteration in (0, 100):
        log.add_row(table, columns, iteration, [0.5] * len(columns))
    log.write_tables(tmp_path)
    axes = drawn[0].axes
    assert [axis.get_title() for axis in axes] == [region.replace("_", " ") for region in REGIONS]
    assert {(axis.get_xlabel(), axis.get_ylabel()) for axis in axes} == {("iteration", label)}
    assert (tmp_path / f"{table}.png").stat().st_size > 5000 and drawn[0].get_size_inches().max() <= 24
