"""HD95 by both definitions: by hand, against a slow brute force, against medpy and surface-distance where installed."""
from __future__ import annotations

from itertools import product
from math import isnan, sqrt

import numpy as np
import pytest
from scipy import ndimage

from nnmiss.errors import NnmissError
from nnmiss.evaluation.hausdorff import hd95
from nnmiss.evaluation.surfels import corner_offsets, surface_elements


def random_pairs(count=40, seed=0):
    """Mask pairs in 2D and 3D: noise, blobs, near copies, islands, masks that touch the image's edge; with spacing."""
    rng = np.random.default_rng(seed)
    while count:
        ndim = int(rng.integers(2, 4))
        shape = tuple(rng.integers(2, 14, ndim))
        smooth = rng.choice([0, 0.8, 1.6])
        a, b = (ndimage.gaussian_filter(rng.normal(size=shape), smooth) > 0.05 for _ in range(2))
        if rng.random() < 0.4:
            b = a ^ (rng.random(shape) < 0.03)
        if a.any() and b.any():
            count -= 1
            yield a, b, tuple(float(s) for s in rng.choice([0.5, 1.0, 1.3, 4.0], ndim))


def brute_border(mask):
    """Border voxels found one voxel and one neighbour at a time."""
    points = []
    for voxel in zip(*np.nonzero(mask)):
        for axis, step in product(range(mask.ndim), (-1, 1)):
            other = tuple(v + step * (i == axis) for i, v in enumerate(voxel))
            beyond = any(not 0 <= v < n for v, n in zip(other, mask.shape))
            if beyond or not mask[other]:
                points.append(voxel)
                break
    return np.array(points, float)


def brute_hd95(a, b, spacing):
    a, b = (brute_border(m) * spacing for m in (a, b))
    table = np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))
    pooled = np.sort(np.concatenate([table.min(0), table.min(1)]))
    place = 0.95 * (len(pooled) - 1)  # linear interpolation between the two nearest ranks
    low = int(place)
    return pooled[low] + (place - low) * (pooled[min(low + 1, len(pooled) - 1)] - pooled[low])


def test_two_voxels_two_millimetres_apart():
    a, b = np.zeros((2, 5, 5, 5), bool)
    a[1, 2, 2] = b[3, 2, 2] = True
    assert hd95(a, b) == 2
    assert hd95(a, b, spacing_mm=(0.5, 9, 9)) == 1
    assert hd95(a, b, (1, 1, 1), "brats2023") == 2  # of the 8 lattice points around each voxel 4 are 1 apart, 4 are 2


def test_pooled_percentile_by_hand():
    # 10 voxels in a row, all shared, and one 7 away: 10 + 11 distances, the last one 7; percentile 95 is rank 19 of 0..20
    a, b = np.zeros((2, 3, 20), bool)
    a[1, :10] = b[1, :10] = b[1, 16] = True
    assert hd95(a, b) == 0
    assert hd95(a, b, percentile=100) == 7
    assert hd95(a, b, percentile=97.5) == pytest.approx(3.5)


def test_pooled_equals_brute_force():
    for a, b, spacing in random_pairs():
        assert hd95(a, b, spacing) == pytest.approx(brute_hd95(a, b, spacing), abs=1e-9)


def test_pooled_equals_medpy():
    medpy = pytest.importorskip("medpy.metric.binary", reason="medpy (test extra) is the oracle for the pooled HD95")
    for a, b, spacing in random_pairs(60, seed=1):
        assert hd95(a, b, spacing) == pytest.approx(medpy.hd95(b, a, spacing), abs=1e-9)


def test_far_island_changes_definition_not_correctness():
    a = np.zeros((40, 40, 40), bool)
    a[10:20, 10:20, 10:20] = True
    b = a.copy()
    b[36:39, 36:39, 36:39] = True
    assert hd95(a, b) == pytest.approx(brute_hd95(a, b, np.ones(3)))
    assert hd95(a, b) == 0 < hd95(a, b, definition="brats2023")  # an island is 2.5 % of pooled, 5.2 % of directed


def brute_weighted_hd95(a, b, spacing):
    """The published definition of DeepMind's distance with all pairs of points and a search over thresholds."""
    def surface(mask):
        padded = np.pad(mask, 1)
        points, areas = [], []
        for p in product(*(range(n + 1) for n in mask.shape)):
            block = padded[tuple(slice(i, i + 2) for i in p)].reshape(-1)
            if block.any() and not block.all():
                points.append(p)
                areas.append(surface_elements(spacing)[sum(int(v) << i for i, v in enumerate(block))])
        return np.array(points) * spacing, np.array(areas)

    (pa, wa), (pb, wb) = surface(a), surface(b)
    table = np.sqrt(((pa[:, None] - pb[None]) ** 2).sum(-1))
    directed = [min(t for t in d if w[d <= t].sum() / w.sum() >= 0.95 - 1e-12)
                for d, w in ((table.min(1), wa), (table.min(0), wb))]
    return max(directed)


def test_weighted_equals_brute_force():
    for a, b, spacing in random_pairs(20, seed=2):
        assert hd95(a, b, spacing, "brats2023") == pytest.approx(brute_weighted_hd95(a, b, spacing), abs=1e-9)


def test_weighted_equals_surface_distance():
    oracle = pytest.importorskip("surface_distance", reason="surface-distance (test extra) is the oracle for BraTS 2023")
    for a, b, spacing in random_pairs(60, seed=3):
        expected = oracle.compute_robust_hausdorff(oracle.compute_surface_distances(a, b, spacing), 95)
        assert hd95(a, b, spacing, "brats2023") == pytest.approx(expected, abs=1e-9)


def test_surface_elements_by_hand():
    areas = surface_elements((1.0, 1.0, 1.0))
    code = {offset: 1 << bit for bit, offset in enumerate(corner_offsets(3))}
    corner, edge, face = code[0, 0, 0], code[0, 0, 1], code[0, 1, 0]
    assert areas[0] == areas[255] == 0
    assert areas[corner] == pytest.approx(sqrt(3) / 8)  # a triangle of sides sqrt(1/2)
    assert areas[corner | edge] == pytest.approx(sqrt(2) / 2)  # 1 x sqrt(1/2)
    assert areas[corner | edge | face | code[0, 1, 1]] == pytest.approx(1)  # a whole face of the voxel
    assert areas[corner | code[1, 1, 1]] == pytest.approx(sqrt(3) / 4)  # two corners, apart
    assert areas == pytest.approx(areas[::-1])  # inside and outside swapped
    lengths = surface_elements((3.0, 4.0))
    assert sorted(set(np.round(lengths, 9))) == [0, 2.5, 3, 4, 5]


def test_all_surface_elements_equal_surface_distance():
    oracle = pytest.importorskip("surface_distance.lookup_tables", reason="surface-distance (test extra) has the table")
    for spacing in ((1.0, 1.0, 1.0), (0.5, 0.9, 5.0)):
        table = oracle.create_table_neighbour_code_to_surface_area(spacing)
        kernel = np.array(oracle.ENCODE_NEIGHBOURHOOD_3D_KERNEL)
        for code in range(256):
            theirs = sum(int(kernel[offset]) for bit, offset in enumerate(corner_offsets(3)) if code >> bit & 1)
            assert surface_elements(spacing)[code] == pytest.approx(table[theirs], abs=1e-9)


@pytest.mark.parametrize("definition", ["brats2020", "brats2023"])
def test_single_slice_is_a_2d_image(definition):
    a, b = np.zeros((2, 9, 9), bool)
    a[2:7, 2:7], b[3:8, 1:6] = True, True
    flat = hd95(a, b, (2.0, 3.0), definition)
    assert hd95(a[:, None], b[:, None], (2.0, 99.0, 3.0), definition) == flat > 0


@pytest.mark.parametrize("definition", ["brats2020", "brats2023"])
def test_spacing_scales_the_distance(definition):
    a, b, _ = next(random_pairs(1, seed=4))
    one = hd95(a, b, None, definition)
    assert hd95(a, b, (2.5,) * a.ndim, definition) == pytest.approx(2.5 * one)
    assert hd95(a, b, None, definition) == hd95(b, a, None, definition) == pytest.approx(one)


def test_equal_masks_are_at_zero_and_empty_masks_at_nan():
    mask = np.zeros((4, 5, 6), bool)
    assert isnan(hd95(mask, mask))
    other = mask.copy()
    other[2, 2, 2] = True
    assert isnan(hd95(mask, other)) and isnan(hd95(other, mask, definition="brats2023"))
    assert hd95(other, other) == hd95(other, other, definition="brats2023") == 0


def test_mask_at_the_edge_of_the_image():
    a, b = np.zeros((2, 6, 6), bool)
    a[:, 0], b[:, 5] = True, True
    assert hd95(a, b) == 5
    assert hd95(np.ones((3, 3), bool), np.eye(3, dtype=bool)) == pytest.approx(
        brute_hd95(np.ones((3, 3), bool), np.eye(3, dtype=bool), np.ones(2)))


def test_bad_arguments_are_named():
    mask = np.ones((3, 3, 3), bool)
    with pytest.raises(NnmissError, match=r"brats2019.*brats2020, brats2023"):
        hd95(mask, mask, definition="brats2019")
    with pytest.raises(NnmissError, match=r"\(3, 3, 3\) and \(3, 3\)"):
        hd95(mask, mask[0])
    with pytest.raises(NnmissError, match="spacing"):
        hd95(mask, mask, (1, 1))
