"""Hard-links arrays that stock nnU-Net preprocessed already, where they are what ours would be."""
from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path

import blosc2

from nnmiss.atomic_files import read_json, replacing
from nnmiss.availability import Present
from nnmiss.errors import NnmissError
from nnmiss.preprocessing.finished_cases import CONFIGURATION_KEYS, MADE_OF, PLAN_KEYS
from nnmiss.preprocessing.plan_checks import check_plans
from nnmiss.preprocessing.preprocessor import PARTIAL, publish_case
from nnmiss.preprocessing.raw_dataset import RawCase


def find_stock_arrays(preprocessed_folder: Path, plans: dict, configuration: dict, cases: list[RawCase],
                      available: dict[str, Present], dataset_json_file: Path) -> Path | None:
    """The folder of stock arrays that equal what preprocessing would give, or None.

    Asks for: no holes; a stock plan (nnUNet*.json) whose configuration agrees in all that shapes the arrays; every
    case there, whole, and newer than its raw files, dataset.json and that plan.
    """
    if any(not all(available.get(case.name, (False,))) for case in cases):
        return None
    for plan_file in sorted(preprocessed_folder.glob("nnUNet*.json")):
        try:
            stock = check_plans(read_json(plan_file, "plan"), str(plan_file))
            if any(stock[key] != plans[key] for key in PLAN_KEYS):
                continue
            candidates = list(stock["configurations"].values())
        except (NnmissError, KeyError, TypeError, AttributeError):  # not a plan: nothing to reuse
            continue
        for candidate in candidates:
            if any(candidate.get(key) != configuration[key] for key in CONFIGURATION_KEYS):
                continue
            folder = preprocessed_folder / candidate.get("data_identifier", "")
            newest_rule = max(plan_file.stat().st_mtime, dataset_json_file.stat().st_mtime)
            if all(_is_whole_and_newer(folder, case, newest_rule, len(available[case.name])) for case in cases):
                return folder
    return None


def _is_whole_and_newer(folder: Path, case: RawCase, newest_rule: float, num_channels: int) -> bool:
    data, seg, properties = (folder / f"{case.name}{e}" for e in (".b2nd", "_seg.b2nd", ".pkl"))
    try:
        made = min(file.stat().st_mtime for file in (data, seg, properties))
        raw = max(os.stat(file).st_mtime for file in [*case.files.values(), case.label])
        if made < max(raw, newest_rule) or properties.stat().st_mtime < data.stat().st_mtime:
            return False  # nnU-Net writes the properties last
        shape, seg_shape = (blosc2.open(urlpath=str(file), mode="r").shape for file in (data, seg))
    except (OSError, RuntimeError, ValueError):
        return False
    return len(shape) == 4 and shape[0] == num_channels and seg_shape[1:] == shape[1:]


def link_stock_arrays(source: Path, target: Path, cases: list[RawCase], made: dict[str, str] | None = None) -> bool:
    """Links every case of `source` into the empty folder `target`; False where the file system has no hard links.

    The arrays are linked; the small properties file is written anew with the key "nnmiss_available" and what each case is
    `made` of (see nnmiss.preprocessing.finished_cases).
    """
    partial = target / PARTIAL
    partial.mkdir(parents=True, exist_ok=True)
    try:
        for case in cases:
            for ending in (".b2nd", "_seg.b2nd"):
                os.link(source / f"{case.name}{ending}", partial / f"{case.name}{ending}")
            with open(source / f"{case.name}.pkl", "rb") as file:
                properties = pickle.load(file)  # the user's own file, as nnU-Net's training reads it
            properties.update({"nnmiss_available": [True] * len(case.files), MADE_OF: (made or {}).get(case.name)})
            with replacing(partial / f"{case.name}.pkl") as temporary, open(temporary, "wb") as file:
                pickle.dump(properties, file)
            publish_case(partial, target, case.name)
    except OSError:
        return False
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return True
