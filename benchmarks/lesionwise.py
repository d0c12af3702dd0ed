"""Times the lesion-wise metrics of one 240x240x155 case, three regions: a large tumour, satellites, many false islands.

    OMP_NUM_THREADS=1 python benchmarks/lesionwise.py [--islands 150]
"""
from __future__ import annotations

import argparse
import os
import platform
import resource
import sys
import time

import numpy as np
from machine import processor
from scipy import ndimage

from nnmiss.evaluation.conventions import Conventions
from nnmiss.evaluation.label_maps import regions_of
from nnmiss.evaluation.scoring import Reference
from nnmiss.seeding import derive_seed

SHAPE = (155, 240, 240)  # (z, y, x) of 1 mm, as BraTS
DATASET = {"labels": {"background": 0, "whole_tumor": [1, 2, 3], "tumor_core": [2, 3], "enhancing_tumor": 3}}
NAMES = {"ed": 1, "ncr": 2, "et": 3}
RULES = ("2023-GLI", "2024-GLI", "2024-PED", "2023-MET")


def add_tumour(labels: np.ndarray, centre: np.ndarray, radius: float, bumps: np.ndarray) -> None:
    """Nested, lumpy regions around a centre: 1 edema, 2 core, 3 enhancing rim."""
    distance = np.sqrt(sum((g - c) ** 2 for g, c in zip(np.ogrid[tuple(slice(n) for n in SHAPE)], centre))) + bumps
    for part, value in ((1, 1), (0.65, 2), (0.55, 3), (0.35, 2)):
        labels[distance < radius * part] = value


def make_case(islands: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A ground truth with a large tumour and six satellites, and a prediction: moved, frayed, with false islands."""
    rng = np.random.default_rng(derive_seed("lesion-wise benchmark", seed))
    coarse = ndimage.gaussian_filter(rng.normal(size=(20, 30, 30)), 1.0)
    bumps = ndimage.zoom(coarse / coarse.std() * 5, np.divide(SHAPE, coarse.shape), order=1)
    gt, pred = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    places = [(np.array([80, 110, 100]), 34.0)]
    places += [(np.array([rng.integers(25, n - 25) for n in SHAPE]), rng.uniform(4, 10)) for _ in range(6)]
    for centre, radius in places:
        add_tumour(gt, centre, radius, bumps)
        add_tumour(pred, centre + rng.normal(size=3), radius * rng.uniform(0.9, 1.1), bumps * rng.uniform(0.8, 1.2))
    pred[(rng.random(SHAPE) < 0.03) & (pred > 0)] = 1
    for _ in range(islands):
        corner, edge = [rng.integers(5, n - 12) for n in SHAPE], rng.integers(1, 7, 3)
        pred[tuple(slice(c, c + e) for c, e in zip(corner, edge))] = rng.integers(1, 4)
    return gt, pred


def main() -> None:
    """Prints the machine, the sizes, and time and peak memory of each set of rules."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--islands", type=int, default=150, help="false islands in the prediction (%(default)s)")
    args = parser.parse_args()
    regions = regions_of(DATASET)
    gt, pred = make_case(args.islands)
    sizes = {name: (int(np.isin(gt, m).sum()), int(np.isin(pred, m).sum())) for name, m in regions.members.items()}
    print(f"machine: {processor()}, {os.cpu_count()} cores, Python {platform.python_version()}, NumPy {np.__version__}; "
          f"voxels in ground truth and prediction: {sizes}; islands: {args.islands}")
    for rules in RULES:
        plain, lesionwise = (seconds(gt, pred, regions, Conventions(hd95="none", lesionwise=r)) for r in (None, rules))
        scores = Reference(gt, (1, 1, 1), regions, Conventions(hd95="none", lesionwise=rules), NAMES).score(pred)[0]
        counts = "; ".join("{} {:.0f} found, {:.0f} missed, {:.0f} false".format(
            name, s["lesion_tp"], s["lesion_fn"], s["lesion_fp"]) for name, s in scores.items())
        print(f"{rules}: {lesionwise - plain:.2f} s CPU per case, three regions, one process ({counts})")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024**2 if sys.platform == "darwin" else 1024)
    print(f"peak memory of this process: {peak:.0f} MB")


def seconds(gt: np.ndarray, pred: np.ndarray, regions, conventions: Conventions, repeats: int = 3) -> float:
    """CPU seconds to prepare the ground truth and score one prediction, best of some."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        Reference(gt, (1, 1, 1), regions, conventions, NAMES).score(pred)
        times.append(time.process_time() - start)
    return min(times)


if __name__ == "__main__":
    main()
