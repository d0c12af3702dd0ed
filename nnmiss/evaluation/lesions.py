"""The lesions of a mask: voxels whose dilations are connected, found without looking at empty space."""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from scipy import ndimage

FEWEST_VOXELS = 8  # edge of a block; small blocks separate better, large ones cost less
MANY_PLACES = 500  # from here on the whole box around them is cheaper than every place on its own


@dataclass(frozen=True)
class Lesions:
    """The lesions of one region in one image.

    Attributes:
        shape: of the image.
        voxels: (n,) int64, ascending flat indices of the region.
        of: (n,) int64, the lesion of each voxel, 1 to `count`; 0 for voxels of lesions that were removed.
        reach: (m,) int64, ascending flat indices of the dilated region, and
        reach_of: (m,) the lesion whose dilation they are.
        count: the highest number of a lesion; after joining and removing, some may have no voxel.
    """

    shape: tuple[int, ...]
    voxels: np.ndarray
    of: np.ndarray
    reach: np.ndarray
    reach_of: np.ndarray
    count: int

    @property
    def sizes(self) -> np.ndarray:
        """(count + 1,) voxels of each lesion; entry 0 counts those removed."""
        return np.bincount(self.of, minlength=self.count + 1)

    def without_small(self, voxels: float) -> Lesions:
        """The lesions of more than so many voxels; the numbers stay."""
        small = self.sizes <= voxels
        return replace(self, of=np.where(small[self.of], 0, self.of))

    def joined(self, others: Lesions) -> Lesions:
        """Lesions that touch one lesion of `others` become one, as the BraTS code of 2024 does it.

        A lesion that touches several counts with the one of lowest number only. A single touching pair changes nothing.
        """
        pairs = touching(self, others)
        if len(pairs) < 2:
            return self
        own, first = np.unique(pairs[:, 0], return_index=True)  # pairs are sorted: the first partner is the lowest
        partners, group = np.unique(pairs[first, 1], return_inverse=True)
        number = np.arange(self.count + 1)
        number[own] = self.count + 1 + group
        return replace(self, of=number[self.of], reach_of=number[self.reach_of], count=self.count + len(partners))


def find_lesions(voxels: np.ndarray, shape: tuple[int, ...], dilation: int, reached: bool = True) -> Lesions:
    """Voxels are of one lesion where their dilations are connected through faces, edges or corners.

    Lesions are numbered by the first voxel of their dilation, the last axis being the slowest: arrays as
    `label_maps.read_label_map` returns them have their axes reversed, and the files' own order is what counts.

    Args:
        voxels: (n,) ascending flat indices.
        shape: of the image.
        dilation: steps with the structuring element of all voxels that share a face or an edge; 0 for none.
        reached: False saves time: `reach` is empty and the lesions are numbered in any order.
    """
    nothing = np.zeros(0, np.int64)
    if not len(voxels):
        return Lesions(shape, nothing, nothing, nothing, nothing, 0)
    index = np.stack(np.unravel_index(voxels, shape))
    element = ndimage.generate_binary_structure(len(shape), min(2, len(shape)))
    corners = np.ones((3,) * len(shape), bool)
    of, reach, reach_of, count = np.zeros(len(voxels), np.int64), [], [], 0
    for here in _places(index, shape, max(2 * dilation + 1, FEWEST_VOXELS)):
        low = np.maximum(index[:, here].min(1) - dilation, 0)
        high = np.minimum(index[:, here].max(1) + dilation + 1, shape)
        inside = tuple(index[:, here] - low[:, None])
        mask = np.zeros(high - low, bool)
        mask[inside] = True
        if dilation:
            mask = ndimage.binary_dilation(mask, element, iterations=dilation)
        labels, found = ndimage.label(mask, corners)
        of[here] = labels[inside] + count
        if reached:
            place = np.nonzero(mask)
            reach_of.append(labels[place] + count)
            reach.append(np.ravel_multi_index(tuple(p + o for p, o in zip(place, low)), shape))
        count += found
    if not reached:
        return Lesions(shape, voxels, of, nothing, nothing, count)
    reach, reach_of = np.concatenate(reach), np.concatenate(reach_of)
    number = _in_file_order(reach, reach_of, count, shape)
    order = np.argsort(reach, kind="stable")  # quick where it mostly is in order, as here
    return Lesions(shape, voxels, number[of], reach[order], number[reach_of[order]], count)


def touching(a: Lesions, b: Lesions) -> np.ndarray:
    """(pairs, 2) lesions of a and of b with voxels that share a face or an edge, sorted; removed voxels do not count."""
    kept_a, kept_b = a.of > 0, b.of > 0
    index, own = np.stack(np.unravel_index(a.voxels[kept_a], a.shape)), a.of[kept_a]
    voxels, theirs = b.voxels[kept_b], b.of[kept_b]
    found = [np.zeros(0, np.int64)]
    for offset in product((-1, 0, 1), repeat=len(a.shape)):
        if not 1 <= sum(map(abs, offset)) <= 2 or not len(voxels):
            continue
        moved = index + np.array(offset)[:, None]
        exists = np.all((moved >= 0) & (moved < np.array(a.shape)[:, None]), axis=0)
        here, place = among(np.ravel_multi_index(tuple(moved[:, exists]), a.shape), voxels)
        found.append(np.unique(own[exists][here] * (b.count + 1) + theirs[place]))
    return np.stack(np.divmod(np.unique(np.concatenate(found)), b.count + 1), axis=1)


def lesion_pairs(a: np.ndarray, b: np.ndarray, count_b: int) -> tuple[np.ndarray, np.ndarray]:
    """The (pairs, 2) different pairs of lesions in two (n,) arrays, sorted, and how often each stands there.

    `count_b` is the highest number in b.
    """
    keys, counts = np.unique(a * (count_b + 1) + b, return_counts=True)
    return np.stack(np.divmod(keys, count_b + 1), axis=1), counts


def among(keys: np.ndarray, ascending: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which `keys` are in `ascending` (bool per key), and where there those are found."""
    if not len(ascending):
        return np.zeros(len(keys), bool), np.zeros(0, np.int64)
    place = np.searchsorted(ascending, keys)
    found = ascending.take(place, mode="clip") == keys
    return found, place[found]


def _places(index: np.ndarray, shape: tuple[int, ...], block: int) -> Iterator[np.ndarray]:
    """Divides voxels into groups no lesion is part of two of: positions among the voxels, ascending.

    Voxels in blocks that do not touch are further apart than two dilations reach, being `block` or more voxels apart.
    """
    blocks = index // block
    occupied = np.zeros([-(-n // block) for n in shape], bool)
    occupied[tuple(blocks)] = True
    places, count = ndimage.label(occupied, np.ones((3,) * len(shape), bool))
    if count == 1 or count > MANY_PLACES:
        yield np.arange(index.shape[1])
        return
    place = places[tuple(blocks)]
    order = np.argsort(place, kind="stable")
    yield from np.split(order, np.searchsorted(place[order], np.arange(2, count + 1)))


def _in_file_order(voxels: np.ndarray, of: np.ndarray, count: int, shape: tuple[int, ...]) -> np.ndarray:
    """(count + 1,) the number that each lesion is to have, by its first voxel with the axes reversed."""
    key = np.ravel_multi_index(np.unravel_index(voxels, shape)[::-1], shape[::-1])
    first = np.full(count + 1, np.iinfo(np.int64).max)
    np.minimum.at(first, of, key)
    number = np.zeros(count + 1, np.int64)
    number[1 + np.argsort(first[1:])] = np.arange(1, count + 1)
    return number
