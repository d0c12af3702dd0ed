"""Means that the page shows and how many cases they are of, computed in one place so that no two parts of it disagree."""
from __future__ import annotations

import numpy as np
import pandas as pd

from nnmiss.evaluation.conventions import scale_of
from nnmiss.evaluation.results import row_counts, row_means
from nnmiss.evaluation.tables import nan_mean, ordered_regions
from nnmiss.report.sources import Source

MEAN = "mean of regions"  # no name of a region


def subset_means(source: Source, metric: str) -> pd.DataFrame:
    """(subsets, regions) means over cases in the unit shown, regions in the order of tables; NaN where undefined."""
    regions = list(ordered_regions(source.regions))
    return row_means(source.results, metric).reindex(index=source.subsets, columns=regions) * scale_of(metric)


def subset_counts(source: Source, metric: str) -> pd.DataFrame:
    """(subsets, regions) numbers of cases that `subset_means` are of, only regions that have any value."""
    counts = row_counts(source.results, metric).reindex(index=source.subsets, columns=list(ordered_regions(source.regions)))
    return counts.fillna(0).astype(int).loc[:, lambda frame: frame.any()]


def mean_of_regions(means: pd.DataFrame, source: Source) -> pd.Series:
    """A mean over the counted regions for each subset."""
    counted = [region for region in means.columns if region in source.counted]
    return pd.Series(nan_mean(means[counted].to_numpy(float).T), means.index)


def averages(means: pd.DataFrame, source: Source) -> dict[str, float]:
    """Region -> mean over subsets, and MEAN: the mean of those of the counted regions.

    Where a (subset, region) is undefined this is not the mean of `mean_of_regions`; the page shows this one everywhere.
    """
    of = dict(zip(means.columns, nan_mean(means.to_numpy(float)).tolist()))
    return of | {MEAN: float(nan_mean(np.array([[of[r]] for r in of if r in source.counted] or [[np.nan]]))[0])}
