"""Expected calibration error where probabilities were saved: per-bin sums over foreground voxels, region by region."""
from __future__ import annotations

from math import nan
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform

from nnmiss.array_files import read_arrays
from nnmiss.errors import NnmissError
from nnmiss.evaluation.label_maps import Regions
from nnmiss.evaluation.predictions import Prediction
from nnmiss.evaluation.scoring import Reference

COLUMNS = ["subset", "region", "bin", "n", "mean_confidence", "accuracy"]
BinSums = np.ndarray  # (3, bins): see `bin_sums`
SLACK = 1e-3  # how far rounding, as to half precision, may take a probability beyond 0 and 1


def bin_sums(p: np.ndarray, inside: np.ndarray, bins: int) -> np.ndarray:
    """What the calibration error and the reliability diagram of a region are made of; sums of cases may be added.

    A voxel's confidence is max(p, 1 - p), and it is correct where (p > 0.5) == inside. Bin m of 1..bins holds the
    confidences in (0.5 + (m - 1) w, 0.5 + m w] with w = 0.5 / bins; 0.5 itself is in the first.

    Args:
        p: (n,) probabilities 0..1 of belonging to the region.
        inside: (n,) bool, the truth.

    Returns:
        (3, bins) float64: voxels, sum of their confidences, number of correct ones.
    """
    p = np.clip(np.asarray(p, np.float64), 0, 1)
    confidence, correct = np.maximum(p, 1 - p), (p > 0.5) == inside
    place = np.searchsorted(np.linspace(0.5, 1, bins + 1)[1:-1], confidence)
    return np.stack([np.bincount(place, weights, bins) for weights in (None, confidence, correct)])


def expected_calibration_error(sums: np.ndarray) -> float:
    """sum over bins of n_m / n |accuracy_m - mean confidence_m|, 0..1 (Guo et al. 2017); NaN without voxels."""
    n, confidence, correct = sums
    return float(np.abs(correct - confidence).sum() / n.sum()) if n.any() else nan


def calibrate(prediction: Prediction, labels: np.ndarray, reference: Reference,
              dataset_json: dict) -> tuple[dict[str, np.ndarray], float]:
    """Reads a prediction's probabilities and sums them by bin.

    Args:
        prediction: `probabilities` is the file that is read.
        labels: its segmentation, as `label_maps.read_label_map` returns it.
        reference: the ground truth. Only voxels count that are foreground in it or in `labels`, and are not ignored.

    Returns:
        region -> `bin_sums`, and which part of the predicted foreground is another in the probabilities (0..1; not 0
        where the segmentation was processed after it was made, or is of another run).

    Raises NnmissError when the file is damaged, does not fit the data set or the image, or has little to do with
    `labels`.
    """
    path, regions = prediction.probabilities, reference.regions
    voxels = reference.foreground_voxels(labels)
    p = read_probabilities(path, prediction.path, reference.shape, regions, dataset_json)
    p = p[(slice(None), *np.unravel_index(voxels, reference.shape))]  # (channels, n)
    if p.size and not (p.min() >= -SLACK and p.max() <= 1 + SLACK):
        raise NnmissError(f"probabilities are from {p.min():.4g} to {p.max():.4g}, expected 0 to 1: predict the case "
                          "again with --save_probabilities, or delete this file")
    shown = labels.reshape(-1)[voxels] != 0
    meant = (p > 0.5).any(0) if _has_regions(regions) else p.argmax(0) != 0
    apart = float((meant != shown).sum() / max((meant | shown).sum(), 1))
    if apart > 0.5:
        raise NnmissError(f"{100 * apart:.0f} % of the predicted foreground is not that of the segmentation beside it: "
                          "it is of another prediction, delete it or predict the case again with --save_probabilities")
    truth, bins = reference.labels.reshape(-1)[voxels], reference.conventions.ece_bins
    return {name: bin_sums(p_of, reference.inside[name][truth], bins)
            for name, p_of in region_probabilities(p, regions).items()}, apart


def region_probabilities(p: np.ndarray, regions: Regions) -> dict[str, np.ndarray]:
    """Region -> (n,) probability, from (channels, n) as nnU-Net writes them.

    Where a data set has regions, channel k is the k-th of them as in dataset.json; else the channels are the softmax of
    the labels, ascending, with the background first.
    """
    if _has_regions(regions):
        return dict(zip(regions.members, p))
    channels = {label: channel for channel, label in enumerate(sorted(regions.known))}
    return {name: p[[channels[label] for label in members]].sum(0) for name, members in regions.members.items()}


def pool(parts: list[tuple[str, str, np.ndarray]], subsets: list[str],
         regions: list[str]) -> dict[tuple[str, str], np.ndarray]:
    """(subset, region) -> sum of the bin sums of all cases, in the order of `subsets` and `regions`."""
    found: dict[tuple[str, str], np.ndarray] = {}
    for subset, region, sums in parts:
        found[subset, region] = found.get((subset, region), 0) + sums
    return {(s, r): found[s, r] for s in subsets for r in regions if (s, r) in found}


def calibration_table(pooled: dict[tuple[str, str], np.ndarray]) -> pd.DataFrame:
    """calibration.csv: a row per (subset, region) and bin, 1..bins; without voxels confidence and accuracy are NaN."""
    rows = [(subset, region, m, int(n), confidence / n if n else nan, correct / n if n else nan)
            for (subset, region), sums in pooled.items() for m, (n, confidence, correct) in enumerate(sums.T, start=1)]
    return pd.DataFrame(rows, columns=COLUMNS)


def _has_regions(regions: Regions) -> bool:
    """nnU-Net's rule for one sigmoid per region instead of a softmax over labels."""
    return any(len(members) > 1 for members in regions.members.values())


def read_probabilities(path: Path, segmentation: Path, shape: tuple[int, ...], regions: Regions,
                       dataset_json: dict) -> np.ndarray:
    """(channels, *shape) of floats of a CASE.npz, on the voxels of the segmentation's file. Raises NnmissError."""
    try:
        p = read_arrays(path)["probabilities"]
    except Exception as error:  # decoders raise whatever they like on damaged files
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise NnmissError(f'cannot read probabilities ({reason}): the file is damaged or has no "probabilities", '
                          "predict the case again with --save_probabilities, or delete it") from None
    if p.ndim == 4 and "Reorient" in str(dataset_json.get("overwrite_image_reader_writer")):
        p = _from_canonical(p, segmentation)
    channels = len(regions.members) if _has_regions(regions) else len(regions.known)
    wide = [n for n in shape if n > 1]
    if p.dtype.kind != "f" or len(p.shape) < 2 or len(p) != channels or [n for n in p.shape[1:] if n > 1] != wide:
        raise NnmissError(f"probabilities are {p.dtype} of shape {p.shape}, expected floats of {channels} channels x "
                          f"{shape} voxels: predict the case again with --save_probabilities, or delete this file")
    return p.reshape(channels, *shape)


def _from_canonical(p: np.ndarray, segmentation: Path) -> np.ndarray:
    """nnU-Net's NibabelIOWithReorient turns images to RAS and segmentations back, but not probabilities."""
    back = ornt_transform(axcodes2ornt("RAS"), io_orientation(nib.load(segmentation).affine))
    return apply_orientation(p.T, back).T
