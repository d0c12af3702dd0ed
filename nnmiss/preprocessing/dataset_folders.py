"""Where a data set lies, and its dataset.json, checked."""
from __future__ import annotations

import json
import os
import re
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnmiss.atomic_files import read_json
from nnmiss.availability import is_classification, modality_names
from nnmiss.errors import NnmissError, nearest_names
from nnmiss.plain_names import require_ending, shown
from nnmiss.preprocessing.plan_checks import READERS

PURPOSES = {
    "nnUNet_raw": "the folder with the raw data sets, DatasetXXX_Name",
    "nnUNet_preprocessed": "a folder for preprocessed data, on a fast disk",
    "nnUNet_results": "a folder for trained models",
}
REQUIRED_KEYS = ("labels", "channel_names", "numTraining", "file_ending")
SEGMENTATION, CLASSIFICATION = "segmentation", "classification"


def require_folder(variable: str) -> Path:
    """The folder an environment variable of nnU-Net's names. Raises NnmissError when unset, or raw and not there."""
    value = os.environ.get(variable)
    if not value:
        raise NnmissError(f"environment variable {variable} is not set: export {variable}=... "
                          f"({PURPOSES.get(variable, 'a folder')})")
    if variable == "nnUNet_raw" and not Path(value).is_dir():
        raise NnmissError(f"nnUNet_raw points to {value}, which is not a folder: correct the environment variable")
    return Path(value)


def find_dataset_name(dataset: int | str) -> str:
    """The name 'DatasetXXX_Name' for an id (12, '12', '012') or for the name itself.

    Looks below nnUNet_raw, nnUNet_preprocessed and nnUNet_results, where they are set.

    Raises:
        NnmissError: no data set or several have that id, or the name is unknown.
    """
    roots = [Path(os.environ[v]) for v in PURPOSES if os.environ.get(v) and Path(os.environ[v]).is_dir()]
    names = sorted({f.name for r in roots for f in r.iterdir() if f.is_dir() and re.match(r"Dataset\d{3,}_.", f.name)})
    looked = "looked in " + (", ".join(map(str, roots)) or "no folder: nnUNet_raw is not set")
    if str(dataset) in names:
        return str(dataset)
    if not str(dataset).isdigit():
        raise NnmissError(f"data set {dataset!r} not found ({looked}). {nearest_names(str(dataset), names or ['none'])}")
    matching = [name for name in names if int(re.match(r"Dataset(\d+)_", name).group(1)) == int(dataset)]
    if not matching:
        raise NnmissError(f"no data set has id {int(dataset)} ({looked}). Data sets there: {', '.join(names) or 'none'}")
    if len(matching) > 1:
        raise NnmissError(f"several data sets have id {int(dataset)}: {', '.join(matching)} ({looked}): "
                          "rename or remove all but one, or give the full name")
    return matching[0]


def label_manager(dataset_json: dict) -> LabelManager:
    """nnU-Net's LabelManager for dataset.json. Raises NnmissError when the labels break nnU-Net's rules."""
    try:
        manager = LabelManager(dataset_json["labels"], dataset_json.get("regions_class_order"))
    except (AssertionError, RuntimeError, TypeError, ValueError, AttributeError, LookupError, OverflowError) as error:
        raise NnmissError(f'dataset.json: "labels" or "regions_class_order" break nnU-Net\'s rules: {error}') from None
    order = dataset_json.get("regions_class_order")
    if manager.has_regions and order is not None and not (
            isinstance(order, list | tuple) and all(type(n) is int and 0 <= n < 2**16 for n in order)):
        raise NnmissError(f'dataset.json: "regions_class_order" must be a list of label values, got {shown(order)}')
    known = _known(manager)
    if not np.all(np.ediff1d(known) == 1):
        raise NnmissError(f"dataset.json: label values must be consecutive (0, 1, 2, ...), got {known}")
    return manager


def _known(manager: LabelManager) -> list[int]:
    return [int(i) for i in manager.all_labels] + ([int(manager.ignore_label)] if manager.has_ignore_label else [])


def known_labels(dataset_json: dict) -> list[int]:
    """Every value a label file may hold, background and ignore label included."""
    return _known(label_manager(dataset_json))


def dataset_kind(dataset_folder: str | Path) -> str:
    """"segmentation" or "classification", from dataset.json in a raw or preprocessed data set's folder.

    Raises NnmissError when it is absent or not a JSON object.
    """
    return CLASSIFICATION if is_classification(_object(Path(dataset_folder) / "dataset.json")) else SEGMENTATION


def kind_of_dataset(dataset: int | str) -> str:
    """"segmentation" or "classification", of a data set by id or name: of its preprocessed folder, else of the raw one.

    Raises NnmissError when there is no such data set, or no dataset.json in either folder.
    """
    name = find_dataset_name(dataset)
    roots = [Path(os.environ[v]) / name for v in ("nnUNet_preprocessed", "nnUNet_raw") if os.environ.get(v)]
    folder = next((root for root in roots if (root / "dataset.json").is_file()), None)
    if folder is None:
        looked = " or ".join(map(str, roots)) or "any folder"
        raise NnmissError(f"{name} has no dataset.json in {looked}: convert it or run nnmiss_plan_and_preprocess first")
    return dataset_kind(folder)


def require_segmentation(dataset_json: dict, what: str) -> None:
    """Raises NnmissError, naming the command or step `what`, when dataset.json describes a classification data set."""
    if is_classification(dataset_json):
        raise NnmissError(f"{what} is for segmentation; this is a classification data set "
                          f"({dataset_json.get('task')})")


def _object(path: Path) -> dict:
    content = read_json(path, "dataset.json")
    if not isinstance(content, dict):
        raise NnmissError(f"{path} must hold a JSON object with the keys {', '.join(REQUIRED_KEYS)}")
    json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=partial(_no_key_twice, path))
    return content


def _no_key_twice(path: Path, pairs: list[tuple[str, object]]) -> dict:
    """Of a key that stands twice, JSON's readers take the last in silence."""
    twice = sorted(key for key, times in Counter(key for key, _ in pairs).items() if times > 1)
    if twice:
        raise NnmissError(f"{path} has {', '.join(twice)} twice: remove one of the two")
    return dict(pairs)


def load_dataset_json(raw_dataset_folder: str | Path, kinds: tuple[str, ...] = (SEGMENTATION,)) -> dict:
    """Reads dataset.json of a raw data set and checks what planning relies on.

    Args:
        raw_dataset_folder: DatasetXXX_Name.
        kinds: what the caller can handle, of "segmentation" and "classification" (which is checked as
            nnmiss.classification.description does).

    Raises NnmissError when it is absent, not JSON, of another kind, lacks a key, or holds bad names, labels or types.
    """
    path = Path(raw_dataset_folder) / "dataset.json"
    content = _object(path)
    if is_classification(content):
        if CLASSIFICATION not in kinds:
            require_segmentation(content, f"{path}: this step")
        from nnmiss.classification.description import parse_description  # torch and readers, which segmentation spares

        return parse_description(content, str(path)).content
    if SEGMENTATION not in kinds:
        raise NnmissError(f'{path} describes a segmentation data set, this step is for classification ("task" and '
                          '"modalities")')
    missing = [k for k in REQUIRED_KEYS if k not in content and not (k == "channel_names" and "modality" in content)]
    if missing:
        raise NnmissError(f"{path} lacks {', '.join(missing)}: see nnU-Net's documentation/dataset_format.md")
    number, ending = content["numTraining"], content["file_ending"]
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise NnmissError(f'{path}: "numTraining" must be the number of training cases, got {number!r}')
    require_ending(ending, f'{path}: "file_ending"')
    return check_description(content, str(path))


def check_description(content: dict, where: str) -> dict:
    """`content` of a segmentation dataset.json, raw or of a model, when its names, labels and ending can be used.

    Raises NnmissError, beginning with `where`, when not.
    """
    try:
        modality_names(content)
        label_manager(content)
    except NnmissError as error:
        raise NnmissError(f"{where}: {str(error).removeprefix('dataset.json: ')}") from None
    require_ending(content["file_ending"], f'{where}: "file_ending"')
    reader = content.get("overwrite_image_reader_writer") or "None"
    if reader not in ("None", *READERS):
        raise NnmissError(f'{where}: "overwrite_image_reader_writer" is {shown(reader)}, expected one of '
                          f'{", ".join(READERS)}')
    return content
