"""Writes a converter's source cases as an nnU-Net raw data set; cases may lack channel files."""
from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import closing
from functools import partial

from tqdm import tqdm

from nnmiss.atomic_files import write_json
from nnmiss.bounded_threads import in_threads
from nnmiss.dataset_conversion.case_files import CaseSettings, write_case
from nnmiss.dataset_conversion.raw_folder import new_dataset_folder
from nnmiss.dataset_conversion.raw_types import ConversionSummary, RawDataset, SourceCase
from nnmiss.errors import NnmissError, shortened

NUM_THREADS = 4  # at once; decompression, most of the work, runs outside Python's lock

MAX_REASONS = 10  # of cases that failed, printed when all did


def write_raw_dataset(dataset: RawDataset, cases: Iterable[SourceCase], output: str | os.PathLike, dataset_id: int, *,
                      copy: str = "copy", spacing_mm: tuple[float, float, float] | None = None,
                      leave_one_out: bool = False, overwrite: bool = False, blank_is_missing: bool = False,
                      num_threads: int = NUM_THREADS, notes: Sequence[str] = (),
                      disable_progress_bar: bool = False) -> ConversionSummary:
    """Writes `output`/DatasetXXX_Name from `cases`; a bad case is left out and named, the others are written.

    Memory holds one image per thread, however many cases there are.

    Args:
        copy: "copy" or "link" (hard links; a file is copied where the file system refuses one, which is noted). Files that
            are not gzip are compressed, header and voxels as they are. Labels are always written anew, as uint8.
        spacing_mm: resamples every case to this voxel size (`nnmiss.dataset_conversion.resample`).
        leave_one_out: writes splits_final.json, one fold per training case that validates on it alone.
        overwrite: replaces a data set of the same id and name.
        blank_is_missing: leaves out images that hold one value only; without it they are only noted.
        num_threads: cases read and written at once.
        notes: the converter's own, put before those that arise here.
        disable_progress_bar: prints none.

    Returns:
        the summary; `failed` is empty when everything was converted.

    Raises NnmissError when no training case could be converted though there are some, or no case at all, when
    `leave_one_out` has fewer than two of them, for a `num_threads` below 1, or for the output folder's reasons. Then
    nothing is written.
    """
    if num_threads < 1:
        raise NnmissError(f"-np takes a number of threads, 1 or more, got {num_threads}")
    cases = list(cases)
    blank: list[str] = []
    unlinked: Counter[str] = Counter()
    with new_dataset_folder(output, dataset_id, dataset.name, overwrite) as (temporary, final):
        summary = ConversionSummary(final, dataset.modalities, {}, {}, {}, notes=list(notes))
        write = partial(write_case, temporary, dataset, settings=CaseSettings(copy, spacing_mm, blank_is_missing))
        with closing(in_threads(write, cases, num_threads)) as done:  # on any error no thread goes on writing
            for case, future in tqdm(done, desc="converting", unit="case", total=len(cases),
                                     disable=disable_progress_bar):
                try:
                    result = future.result()
                except NnmissError as error:
                    summary.failed[case.name] = str(error)
                    continue
                (summary.test if case.test else summary.training)[case.name] = result.modalities
                blank += [f"{case.name} {modality}" for modality in result.blank]
                unlinked.update(result.unlinked)
        _refuse_empty(summary, cases)
        if leave_one_out:
            summary.splits = leave_one_out_splits(list(summary.training))
            write_json(temporary / "splits_final.json", summary.splits)
        write_json(temporary / "dataset.json", _dataset_json(dataset, len(summary.training)))
    summary.notes += _closing_notes(summary, blank, blank_is_missing, unlinked)
    return summary


def leave_one_out_splits(cases: list[str]) -> list[dict[str, list[str]]]:
    """One fold a case, in nnU-Net's form: validate on it, train on all others. Raises NnmissError for one case."""
    if len(cases) < 2:
        raise NnmissError(f"a leave-one-out split needs at least two training cases, got {cases}")
    return [{"train": [c for c in cases if c != held_out], "val": [held_out]} for held_out in cases]


def _refuse_empty(summary: ConversionSummary, cases: Sequence[SourceCase]) -> None:
    """Test cases alone are a data set to predict on; failed training cases without a good one are none."""
    if summary.training or (summary.test and all(case.test for case in cases)):
        return
    reasons = [f"\n  {case}: {message}" for case, message in summary.failed.items()]
    more = f"\n  and {len(reasons) - MAX_REASONS} more" if len(reasons) > MAX_REASONS else ""
    raise NnmissError(f"no training case could be converted, so nothing was written{''.join(reasons[:MAX_REASONS])}{more}")


def _closing_notes(summary: ConversionSummary, blank: list[str], blank_is_missing: bool,
                   unlinked: Counter[str]) -> list[str]:
    notes = [f"{count} image{'s were' if count > 1 else ' was'} copied, as hard links {reason}"
             for reason, count in unlinked.items()]
    if blank:
        what = "were left out" if blank_is_missing else "were kept; --blank_is_missing leaves them out"
        notes.append(f"images that hold one value only {what}: {shortened(blank)}")
    if not summary.training:
        notes.append("no training cases, only test cases: this data set can be predicted, not trained on")
    if len(summary.modalities) < 2:
        notes.append(f"the only modality is {summary.modalities[0]}: nnmiss needs two or more, train with nnU-Net itself")
    return notes


def _dataset_json(dataset: RawDataset, num_training: int) -> dict:
    return {
        "name": dataset.name,
        "description": dataset.description,
        "channel_names": {str(i): modality for i, modality in enumerate(dataset.modalities)},
        "labels": dataset.labels,
        "numTraining": num_training,
        "file_ending": ".nii.gz",
        **dataset.extra,
    }
