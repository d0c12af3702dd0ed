"""Evaluates cases, one job each, in this process or in a pool of spawned ones."""
from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from nnmiss.errors import NnmissError
from nnmiss.evaluation.calibration import calibrate, expected_calibration_error
from nnmiss.evaluation.conventions import Conventions
from nnmiss.evaluation.label_maps import check_same_geometry, read_label_map, regions_of
from nnmiss.evaluation.predictions import Prediction
from nnmiss.evaluation.scoring import Reference
from nnmiss.evaluation.suppression import names_needed
from nnmiss.interrupts import interrupts_ignored


@dataclass(frozen=True)
class Job:
    """One case: its ground truth and all its predictions, so that the former is prepared once."""

    case: str
    gt: Path
    predictions: tuple[Prediction, ...]


@dataclass
class CaseResult:
    """What came of a job."""

    case: str
    rows: list[tuple[str, str, str, str, float]] = field(default_factory=list)
    """(case, subset, region, metric, value)."""
    one_empty: list[tuple[str, str, str]] = field(default_factory=list)
    """(case, subset, region) that is empty in exactly one of ground truth and prediction."""
    calibration: list[tuple[str, str, np.ndarray]] = field(default_factory=list)
    """(subset, region, `calibration.bin_sums`) of the predictions that have probabilities."""
    apart: list[float] = field(default_factory=list)
    """Of each of these predictions: which part of its foreground its probabilities do not have."""
    errors: list[str] = field(default_factory=list)


def evaluate_case(job: Job, dataset_json: dict, conventions: Conventions) -> CaseResult:
    """Scores every prediction of a case. Files that cannot be used become errors that name case and file."""
    result = CaseResult(job.case)
    try:
        gt = read_label_map(job.gt, dataset_json)
        regions = regions_of(dataset_json)
        reference = Reference(gt.labels, gt.spacing_mm, regions, conventions,
                              names_needed(dataset_json, regions, conventions))
    except NnmissError as error:
        result.errors.append(f"case {job.case}, ground truth {job.gt}: {error}")
        return result
    for prediction in job.predictions:
        try:
            pred = read_label_map(prediction.path, dataset_json)
            check_same_geometry(gt, pred)
            scores, one_empty = reference.score(pred.labels)
        except NnmissError as error:
            result.errors.append(f"case {job.case}, subset {prediction.subset}, {prediction.path}: {error}")
            continue
        result.rows += [(job.case, prediction.subset, region, metric, value)
                        for region, metrics in scores.items() for metric, value in metrics.items()]
        result.one_empty += [(job.case, prediction.subset, region) for region in one_empty]
        if prediction.probabilities.is_file():
            _add_calibration(result, prediction, pred.labels, reference, dataset_json)
    return result


def _add_calibration(result: CaseResult, prediction: Prediction, labels: np.ndarray, reference: Reference,
                     dataset_json: dict) -> None:
    """The other metrics of a prediction stand, even where its probabilities cannot be used."""
    try:
        sums, apart = calibrate(prediction, labels, reference, dataset_json)
    except NnmissError as error:
        result.errors.append(f"case {result.case}, subset {prediction.subset}, {prediction.probabilities}: {error}")
        return
    result.rows += [(result.case, prediction.subset, region, "ece", expected_calibration_error(of_region))
                    for region, of_region in sums.items()]
    result.calibration += [(prediction.subset, region, of_region) for region, of_region in sums.items()]
    result.apart.append(apart)


def evaluate_cases(jobs: list[Job], dataset_json: dict, conventions: Conventions,
                   num_processes: int = 1) -> Iterator[CaseResult]:
    """Yields the result of each job as it is done. Raises NnmissError when a worker is killed (memory)."""
    work = partial(evaluate_case, dataset_json=dataset_json, conventions=conventions)
    if num_processes <= 1 or len(jobs) <= 1:
        yield from map(work, jobs)
        return
    pool = ProcessPoolExecutor(min(num_processes, len(jobs)), mp_context=get_context("spawn"))
    try:
        with interrupts_ignored():  # workers start here and keep ignoring it
            futures = [pool.submit(work, job) for job in jobs]
        for future in as_completed(futures):
            yield future.result()
    except BrokenProcessPool:
        raise NnmissError("a worker process of the evaluation was killed, most often for want of memory: run again "
                          "with fewer processes (-np)") from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
