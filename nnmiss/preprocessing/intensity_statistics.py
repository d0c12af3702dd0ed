"""Intensity statistics of each channel's foreground, equal to nnU-Net's to the last bit and cheaper to get."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

PERCENTILES = (0.5, 50.0, 99.5)
SEED = 1234  # of DatasetFingerprintExtractor.collect_foreground_intensities
AT_ONCE = 2**20  # draws; their places take 8 MB, in parts they are the same numbers


@dataclass
class ForegroundSample:
    """The foreground voxels of one case, from which nnU-Net draws with replacement, channel after channel.

    nnU-Net's workers draw 10^8 / cases values a channel and send them home: with few cases that is gigabytes. Here a
    case with fewer voxels than draws sends its voxels and the random state, and the draws happen one channel at a time.
    """

    values: dict[int, np.ndarray]  # channel -> (n,) foreground voxels, or the draws themselves when n is larger
    random_state: np.random.RandomState | None  # None: `values` are the draws

    def count(self, channel: int, num_samples: int) -> int:
        """How many values `draw` gives."""
        return num_samples if self.random_state is not None else len(self.values[channel])

    def draw(self, channel: int, out: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Puts the draws into `out` (count,) and gives up the channel, so that its memory is free again.

        Channels must be asked for in order, each once: the random state advances as nnU-Net's does.

        Returns:
            The values that the draws come from, and how often each was drawn (None: once each).
        """
        values = self.values.pop(channel)
        if self.random_state is None:
            out[:] = values
            return values, None
        counts = np.zeros(len(values), dtype=np.int64)
        for part in np.split(out, range(AT_ONCE, len(out), AT_ONCE)):
            index = self.random_state.randint(0, len(values), len(part))  # what RandomState.choice draws
            part[:] = values[index]
            counts += np.bincount(index, minlength=len(values))
        return values, counts


def sample_foreground(seg: np.ndarray, images: np.ndarray, channels: list[int], num_samples: int) -> ForegroundSample:
    """Collects the foreground of one case (see ForegroundSample).

    Args:
        seg: (1, *spatial), foreground is > 0.
        images: (A, *spatial) float32.
        channels: the channel index of each of the A images, ascending.
        num_samples: how many values are drawn per channel.
    """
    mask = seg[0] > 0
    random_state = np.random.RandomState(SEED)
    voxels = {c: image[mask] for c, image in zip(channels, images)}
    count = int(mask.sum())
    if count == 0:  # nnU-Net adds an empty list, which makes its array float64
        return ForegroundSample({c: np.zeros(0, dtype=np.float64) for c in channels}, None)
    if num_samples > count:
        return ForegroundSample(voxels, random_state)
    return ForegroundSample({c: v[random_state.randint(0, count, num_samples)] for c, v in voxels.items()}, None)


def channel_statistics(samples: list[ForegroundSample], channel: int, num_samples: int) -> dict[str, float] | None:
    """nnU-Net's foreground intensity properties of one channel over the cases that have it; None without foreground.

    Takes the channel out of `samples`; ask for the channels in order. The draws, up to 400 MB, are in memory once (twice
    where percentiles need a sorted copy), where nnU-Net has all channels' three times.
    """
    having = [sample for sample in samples if channel in sample.values]
    counts = [sample.count(channel, num_samples) for sample in having]
    if sum(counts) == 0:
        return None
    pooled = np.empty(sum(counts), np.result_type(*(sample.values[channel] for sample in having)))
    drawn = [sample.draw(channel, out) for sample, out in zip(having, np.split(pooled, np.cumsum(counts)[:-1]))]
    lowest, median, highest = _percentiles(pooled, drawn)
    return {
        "mean": float(np.mean(pooled)),
        "median": float(median),
        "min": float(np.min(pooled)),
        "max": float(np.max(pooled)),
        "percentile_99_5": float(highest),
        "percentile_00_5": float(lowest),
        "std": _std_in_place(pooled),
    }


def _std_in_place(values: np.ndarray) -> float:
    """np.std(values), by its own steps, without its second array; `values` are lost."""
    values -= np.mean(values, keepdims=True)
    np.square(values, out=values)
    return float(np.sqrt(np.mean(values)))


def _percentiles(pooled: np.ndarray, drawn: list[tuple[np.ndarray, np.ndarray | None]]) -> np.ndarray:
    """np.percentile(pooled, PERCENTILES); where few voxels were drawn often, from their counts (40 times faster).

    Empties `drawn`.
    """
    if 4 * sum(len(values) for values, _ in drawn) > pooled.size:
        drawn.clear()
        return np.percentile(pooled, PERCENTILES)
    values = np.concatenate([v for v, _ in drawn]).astype(pooled.dtype, copy=False)
    counts = np.concatenate([np.ones(len(v), dtype=np.int64) if n is None else n for v, n in drawn])
    order = np.argsort(values, kind="stable")
    values, last = values[order], np.cumsum(counts[order])
    result = []
    for percentile in PERCENTILES:
        rank = np.true_divide(percentile, 100) * (pooled.size - 1)
        below = int(np.floor(rank))
        neighbours = values[np.searchsorted(last, [below, min(below + 1, pooled.size - 1)], side="right")]
        result.append(np.quantile(neighbours, rank - below))  # numpy's own interpolation between the two
    return np.array(result)
