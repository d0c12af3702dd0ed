"""Lesion-wise scores are those of a slow version that follows the description of the years literally, on whole volumes."""
from __future__ import annotations

import tracemalloc
from math import prod, sqrt

import numpy as np
import pytest
from scipy import ndimage

from nnmiss.errors import NnmissError
from nnmiss.evaluation.conventions import Conventions
from nnmiss.evaluation.hausdorff import hd95
from nnmiss.evaluation.label_maps import regions_of
from nnmiss.evaluation.lesion_rules import LESION_RULES, find_rules
from nnmiss.evaluation.lesions import find_lesions
from nnmiss.evaluation.scoring import Reference

NAMES = {"ed": 1, "ncr": 2, "et": 3, "rc": 4}
REGIONS = {"WT": [1, 2, 3], "TC": [2, 3], "ET": 3, "RC": 4, "NETC": 2, "SNFH": 1}
DATASET = {"labels": {"background": 0, **REGIONS}}
STEP, CUBE = ndimage.generate_binary_structure(3, 2), np.ones((3, 3, 3), bool)

# The published numbers: dilation, smallest volume, penalty (None: diagonal in voxels), predictions treated alike, false
# positives counted, smallest prediction in mm3; then the regions with their own dilation, volume and regions they join by.
SIMPLE, ALIKE = (False, True, False), (True, True, False)
PUBLISHED = {
    "2023-GLI": (3, 50, 374, *SIMPLE), "2023-SSA": (3, 50, 374, *SIMPLE), "2023-PED": (3, 50, 374, *SIMPLE),
    "2023-MEN": (1, 50, 374, *SIMPLE), "2023-MET": (1, 2, 374, *SIMPLE), "2025-MEN": (1, 50, 374, *SIMPLE),
    "2024-GLI": (3, 20, 337, *ALIKE), "2024-SSA": (3, 50, 374, *ALIKE), "2024-PED": (5, 10, 374, *ALIKE),
    "2024-MET": (1, 2, 374, *ALIKE), "2024-MEN-RT": (1, 50, None, True, False, True),
    "2025-GLI": (3, 20, 337, *ALIKE), "2025-SSA": (3, 50, 374, *ALIKE), "2025-PED": (5, 10, 374, *ALIKE),
    "2025-MET": (1, 2, None, *ALIKE), "2025-MEN-RT": (1, 50, None, True, False, True),
}
GLIOMA = {"ET": (3, 10, ("NETC", "RC")), "NETC": (5, 20, ("ET", "RC")), "RC": (5, 20, ("ET", "NETC")),
          "SNFH": (3, 20, ("ET", "RC", "NETC"))}
SPECIAL = {"2024-GLI": GLIOMA, "2025-GLI": GLIOMA, "2024-SSA": {"ET": (3, 50, ("NETC",))},
           "2025-SSA": {"ET": (3, 50, ("NETC",))}, "2024-MET": {"ET": (1, 2, ("NETC",))},
           "2025-MET": {"ET": (1, 2, ("NETC",))}}


def dilated(mask, steps):
    return ndimage.binary_dilation(mask, STEP, iterations=steps) if steps else mask


def slow_lesions(mask, steps):
    """Number of the lesion of each voxel: connected components of the dilated mask, on the mask. Arrays are (x, y, z)."""
    return ndimage.label(dilated(mask, steps), CUBE)[0] * mask


def slow_join(lesions, others):
    pairs = sorted({(int(a), int(b)) for a in np.unique(lesions)[1:] for b in np.unique(others)[1:]
                    if (dilated(lesions == a, 1) & (others == b)).any()})
    if len(pairs) <= 1:
        return lesions
    result, highest = lesions.copy(), lesions.max()
    for lesion, partner in reversed(pairs):  # the lowest partner is written last
        result[lesions == lesion] = highest + partner
    return result


def slow_score(gt, pred, region, rules, spacing):
    """As described, one lesion after the other, on whole volumes with axes (x, y, z)."""
    steps, smallest, penalty, alike, false_count, in_mm3 = PUBLISHED[rules]
    special = SPECIAL.get(rules, {})
    penalty = sqrt(sum(n * n for n in gt.shape)) if penalty is None else penalty

    def lesions(labels, name, prediction):
        _, _, joins = special.get(name, (steps, smallest, ()))
        mask = np.isin(labels, REGIONS[name])
        if prediction and not alike:
            return slow_lesions(mask, 0)

        def found(which):
            steps_of, smallest_of, _ = special.get(which, (steps, smallest, ()))
            numbers = slow_lesions(np.isin(labels, REGIONS[which]), steps_of)
            if prediction:
                for number in np.unique(numbers)[1:]:
                    if (numbers == number).sum() <= (smallest_of / prod(spacing) if in_mm3 else smallest_of):
                        numbers[numbers == number] = 0
            return numbers

        numbers = found(name)
        for other in joins:
            numbers = slow_join(numbers, found(other))
        return numbers

    steps_here, smallest_here, _ = special.get(region, (steps, smallest, ()))
    truth, predicted = lesions(gt, region, False), lesions(pred, region, True)
    touched, dices, distances, missed = set(), [], [], 0
    for number in np.unique(truth)[1:]:
        lesion = truth == number
        partners = set(np.unique(predicted[dilated(lesion, steps_here)])) - {0}
        touched |= partners
        if lesion.sum() * prod(spacing) <= smallest_here:
            continue
        union = np.isin(predicted, list(partners))
        missed += not partners
        dices.append(2 * (union & lesion).sum() / (union.sum() + lesion.sum()))
        distances.append(hd95(lesion, union, spacing, "brats2023") if partners else penalty)
    false = len(set(np.unique(predicted)) - {0} - touched)
    n = len(dices) + (false if false_count else 0)
    return {"lesion_dice": sum(dices) / n if n else 1,
            "lesion_hd95": (sum(distances) + (n - len(dices)) * penalty) / n if n else 0,
            "lesion_tp": len(dices) - missed, "lesion_fp": false, "lesion_fn": missed}


def random_map(rng, shape, lesions):
    """Nested blobs of several labels, some small, some side by side."""
    labels, grid = np.zeros(shape, np.uint8), np.indices(shape)
    for _ in range(lesions):
        centre, radius = [rng.integers(0, n) for n in shape], rng.uniform(0.5, 5.5)
        distance = np.sqrt(sum((g - c) ** 2 for g, c in zip(grid, centre))) + rng.uniform(0, 1.5, shape)
        for label, part in zip(rng.permutation([1, 2, 3, 4])[: rng.integers(1, 4)], (1, 0.75, 0.5)):
            labels[distance <= radius * part] = label
    return labels


def perturbed(rng, labels):
    """A prediction: lesions lost, those of one side all, others moved, some invented."""
    parts, count = ndimage.label(labels)
    labels = np.where(rng.random(count + 1)[parts] < 0.3, 0, labels)
    labels[: rng.integers(0, 24)] = 0
    moved = np.roll(labels, rng.integers(-2, 3, 3), (0, 1, 2)) * (rng.random(labels.shape) > 0.05).astype(np.uint8)
    extra = random_map(rng, labels.shape, rng.integers(0, 4))
    return np.where(extra > 0, extra, moved).astype(np.uint8)


def fast_score(gt, pred, rules, spacing, dataset=DATASET):
    """Arrays (x, y, z), as the official code has them; nnmiss reads files with the axes reversed."""
    reference = Reference(np.ascontiguousarray(gt.T), spacing[::-1], regions_of(dataset),
                          Conventions(hd95="none", lesionwise=rules), NAMES)
    return reference.score(np.ascontiguousarray(pred.T))[0]


@pytest.mark.parametrize("rules", sorted(PUBLISHED))
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.5, 1.25, 2.0)])
def test_scores_are_those_of_the_slow_version(rules, spacing):
    rng = np.random.default_rng([len(rules), *map(ord, rules), int(10 * spacing[0])])
    seen = {"lesion_tp": 0, "lesion_fp": 0, "lesion_fn": 0}
    for _ in range(8):
        shape = tuple(rng.integers(20, 46, 3))
        gt = random_map(rng, shape, rng.integers(2, 12))
        pred = perturbed(rng, gt)
        fast = fast_score(gt, pred, rules, spacing)
        for region in REGIONS:
            slow = slow_score(gt, pred, region, rules, spacing)
            assert {m: v for m, v in fast[region].items() if m in slow} == pytest.approx(slow, abs=1e-9), region
            seen = {name: seen[name] + slow[name] for name in seen}
    assert all(seen.values()), seen


def test_every_rule_set_is_tested_and_the_year_alone_means_gliomas():
    assert set(LESION_RULES) == set(PUBLISHED)
    assert find_rules("2023").name == "2023-GLI" and find_rules("2024-ped").name == "2024-PED"
    with pytest.raises(NnmissError, match="2023-GLI"):
        find_rules("2020")


def ball(labels, centre, radius, value):
    labels[sum((g - c) ** 2 for g, c in zip(np.indices(labels.shape), centre)) <= radius**2] = value


def test_examples_worked_out_by_hand():
    empty = np.zeros((40, 40, 40), np.uint8)
    gt = empty.copy()
    ball(gt, (10, 10, 10), 4, 1)
    perfect = {"lesion_dice": 1, "lesion_hd95": 0}
    score = fast_score(empty, empty, "2023-GLI", (1, 1, 1))["WT"]
    assert {**score, **perfect} == score and score["lesion_tp"] == score["lesion_fp"] == 0
    assert fast_score(gt, gt, "2023-GLI", (1, 1, 1))["WT"]["lesion_dice"] == 1
    missed = fast_score(gt, empty, "2023-GLI", (1, 1, 1))["WT"]
    assert (missed["lesion_dice"], missed["lesion_hd95"], missed["lesion_fn"]) == (0, 374, 1)
    both = gt.copy()
    ball(both, (30, 30, 30), 1, 1)  # 7 voxels: false in 2023, too small for the code of 2024
    assert fast_score(gt, both, "2023-GLI", (1, 1, 1))["WT"]["lesion_dice"] == 0.5
    assert fast_score(gt, both, "2023-GLI", (1, 1, 1))["WT"]["lesion_hd95"] == 187
    assert fast_score(gt, both, "2024-GLI", (1, 1, 1))["WT"]["lesion_dice"] == 1
    assert fast_score(both, gt, "2023-GLI", (1, 1, 1))["WT"]["lesion_dice"] == 1  # too small to be missed
    assert fast_score(empty, gt, "2024-MEN-RT", (1, 1, 1))["WT"]["lesion_dice"] == 1  # false lesions do not count there
    assert fast_score(gt, empty, "2025-MET", (1, 1, 1))["WT"]["lesion_hd95"] == pytest.approx(sqrt(3 * 40**2))


@pytest.mark.parametrize("dilation", [0, 1, 3, 5])
def test_lesions_are_components_of_the_dilated_mask_in_the_order_of_the_file(dilation):
    rng = np.random.default_rng(dilation)
    for density in (0.001, 0.004, 0.02):
        mask = rng.random((33, 47, 41)) < density  # axes reversed: (z, y, x)
        found = find_lesions(np.flatnonzero(mask), mask.shape, dilation)
        numbers = np.zeros(mask.shape, np.int64)
        numbers.reshape(-1)[found.voxels] = found.of
        assert np.array_equal(numbers.T, slow_lesions(mask.T, dilation))
        reach = np.zeros(mask.shape, np.int64)
        reach.reshape(-1)[found.reach] = found.reach_of
        assert np.array_equal(reach.T, ndimage.label(dilated(mask.T, dilation), CUBE)[0])


def test_more_places_than_are_looked_at_one_by_one(monkeypatch):
    mask = np.zeros((60, 60, 60), bool)
    mask[::12, ::12, ::12] = True
    apart = find_lesions(np.flatnonzero(mask), mask.shape, 1)
    monkeypatch.setattr("nnmiss.evaluation.lesions.MANY_PLACES", 10)
    together = find_lesions(np.flatnonzero(mask), mask.shape, 1)
    assert apart.count == together.count == 125
    for field in ("of", "reach", "reach_of"):
        assert np.array_equal(getattr(apart, field), getattr(together, field))


def test_a_slice_is_a_volume_of_one_slice():
    rng = np.random.default_rng(0)
    gt = random_map(rng, (40, 40, 1), 6)
    pred = random_map(rng, (40, 40, 1), 6)
    for rules in ("2023-MET", "2024-GLI"):
        fast = fast_score(gt, pred, rules, (1, 1, 1))["WT"]
        slow = slow_score(gt, pred, "WT", rules, (1, 1, 1))
        assert fast["lesion_dice"] == pytest.approx(slow["lesion_dice"]) and fast["lesion_fp"] == slow["lesion_fp"]


def test_ignored_voxels_are_no_lesions():
    gt = np.zeros((30, 30, 30), np.uint8)
    gt[5:15, 5:15, 5:15], gt[20:28, 20:28, 20:28] = 1, 5
    pred = gt.copy()
    pred[gt == 5] = 3
    dataset = {"labels": {**DATASET["labels"], "ignore": 5}}
    assert fast_score(gt, pred, "2023-GLI", (1, 1, 1), dataset)["WT"]["lesion_fp"] == 0


def test_memory_does_not_grow_from_case_to_case():
    rng = np.random.default_rng(1)
    gt = random_map(rng, (60, 60, 60), 8)
    reference = Reference(gt, (1, 1, 1), regions_of(DATASET), Conventions(hd95="none", lesionwise="2024-GLI"), NAMES)
    predictions = [perturbed(rng, gt) for _ in range(3)]
    for pred in predictions:
        reference.score(pred)
    tracemalloc.start()
    for pred in predictions:
        reference.score(pred)
    before, _ = tracemalloc.get_traced_memory()
    for _ in range(3):
        for pred in predictions:
            reference.score(pred)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < 200_000
