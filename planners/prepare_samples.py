"""From a raw classification data set to a plan and samples that training can load: check, read, plan, split, store."""
from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from nnmiss.atomic_files import remove_leftovers, replacing, writable_folder, write_json
from nnmiss.availability import Present
from nnmiss.classification.cache import write_raw_samples
from nnmiss.classification.description import CONFIGURATION, Description, read_description
from nnmiss.classification.integrity import check_dataset, raise_problems
from nnmiss.classification.manifest import SPLITS, Problem
from nnmiss.classification.raw_samples import RawSamples, find_misfits, read_raw_samples
from nnmiss.classification.splits import Fold, install_folds, make_folds, read_folds
from nnmiss.errors import NnmissError
from nnmiss.folder_lock import only_one
from nnmiss.planners.classification import PLANS_NAME, plan_classification, plan_text, sample_shapes
from nnmiss.preprocessing.availability_table import write_availability
from nnmiss.preprocessing.subset_report import write_subset_report


@dataclass(frozen=True)
class SampleOptions:
    """What nnmiss_plan_and_preprocess can be told of a classification data set."""

    verify: bool = False  # stop at samples that cannot be read, instead of leaving them out
    preprocess: bool = True  # store the samples
    splits: str | None = None  # a json file, or NAME of splits/NAME.json
    num_threads: int = 4
    show_progress_bar: bool = True


@dataclass(frozen=True)
class PreparedSamples:
    """What was made. `errors` maps samples that were left out to the reason."""

    dataset_name: str
    folder: Path
    plan: dict
    plan_text: str  # the plan for people
    stored: bool
    errors: dict[str, str]


def prepare_samples(raw_folder: Path, preprocessed_folder: Path, options: SampleOptions | None = None) -> PreparedSamples:
    """Plans one classification data set, and stores its samples below `preprocessed_folder`.

    Raises:
        NnmissError: everything that is wrong with dataset.json, manifest.csv or the files, all cells named, before
            anything is written. Samples that cannot be read (unless `verify`) are in the result's `errors`, while the
            others are done.
    """
    options = options or SampleOptions()
    name = raw_folder.name
    description = read_description(raw_folder)
    print(f"\n{name}: {description.task}, {len(description.classes)} "
          f"{'labels' if description.task == 'multilabel' else 'classes'}, modalities {', '.join(description.modalities)}")
    for note in check_dataset(raw_folder, description):
        print(f"note: {note}")
    raw, errors = _read(raw_folder, description, options)
    folds = make_folds(raw) if options.splits is None else read_folds(options.splits, raw_folder, raw, errors)
    shapes = sample_shapes(raw)
    plan = {**plan_classification(raw, description), "dataset_name": name}
    folder = writable_folder(preprocessed_folder)
    with only_one(folder, f"plans or preprocesses {name}"):
        remove_leftovers(folder, nobody_writes=True)
        remove_leftovers(folder / CONFIGURATION, nobody_writes=True)
        print(f"\nWhich modalities the samples have (saved as {folder / 'subsets.csv'}, .md and .png):\n\n"
              + _write_availability(raw, folder) + "\n")
        print(f"Splits: {install_folds(folds, folder)}; {_fold_text(folds, raw)}")
        if options.preprocess:
            write_raw_samples(raw, folder / CONFIGURATION)
        with replacing(folder / "dataset.json") as temporary:
            shutil.copyfile(raw_folder / "dataset.json", temporary)
        write_json(folder / f"{PLANS_NAME}.json", plan)
    return PreparedSamples(name, folder, plan, plan_text(plan, shapes), options.preprocess, errors)


def _read(folder: Path, description: Description, options: SampleOptions) -> tuple[RawSamples, dict[str, str]]:
    """(samples that can be used, reasons of the others). With `verify`, raises for the others instead."""
    raw, errors = read_raw_samples(folder, description, num_threads=options.num_threads,
                                   show_progress=options.show_progress_bar)
    misfits = find_misfits(raw)
    errors |= misfits
    if options.verify:
        raise_problems([Problem(sample, reason) for sample, reason in errors.items()], folder.name)
        print("Integrity: every file was read, no problem found")
    if len(misfits) == len(raw):
        raise_problems([Problem(sample, reason) for sample, reason in errors.items()], folder.name)
    raw = raw.without(misfits)
    if not raw.labelled.any():
        raise NnmissError(f"{folder.name}: none of the {len(raw)} samples that can be read has a label")
    return raw, errors


def _write_availability(raw: RawSamples, folder: Path) -> str:
    """Writes availability.json and the report of subsets. Returns the report's table."""
    available: dict[str, Present] = {name: tuple(row) for name, row in zip(raw.ids, raw.available.tolist())}
    write_availability(folder, raw.modalities, available, {}, blank_is_missing=False)
    return write_subset_report(available, raw.modalities, folder)


def _fold_text(folds: list[Fold], raw: RawSamples) -> str:
    sizes = "/".join(str(len(folds[0].get(side, []))) for side in SPLITS)
    subjects = f"; the samples are of {len(set(raw.groups))} subjects" if raw.groups != raw.ids else ""
    return f"fold 0 has {sizes} samples for training/validation/test{subjects}"
