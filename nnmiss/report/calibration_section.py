"""Reliability of the probabilities: calibration.csv of an evaluation as a figure."""
from __future__ import annotations

import numpy as np
import pandas as pd

from nnmiss.availability import all_subsets, parse_subset, subset_name
from nnmiss.errors import NnmissError
from nnmiss.evaluation import figures
from nnmiss.evaluation.calibration import COLUMNS
from nnmiss.report.drawing import figure_html
from nnmiss.report.html_text import Section, paragraph
from nnmiss.report.sources import Source


def calibration_section(sources: list[Source]) -> Section:
    """A figure for each method that has a calibration.csv; a sentence where none has or one is damaged."""
    parts, lacking, missing = [], [], []
    for i, source in enumerate(sources):
        if not (source.folder / "calibration.csv").is_file():
            lacking.append(source.name)
            continue
        try:
            pooled = read_calibration(source)
        except NnmissError as error:
            missing.append(str(error))
            continue
        parts.append(figure_html(
            figures.reliability(pooled, source.modalities, source.name), f"reliability{i}",
            f"Accuracy against confidence of {source.name}, a panel per region, a line per number of modalities.",
            "On the dotted line the network is as often right as it says; below it is too sure of itself. Voxels of all "
            "cases pooled."))
    if lacking:
        missing.append(f"No calibration of {', '.join(lacking)}, as no probabilities were saved: predict with "
                       "--save_probabilities and evaluate again.")
    body = "".join(parts) + "".join(paragraph(text, "note") for text in missing)
    return Section("calibration", "Calibration", body, tuple(missing))


def read_calibration(source: Source) -> dict[tuple[str, str], np.ndarray]:
    """(subset, region) -> (3, bins) voxels, sum of confidences, number of correct ones; NnmissError when damaged."""
    path = source.folder / "calibration.csv"
    known = {subset_name(s, source.modalities) for s in all_subsets(len(source.modalities))}
    try:
        frame = pd.read_csv(path, keep_default_na=False, na_values={c: [""] for c in COLUMNS[3:]},
                            dtype={"subset": str, "region": str})
        sums = pd.DataFrame({"n": frame["n"], "confidence": frame["n"] * frame["mean_confidence"].fillna(0),
                             "correct": frame["n"] * frame["accuracy"].fillna(0)}).astype(float)
        names = {s: subset_name(parse_subset(s, source.modalities), source.modalities) for s in frame["subset"].unique()}
        pooled = {(names[subset], region): sums.loc[rows.sort_values("bin").index].to_numpy().T
                  for (subset, region), rows in frame.groupby(["subset", "region"], sort=False)}
    except (OSError, ValueError, KeyError, TypeError, NnmissError) as error:
        raise NnmissError(f"{path} cannot be read ({error}): evaluate {source.name} again.") from None
    if not pooled or not {subset for subset, _ in pooled} <= known:
        raise NnmissError(f"{path} has no rows: evaluate {source.name} again.")
    return pooled
