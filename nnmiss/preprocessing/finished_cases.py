"""Which preprocessed cases are whole and what preprocessing would make again: a second call does only the others."""
from __future__ import annotations

import hashlib
import json
import os
import pickle
from importlib.metadata import version
from pathlib import Path
from typing import Any

import blosc2

from nnmiss import __version__
from nnmiss.availability import Present
from nnmiss.preprocessing.identical_files import content_summary
from nnmiss.preprocessing.raw_dataset import RawCase

PLAN_KEYS = ("image_reader_writer", "transpose_forward", "foreground_intensity_properties_per_channel")
CONFIGURATION_KEYS = ("preprocessor_name", "patch_size", "spacing", "normalization_schemes", "use_mask_for_norm",
                      "resampling_fn_data", "resampling_fn_data_kwargs", "resampling_fn_seg",
                      "resampling_fn_seg_kwargs")  # patch_size: the files' chunks are cut for it
DATASET_KEYS = ("channel_names", "labels", "regions_class_order")
ENDINGS = (".b2nd", "_seg.b2nd", ".pkl")
MADE_OF, BLANK = "nnmiss_made_of", "nnmiss_blank"  # of a case's properties; nnU-Net passes over them


def made_of(case: RawCase, plans: dict, configuration: dict, dataset_json: dict, blank_is_missing: bool) -> str:
    """A hash of everything that shapes a case's arrays: its files (name, size, time, a part), plan, labels, versions.

    The part tells files of one size and time apart, as archives leave them, when two change places.

    Empty when a file of the case is not there.
    """
    names = {**case.files, **({"label": case.label} if case.label else {})}
    try:
        found = {key: os.stat(file) for key, file in names.items()}
        parts = {str(key): content_summary(file) for key, file in names.items()}
    except OSError:
        return ""
    everything = [
        {str(key): (os.path.basename(names[key]), stat.st_size, stat.st_mtime_ns) for key, stat in found.items()}, parts,
        {key: plans.get(key) for key in PLAN_KEYS}, {key: configuration.get(key) for key in CONFIGURATION_KEYS},
        {key: dataset_json.get(key) for key in DATASET_KEYS}, blank_is_missing, __version__, version("nnunetv2")]
    return hashlib.sha256(json.dumps(everything, sort_keys=True, default=str).encode()).hexdigest()


def keep_finished(folder: Path, wanted: dict[str, str]) -> dict[str, tuple[Present, list[str]]]:
    """Leaves in `folder` the whole cases that are made of what is wanted, and nothing else.

    Args:
        folder: of preprocessed cases; need not be there.
        wanted: case -> `made_of`.

    Returns:
        Kept case -> which modalities it has, and the names of its blank ones.
    """
    kept = {}
    for name, expected in wanted.items():
        found = _finished(folder, name) if expected else None
        if found is not None and found.get(MADE_OF) == expected:
            kept[name] = (tuple(found["nnmiss_available"]), list(found.get(BLANK, [])))
    names = {f"{name}{ending}" for name in kept for ending in ENDINGS}
    for file in folder.iterdir() if folder.is_dir() else ():
        if file.name not in names and not file.is_dir():
            file.unlink()
    return kept


def _finished(folder: Path, name: str) -> dict[str, Any] | None:
    """The properties of a case whose files are all there and whole; None for others."""
    data, seg, properties = (folder / f"{name}{ending}" for ending in ENDINGS)
    try:
        shape, seg_shape = (blosc2.open(urlpath=str(file), mode="r").shape for file in (data, seg))  # refuses cut ones
        with open(properties, "rb") as file:
            found = pickle.load(file)  # the user's own file, as nnU-Net's training reads it
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError, AttributeError, ImportError, IndexError):
        return None
    whole = isinstance(found, dict) and shape[1:] == seg_shape[1:] and len(found.get("nnmiss_available", ())) == shape[0]
    return found if whole else None
