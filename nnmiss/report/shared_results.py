"""What several methods share: those that can be compared with the first, on the cases and subsets all of them have."""
from __future__ import annotations

from dataclasses import replace

import pandas as pd

from nnmiss.errors import NnmissError
from nnmiss.evaluation.conventions import Conventions
from nnmiss.evaluation.results import check_comparable, common_results
from nnmiss.report.sources import Source


def shared_results(sources: list[Source]) -> tuple[list[Source], list[str]]:
    """The first source and those that can be compared with it, restricted to what they share, and notes on the others.

    A method that has nothing in common with those before it is left out rather than all of them.
    """
    comparable, notes = sources[:1], []
    for other in sources[1:]:
        try:
            about = _check(sources[0], other)
            common_results([s.method for s in (*comparable, other)])
        except NnmissError as error:
            notes.append(f"{other.name} is not compared: {error}")
        else:
            notes += about
            comparable.append(other)
    kept, more = common_results([s.method for s in comparable])
    return [replace(s, results=kept[s.name]) for s in comparable], [*notes, *more]


def restricted(sources: list[Source], results: dict[str, pd.DataFrame]) -> list[Source]:
    """The sources that have `results`, with these, as `results.results_with` returns them for a metric."""
    return [replace(s, results=results[s.name]) for s in sources if s.name in results]


def _check(ours: Source, other: Source) -> list[str]:
    if ours.modalities != other.modalities:
        raise NnmissError(f"its modalities are {', '.join(other.modalities)}, those of {ours.name} "
                          f"{', '.join(ours.modalities)}")
    assumed = [] if ours.conventions else [f"{ours.name}: no summary.json beside its results, its conventions are taken to "
                                           f"be those of {other.name}"]
    conventions = ours.conventions or other.conventions or Conventions()
    return assumed + check_comparable(ours.name, ours.regions, conventions, [other.method], "ece" in ours.metrics)
