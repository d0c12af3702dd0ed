"""Reads the .npy files of S-MNIST: written digits, spoken digits as MFCC, labels."""
from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np

from nnmiss.errors import NnmissError

FRAMES, COEFFICIENTS = 39, 13  # of a spoken digit: 12 MFCC and an energy in windows of 50 ms, every 25 ms


@dataclass(frozen=True)
class Half:
    """The training or the test files. written (N, 784), spoken (N, 507): memory-mapped. labels (N,) from 0 to 9."""

    written: np.ndarray
    spoken: np.ndarray
    labels: np.ndarray
    as_bytes: bool  # whether `written` counts from 0 to 255; else from 0 to 1

    def images(self, rows: list[int]) -> np.ndarray:
        """(n, 28, 28) uint8."""
        values = np.asarray(self.written[rows], np.float64).reshape(-1, 28, 28)
        return np.rint(values if self.as_bytes else 255 * values).clip(0, 255).astype(np.uint8)

    def sounds(self, rows: list[int]) -> np.ndarray:
        """(n, 1, 39, 13) float32."""
        return np.asarray(self.spoken[rows], np.float32).reshape(-1, 1, FRAMES, COEFFICIENTS)

    def clip(self, row: int) -> str:
        """A name for the recording of a row: the database repeats clips, and repeated ones have the same name."""
        return blake2b(np.ascontiguousarray(self.spoken[row]).tobytes(), digest_size=6).hexdigest()


def read_half(folder: Path, part: str) -> Half:
    """data_wr_PART.npy, data_sp_PART.npy and labels_PART.npy. Raises NnmissError for other content, naming the file."""
    paths = {kind: folder / f"{kind}_{part}.npy" for kind in ("data_wr", "data_sp", "labels")}
    arrays = {}
    for kind, path in paths.items():
        try:
            arrays[kind] = np.load(path, mmap_mode="r", allow_pickle=False)
        except FileNotFoundError:
            raise NnmissError(f"{path} does not exist: -i takes the folder of data_wr_train.npy, data_sp_train.npy, "
                              "labels_train.npy and the same for test") from None
        except (ValueError, EOFError, OSError) as error:
            raise NnmissError(f"{path} cannot be read as an array of numbers ({error}): download it again") from None
    labels = arrays["labels"]
    labels = labels.argmax(1) if labels.ndim == 2 and labels.shape[1] == 10 else labels  # one-hot in some copies
    widths = {"data_wr": 784, "data_sp": FRAMES * COEFFICIENTS}
    for kind, width in widths.items():
        if arrays[kind].ndim < 2 or np.prod(arrays[kind].shape[1:]) != width or len(arrays[kind]) != len(labels):
            raise NnmissError(f"{paths[kind]} has shape {arrays[kind].shape}, expected ({len(labels)}, {width}) as there "
                              f"are {len(labels)} labels in {paths['labels'].name}")
        arrays[kind] = arrays[kind].reshape(len(labels), width)
        if not np.isfinite(arrays[kind]).all():
            raise NnmissError(f"{paths[kind]} holds NaN or infinite numbers: download it again")
    labels = np.asarray(labels).reshape(-1)
    if not len(labels) or (labels != labels.astype(np.int64)).any() or labels.min() < 0 or labels.max() > 9:
        raise NnmissError(f"{paths['labels']} must hold digits from 0 to 9")
    return Half(arrays["data_wr"], arrays["data_sp"], labels.astype(np.int64), float(arrays["data_wr"].max()) > 1)
