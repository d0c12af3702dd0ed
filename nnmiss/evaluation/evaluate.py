"""Evaluates a folder of predictions: results.csv, summary.json, table.md, table.tex, figures and calibration."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from nnmiss.atomic_files import read_json, writable_folder
from nnmiss.availability import modality_names
from nnmiss.errors import NnmissError
from nnmiss.evaluation import markup
from nnmiss.evaluation.calibration import pool
from nnmiss.evaluation.cases import CaseResult, Job, evaluate_cases
from nnmiss.evaluation.conventions import METRICS, Conventions
from nnmiss.evaluation.label_maps import regions_of
from nnmiss.evaluation.predictions import Found, case_files, find_predictions, subset_order
from nnmiss.evaluation.publish import publish
from nnmiss.evaluation.results import COLUMNS, check_comparable, read_method
from nnmiss.evaluation.same_dataset import check_same_dataset
from nnmiss.evaluation.suppression import evaluated_regions, names_needed, suppression_of
from nnmiss.evaluation.tables import build_table


def evaluate_folder(gt_folder: str | Path, pred_folder: str | Path, dataset_json: dict | str | Path,
                    output_folder: str | Path, conventions: Conventions | None = None, num_processes: int = 1,
                    compare: Sequence[str | Path] = (), name: str | None = None,
                    include_average: bool = False) -> pd.DataFrame:
    """Evaluates predictions against ground truth and writes results, summary, tables and figures.

    Args:
        gt_folder: CASE + file ending.
        pred_folder: flat (CASE.nii.gz, and CASE.json with "modalities_used") or one folder per subset.
        dataset_json: content or path of dataset.json: channel_names, labels, file_ending.
        output_folder: made if absent; older results in it are replaced.
        conventions: definitions and rules; default `Conventions()`.
        num_processes: cases evaluated at once, in spawned processes (a script needs `if __name__ == "__main__"`).
        compare: results of other methods on the same cases, PATH or NAME=PATH, see `results.read_method`.
        name: this method's name in the tables; default the prediction folder's name.
        include_average: count the average row as a sample of the t-test, as MetaKD's Table 1 did.

    Returns:
        long results with columns case, subset, region, metric, value. `attrs["errors"]` lists what failed (every other
        case is in the results), `attrs["notes"]` what is worth knowing, `attrs["table"]` the Dice table as text,
        `attrs["comparison"]` the tests against other methods (`comparison.compare_methods`).

    Raises:
        NnmissError: nothing could be evaluated, or an argument that makes no sense.
    """
    conventions = conventions or Conventions()
    dataset_json = _checked_dataset_json(dataset_json)
    modalities, regions = modality_names(dataset_json), regions_of(dataset_json)
    names = names_needed(dataset_json, regions, conventions)
    regions = evaluated_regions(regions, suppression_of(regions, conventions, names))
    others = [read_method(specification, modalities) for specification in compare]
    name = name or Path(pred_folder).resolve().name
    found = find_predictions(pred_folder, modalities, dataset_json["file_ending"])
    has_probabilities = any(prediction.probabilities.is_file() for prediction in found.predictions)
    notes = check_comparable(name, list(regions.members), conventions, others, has_probabilities)
    notes += check_same_dataset(pred_folder, dataset_json)
    output_folder = writable_folder(output_folder)
    jobs = _jobs(Path(gt_folder), found, dataset_json["file_ending"])
    outcomes = list(tqdm(evaluate_cases(jobs, dataset_json, conventions, num_processes), total=len(jobs),
                         desc="evaluating", unit="case"))
    errors = found.errors + [error for outcome in sorted(outcomes, key=lambda o: o.case) for error in outcome.errors]
    if not any(outcome.rows for outcome in outcomes):
        raise NnmissError(f"no prediction in {pred_folder} could be evaluated:\n  " + "\n  ".join(errors[:10]))
    results = _as_table(outcomes, modalities, list(regions.members))
    one_empty = [triple for outcome in outcomes for triple in outcome.one_empty]
    notes += found.notes + _incomplete_subsets(results) + _penalised(results, one_empty, conventions)
    notes += _about_probabilities(results, outcomes)
    by_case = sorted(outcomes, key=lambda o: o.case)  # sums of floats depend on the order
    pooled = pool([part for outcome in by_case for part in outcome.calibration], subset_order(modalities),
                  list(regions.members))
    sources = {"gt": str(Path(gt_folder).absolute()), "pred": str(Path(pred_folder).absolute())}
    summary = publish(output_folder, results, one_empty, name, modalities, regions, conventions, others, include_average,
                      notes, errors, sources, pooled)
    own = build_table({name: results}, modalities, list(regions.members), "dice", conventions)
    results.attrs.update(errors=errors, notes=summary["notes"], table=markup.to_text(own),
                         comparison=summary.get("comparison", []))
    return results


def _checked_dataset_json(dataset_json: dict | str | Path) -> dict:
    content = dataset_json if isinstance(dataset_json, dict) else read_json(dataset_json, "dataset.json")
    if not isinstance(content, dict) or not isinstance(content.get("file_ending"), str):
        raise NnmissError('dataset.json needs "file_ending", as ".nii.gz", to find the segmentations')
    return content


def _jobs(gt_folder: Path, found: Found, file_ending: str) -> list[Job]:
    """Pairs ground truths with predictions. Predictions without ground truth are errors, the reverse is a note."""
    if not gt_folder.is_dir():
        raise NnmissError(f"ground truth folder {gt_folder} does not exist: give the folder of segmentations as -gt")
    truths = case_files(gt_folder, file_ending)
    cases: dict[str, list] = {}
    for prediction in found.predictions:
        cases.setdefault(prediction.case, []).append(prediction)
    jobs = []
    for case, predictions in sorted(cases.items()):
        if case in truths:
            jobs.append(Job(case, truths[case], tuple(predictions)))
        else:
            found.errors.append(f"case {case}: no ground truth {gt_folder / (case + file_ending)} for "
                                f"{predictions[0].path}")
    without = sorted(set(truths) - set(cases))
    if without:
        found.notes.append(f"{len(without)} of {len(truths)} ground truth cases have no prediction at all: "
                           f"{', '.join(without[:5])}{' ...' if len(without) > 5 else ''}")
    return jobs


def _as_table(outcomes: list[CaseResult], modalities: list[str], regions: list[str]) -> pd.DataFrame:
    """Rows by case, then subset, region and metric in the order of the tables, whatever the order of finishing."""
    results = pd.DataFrame([row for outcome in outcomes for row in outcome.rows], columns=COLUMNS)
    place = {"subset": subset_order(modalities), "region": regions, "metric": list(METRICS)}

    def key(column: pd.Series) -> pd.Series:
        known = place.get(column.name)
        return column.map({v: i for i, v in enumerate(known)}) if known else column

    return results.sort_values(COLUMNS[:-1], key=key, ignore_index=True)


def _incomplete_subsets(results: pd.DataFrame) -> list[str]:
    counts, total = results.groupby("subset", sort=False)["case"].nunique(), results["case"].nunique()
    short = [f"{subset} {n}" for subset, n in counts.items() if n < total]
    return [f"{total} cases, but fewer in these subsets (n in the tables): {', '.join(short)}"] if short else []


def _penalised(results: pd.DataFrame, one_empty: list, conventions: Conventions) -> list[str]:
    if not one_empty or conventions.empty != "brats" or conventions.hd95 == "none":
        return []
    total = int((results["metric"] == "hd95").sum())
    return [f"{len(one_empty)} of {total} HD95 values are the image diagonal, as exactly one of truth and prediction "
            "is empty there; such values dominate a mean: summary.json has the medians and counts"]


def _about_probabilities(results: pd.DataFrame, outcomes: list[CaseResult]) -> list[str]:
    """How many predictions have an ECE, if not all or none, and how many do not agree with their probabilities."""
    counts = [len(part[["case", "subset"]].drop_duplicates()) for part in (results[results["metric"] == "ece"], results)]
    notes = [f"ECE of {counts[0]} of {counts[1]} predictions: the others have no probabilities (CASE.npz)"]
    notes = notes if 0 < counts[0] < counts[1] else []
    apart = [part for outcome in outcomes for part in outcome.apart if part]
    if apart:
        differ = "1 prediction differs from its" if len(apart) == 1 else f"{len(apart)} predictions differ from their"
        notes.append(f"{differ} own probabilities, in up to {100 * max(apart):.2g} % of the foreground: "
                     "processed later, or CASE.npz is of an earlier run; ECE is of CASE.npz")
    return notes
