"""The long table of all finished jobs of a classification's benchmark."""
from __future__ import annotations

import pandas as pd

from nnmiss.atomic_files import read_json
from nnmiss.benchmark.collect import apart, unfinished
from nnmiss.benchmark.jobs import Job
from nnmiss.errors import NnmissError
from nnmiss.evaluation.classification.measure import COLUMNS as RESULT_COLUMNS

COLUMNS = ["variant", "method", "missing", "fold", "seed", *RESULT_COLUMNS]
SAME = ("with_incomplete", "ece_bins")  # conventions that must be equal


def collect_results(jobs: list[Job]) -> tuple[pd.DataFrame, dict, list[str]]:
    """Reads results.csv of all finished jobs.

    Returns:
        long results with COLUMNS (fold as text), the conventions of their evaluation, and notes on what is missing or does
        not fit together.

    Raises:
        NnmissError: no job is finished, a result cannot be read, or they were evaluated differently.
    """
    finished = [job for job in jobs if job.is_finished()]
    if not finished:
        raise NnmissError("no job of this benchmark is finished: nothing to compare yet")
    parts, conventions = [], {}
    for job in finished:
        head = {"variant": job.variant.name, "method": job.variant.method, "missing": job.table, "fold": str(job.fold),
                "seed": job.seed}
        parts.append(_read(job).assign(**head)[COLUMNS])
        conventions[str(job)] = read_json(job.results.with_name("summary.json"), "summary", ("conventions",))["conventions"]
    different = {tuple(c.get(key) for key in SAME): f"{name}: {', '.join(f'{key} {c.get(key)}' for key in SAME)}"
                 for name, c in conventions.items()}
    if len(different) > 1:
        raise NnmissError(f"jobs were evaluated with different conventions, such as {' and '.join(different.values())}: "
                          "validate them alike (nnmiss_train --val)")
    parts_of = {job.results.parent.name for job in finished}
    notes = unfinished(jobs, finished) + apart(finished)
    if len(parts_of) > 1:
        notes.append("results of some jobs are those of test samples, of others those of validation samples: they are not "
                     "comparable")
    return pd.concat(parts, ignore_index=True), next(iter(conventions.values())), notes


def _read(job: Job) -> pd.DataFrame:
    try:
        table = pd.read_csv(job.results, dtype={"subset": str, "label": str, "metric": str}, keep_default_na=False,
                            na_values={name: [""] for name in ("value", "low", "high")})
    except (OSError, ValueError) as error:  # pandas' own errors are ValueErrors
        raise NnmissError(f"cannot read results {job.results} ({error}): evaluate that job again") from None
    if list(table.columns) != RESULT_COLUMNS:
        raise NnmissError(f"{job.results}: columns must be {','.join(RESULT_COLUMNS)}, got {','.join(table.columns)}")
    return table
