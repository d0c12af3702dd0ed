"""Preprocesses the training cases of a data set: whole cases only, bad ones named, good ones finished."""
from __future__ import annotations

import os
import shutil
from pathlib import Path

from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnmiss.atomic_files import read_json, replacing
from nnmiss.availability import Present, modality_names, read_availability
from nnmiss.errors import NnmissError, nearest_names
from nnmiss.folder_lock import only_one
from nnmiss.preprocessing.availability_table import read_table, why_outdated, write_availability
from nnmiss.preprocessing.case_pool import run_on_cases
from nnmiss.preprocessing.dataset_folders import find_dataset_name, load_dataset_json, require_folder
from nnmiss.preprocessing.finished_cases import MADE_OF, keep_finished, made_of
from nnmiss.preprocessing.plan_checks import check_plans
from nnmiss.preprocessing.preprocessor import PARTIAL, MissingModalityPreprocessor
from nnmiss.preprocessing.raw_dataset import RawCase, list_training_cases
from nnmiss.preprocessing.stock_reuse import find_stock_arrays, link_stock_arrays

CASCADE = ("the cascade {name} is not supported: its second stage needs segmentations of the first as an extra "
           "input. Use 3d_fullres or 3d_lowres")


def choose_configurations(plans: dict, asked: list[str] | None, default: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """The configurations to preprocess, and the default ones that the plan lacks.

    Raises NnmissError for an asked one that the plan lacks or that is a cascade's second stage.
    """
    known = plans["configurations"]
    for name in asked or []:
        if name not in known:
            raise NnmissError(f"{plans['plans_name']} of {plans['dataset_name']} has no configuration {name!r}. "
                              + nearest_names(name, list(known)))
        if "previous_stage" in known[name]:
            raise NnmissError(CASCADE.format(name=name))
    if asked:
        return list(asked), []
    return [c for c in default if c in known], [c for c in default if c not in known]


def preprocess_configuration(dataset_name_or_id: int | str, configuration_name: str, plans_identifier: str,
                             num_processes: int, preprocessor: MissingModalityPreprocessor | None = None,
                             anew: bool = False) -> dict[str, str]:
    """Preprocesses one configuration of a planned data set; what does not belong there any more is removed first.

    Cases that are whole and made of the same files and plan are kept, unless all are wanted `anew`. Stock arrays that would
    come out the same are hard-linked. availability.json is brought up to date.

    Returns:
        Bad case -> why it failed. The other cases are done.

    Raises:
        NnmissError: no such data set, plan or configuration; a killed worker; another process preprocesses the data set.
    """
    name = find_dataset_name(dataset_name_or_id)
    with only_one(require_folder("nnUNet_preprocessed") / name, f"plans or preprocesses {name}"):
        return _preprocess(name, configuration_name, plans_identifier, num_processes,
                           preprocessor or MissingModalityPreprocessor(), anew)


def _preprocess(name: str, configuration_name: str, plans_identifier: str, num_processes: int,
                preprocessor: MissingModalityPreprocessor, anew: bool) -> dict[str, str]:
    raw, folder = require_folder("nnUNet_raw") / name, require_folder("nnUNet_preprocessed") / name
    plans = read_json(folder / f"{plans_identifier}.json", "plan (nnmiss_plan_and_preprocess makes it)")
    check_plans(plans, str(folder / f"{plans_identifier}.json"))
    choose_configurations(plans, [configuration_name], ())
    plans_manager = PlansManager(plans)
    configuration = plans_manager.get_configuration(configuration_name)
    dataset_json = load_dataset_json(raw)
    cases = list_training_cases(raw, dataset_json)
    blank_is_missing = bool(configuration.configuration.get("nnmiss", {}).get("blank_is_missing", False))
    output = folder / configuration.data_identifier
    available = _known_availability(folder, dataset_json, cases, blank_is_missing)
    made = {case.name: made_of(case, plans, configuration.configuration, dataset_json, blank_is_missing) for case in cases}
    shutil.rmtree(output / PARTIAL, ignore_errors=True)
    kept = keep_finished(output, {} if anew else made)
    output.mkdir(parents=True, exist_ok=True)
    if kept:
        print(f"{configuration_name}: kept {len(kept)} of {len(cases)} cases, which were preprocessed before from the same "
              "files and plan (--clean preprocesses them anew)")
    stock = None if kept else find_stock_arrays(folder, plans, configuration.configuration, cases, available,
                                                raw / "dataset.json")
    if stock is not None and stock != output:
        if link_stock_arrays(stock, output, cases, made):
            print(f"{configuration_name}: hard-linked {len(cases)} cases that nnU-Net preprocessed already, from {stock}")
            return {}
        keep_finished(output, {})
    common = (str(output), plans_manager, configuration, dataset_json, blank_is_missing, bool(available))
    arguments = {case.name: (case, *common, {MADE_OF: made[case.name]}) for case in cases if case.name not in kept}
    try:
        results = run_on_cases(preprocessor.save_raw_case, arguments, num_processes,
                               f"Preprocessing {configuration_name}", preprocessor.show_progress_bar,
                               preprocessor.verbose)
    finally:
        shutil.rmtree(output / PARTIAL, ignore_errors=True)
    _update_availability(folder, modality_names(dataset_json), {**kept, **results.done}, blank_is_missing)
    return results.errors


def _known_availability(folder: Path, dataset_json: dict, cases: list[RawCase],
                        blank_is_missing: bool) -> dict[str, Present]:
    """availability.json where it still describes `cases`; empty when the fingerprint is older than the raw files."""
    if why_outdated(folder, modality_names(dataset_json), cases, blank_is_missing) is not None:
        return {}
    return read_availability(folder, modality_names(dataset_json))


def _update_availability(folder: Path, modalities: list[str], done: dict[str, tuple[Present, list[str]]],
                         blank_is_missing: bool) -> None:
    """Puts what preprocessing found into availability.json; rows of other cases stay where the modalities agree."""
    content = read_table(folder)
    if content is None or content["modalities"] != modalities or content["blank_is_missing"] != blank_is_missing:
        content = {"cases": {}, "blank": {}}
    rows = {**content["cases"], **{case: available for case, (available, _) in done.items()}}
    blank = {**content["blank"], **{case: names for case, (_, names) in done.items()}}
    write_availability(folder, modalities, rows, blank, blank_is_missing)


def copy_labels(cases: list[RawCase], target: Path, file_ending: str) -> None:
    """Copies label files to gt_segmentations, where newer, so that validation works without the raw data.

    nnU-Net does the same with distutils, which Python 3.12 no longer has.
    """
    target.mkdir(parents=True, exist_ok=True)
    for case in cases:
        if case.label is None:
            continue
        copy = target / f"{case.name}{file_ending}"
        if copy.is_file() and copy.stat().st_mtime >= os.stat(case.label).st_mtime:
            continue
        with replacing(copy, file_ending) as temporary:
            shutil.copy2(case.label, temporary)
