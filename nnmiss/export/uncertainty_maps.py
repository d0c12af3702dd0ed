"""The uncertainty maps of BraTS 2019 and 2020 (task 3) from saved probabilities: 0 most certain, 100 least."""
from __future__ import annotations

from pathlib import Path

import numpy as np

from nnmiss.brats_years import Challenge
from nnmiss.errors import NnmissError
from nnmiss.evaluation.calibration import SLACK, read_probabilities, region_probabilities
from nnmiss.evaluation.label_maps import Regions, regions_of
from nnmiss.evaluation.predictions import Prediction
from nnmiss.export.label_names import label_names

REGIONS_OF_MAPS = {"unc_whole": "whole_tumor", "unc_core": "tumor_core", "unc_enhance": "enhancing_tumor"}


def uncertainty(p: np.ndarray) -> np.ndarray:
    """round(100 (1 - |2 p - 1|)) as uint8, for probabilities 0..1 of belonging to a region."""
    return np.rint(100 * (1 - np.abs(2 * np.clip(p.astype(np.float64), 0, 1) - 1))).astype(np.uint8)


def uncertainty_maps(prediction: Prediction, labels: np.ndarray, dataset_json: dict,
                     challenge: Challenge) -> dict[str, np.ndarray]:
    """'unc_whole', 'unc_core' and 'unc_enhance' -> uint8 map in the axes of `labels`.

    Args:
        prediction: its CASE.npz is read.
        labels: (z, y, x) its segmentation, in the data set's integers.

    Raises NnmissError when probabilities were not saved, are damaged, or belong to another prediction.
    """
    path = prediction.probabilities
    if not path.is_file():
        raise NnmissError("its probabilities (CASE.npz) are not beside it: predict with --save_probabilities, or leave "
                          "--uncertainty out")
    regions = regions_of(dataset_json)
    try:
        p = read_probabilities(path, prediction.path, labels.shape, regions, dataset_json)
    except NnmissError as error:
        raise NnmissError(f"{path}: {error}") from None
    if not (p.min() >= -SLACK and p.max() <= 1 + SLACK):
        raise NnmissError(f"{path} holds values from {p.min():.4g} to {p.max():.4g}, expected probabilities 0 to 1")
    _check_same(p, labels, regions, path)
    names, known = label_names(dataset_json), region_probabilities(p, regions)
    wanted = {key: {names[n] for n in challenge.regions()[region] if n in names} for key, region in REGIONS_OF_MAPS.items()}
    return {key: uncertainty(_probability(known, regions.members, members)) for key, members in wanted.items()}


def _probability(known: dict[str, np.ndarray], members: dict[str, tuple[int, ...]], wanted: set[int]) -> np.ndarray:
    """Of a set of labels: the data set's region of exactly these, or the sum of single labels."""
    for name, values in members.items():
        if set(values) == wanted:
            return known[name]
    single = {values[0]: name for name, values in members.items() if len(values) == 1}
    if not wanted or wanted - set(single) or len(single) < len(members):
        raise NnmissError(f"the data set has no region of the labels {sorted(wanted)}, so their probability is unknown: "
                          "leave --uncertainty out")
    return sum(known[single[value]] for value in sorted(wanted))


def _check_same(p: np.ndarray, labels: np.ndarray, regions: Regions, path: Path) -> None:
    """Raises NnmissError where more than half of the foreground is another than the segmentation's.

    Sigmoids of regions need not be nested: any of them makes foreground, as nnU-Net paints it.
    """
    nested = any(len(members) > 1 for members in regions.members.values())
    meant, shown = ((p > 0.5).any(0) if nested else p.argmax(0) != 0), labels != 0
    if 2 * np.count_nonzero(meant != shown) > np.count_nonzero(meant | shown):
        raise NnmissError(f"{path} is of another prediction than the segmentation beside it: predict the case again with "
                          "--save_probabilities")
