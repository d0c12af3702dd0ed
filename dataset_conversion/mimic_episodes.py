"""One csv of a stay: hours after admission to the unit, and what was measured then of the 17 variables."""
from __future__ import annotations

import csv
import io

import numpy as np

from nnmiss.dataset_conversion.mimic_definitions import TIME_COLUMN, variables


def episode_csv(events: np.ndarray) -> str:
    """The csv of one stay's events.

    Args:
        events: dtype `mimic_events.EVENT`, sorted by hours, variable and value. Where a variable stands twice at one time,
            the larger value counts, of answers the one later in the alphabet, as in the public benchmark.

    Returns:
        a row per time with an event, columns Hours and the variables in the benchmark's order, empty where unmeasured.
    """
    hours, row = np.unique(events["hours"], return_inverse=True)
    cells = [[f"{hour:.6f}".rstrip("0").rstrip("."), *[""] * len(variables())] for hour in hours]
    answers = [variable.sorted_values for variable in variables()]
    for r, variable, value in zip(row, events["variable"], events["value"]):
        cells[r][1 + variable] = answers[variable][int(value)] if answers[variable] else f"{value:.6g}"
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([[TIME_COLUMN, *(v.name for v in variables())], *cells])
    return text.getvalue()
