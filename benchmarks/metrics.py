"""Times Dice and HD95 of 15 modality subsets x 3 regions of one 240x240x155 case, and compares HD95 with medpy.

    OMP_NUM_THREADS=1 python benchmarks/metrics.py [--definition brats2023] [--no_medpy]
"""
from __future__ import annotations

import argparse
import os
import platform
import time

import numpy as np
from machine import processor
from scipy import ndimage

from nnmiss.availability import all_subsets
from nnmiss.evaluation.conventions import Conventions
from nnmiss.evaluation.label_maps import regions_of
from nnmiss.evaluation.scoring import Reference
from nnmiss.seeding import derive_seed

SHAPE = (240, 240, 155)  # voxels of 1 mm, as BraTS
LABELS = {"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing tumor": 3}


def tumour(rng: np.random.Generator, bumps: np.ndarray, jitter: float) -> np.ndarray:
    """uint8 labels of nested, lumpy regions: 1 oedema, 2 core, 3 enhancing rim. `jitter` (voxels) moves the borders."""
    centre = np.array([100, 130, 80]) + rng.normal(size=3) * jitter
    grid = np.ogrid[tuple(slice(n) for n in SHAPE)]
    radius = np.sqrt(sum((g - c) ** 2 for g, c in zip(grid, centre))) + bumps + rng.normal() * jitter
    return (radius < 24).astype(np.uint8) + (radius < 16) + ((radius < 13) & (radius > 8))


def make_case(seed: int = 0) -> tuple[np.ndarray, list[np.ndarray]]:
    """A ground truth and 15 predictions: borders off by some voxels, scattered errors, far islands in every third."""
    rng = np.random.default_rng(derive_seed("metrics benchmark", seed))
    coarse = [ndimage.gaussian_filter(rng.normal(size=(30, 30, 20)), 1.0) for _ in range(2)]
    bumps, other = (ndimage.zoom(c / c.std() * 4, np.divide(SHAPE, c.shape), order=1) for c in coarse)
    gt = tumour(rng, bumps, 0)
    preds = []
    for i in range(len(all_subsets(4))):
        pred = tumour(rng, bumps + other * rng.uniform(.1, .5), 1.0)
        pred[(rng.random(SHAPE) < .02) & (pred == 2)] = 3
        for _ in range(8 if i % 3 == 0 else 0):
            z, y, x = (rng.integers(5, n - 10) for n in SHAPE)
            pred[z:z + 4, y:y + 4, x:x + 4] = rng.integers(1, 4)
        preds.append(pred)
    return gt, preds


def main() -> None:
    """Prints the machine, the sizes, the time and the largest difference to medpy."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--definition", default="brats2020", choices=("brats2020", "brats2023"))
    parser.add_argument("--no_medpy", action="store_true", help="skip the comparison (it takes minutes)")
    args = parser.parse_args()
    regions = regions_of({"labels": LABELS})
    gt, preds = make_case()
    sizes = {name: int(np.isin(gt, members).sum()) for name, members in regions.members.items()}
    print(f"machine: {processor()}, {os.cpu_count()} cores, "
          f"Python {platform.python_version()}, NumPy {np.__version__}; voxels: {sizes}")
    wall, cpu = [], []
    for _ in range(3):
        start = time.perf_counter(), time.process_time()
        reference = Reference(gt, (1, 1, 1), regions, Conventions(hd95=args.definition))
        scores = [reference.score(pred)[0] for pred in preds]
        wall.append(time.perf_counter() - start[0])
        cpu.append(time.process_time() - start[1])
    print(f"{len(preds)} subsets x {len(sizes)} regions, Dice + HD95 ({args.definition}), one process: "
          f"{min(wall):.2f} s wall, {min(cpu):.2f} s CPU (best of 3; worst {max(wall):.2f} / {max(cpu):.2f})")
    if not args.no_medpy and args.definition == "brats2020":
        compare_with_medpy(gt, preds, scores, regions.members)


def compare_with_medpy(gt: np.ndarray, preds: list[np.ndarray], scores: list[dict], members: dict) -> None:
    """The largest difference over all pairs; medpy on masks cropped to their union's box, which is exact."""
    try:
        from medpy.metric.binary import dc, hd95
    except ImportError:
        print("medpy is not installed: no comparison")
        return
    worst_hd, worst_dice, start = 0.0, 0.0, time.process_time()
    for pred, score in zip(preds, scores):
        for name, values in members.items():
            a, b = np.isin(gt, values), np.isin(pred, values)
            box = ndimage.find_objects((a | b).astype(np.uint8))[0]
            worst_hd = max(worst_hd, abs(hd95(b[box], a[box]) - score[name]["hd95"]))
            worst_dice = max(worst_dice, abs(dc(b[box], a[box]) - score[name]["dice"]))
    print(f"largest difference to medpy: HD95 {worst_hd:.1e} mm, Dice {worst_dice:.1e} "
          f"(medpy, cropped: {time.process_time() - start:.1f} s CPU)")


if __name__ == "__main__":
    main()
