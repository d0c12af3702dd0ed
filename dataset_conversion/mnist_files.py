"""Reads MNIST's four idx files, compressed or not."""
from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnmiss.errors import NnmissError

# md5 of the uncompressed files as LeCun, Cortes and Burges published them.
CANONICAL = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
PARTS = {"train": "train", "test": "t10k"}


@dataclass(frozen=True)
class Digits:
    """One half of MNIST: images (N, 28, 28) uint8, labels (N,) uint8 from 0 to 9, in the order of the files."""

    images: np.ndarray
    labels: np.ndarray

    def positions(self, digit: int) -> list[int]:
        """Where this digit stands, ascending."""
        return np.flatnonzero(self.labels == digit).tolist()


@dataclass(frozen=True)
class Mnist:
    """Both halves; other: names of files whose content is not the published one."""

    train: Digits
    test: Digits
    other: list[str]

    def notes(self) -> list[str]:
        """What to say about files that differ from the published ones."""
        if not self.other:
            return []
        return [f"these files are not the published MNIST, so neither are the pairs: {', '.join(self.other)}"]


def is_mnist_folder(folder: str | os.PathLike) -> bool:
    """Whether one of the four files lies in `folder`."""
    return any(_found(Path(folder), name) for name in CANONICAL)


def read_mnist(folder: str | os.PathLike) -> Mnist:
    """MNIST from the folder that holds its four idx files (train-images-idx3-ubyte, ..., also with .gz).

    Raises NnmissError for a file that is absent, truncated, or not what its name says.
    """
    other: list[str] = []
    halves = {}
    for part, prefix in PARTS.items():
        images = _read_idx(Path(folder), f"{prefix}-images-idx3-ubyte", 3, other)
        labels = _read_idx(Path(folder), f"{prefix}-labels-idx1-ubyte", 1, other)
        if len(images) != len(labels) or images.shape[1:] != (28, 28) or (labels > 9).any():
            raise NnmissError(f"{folder}: {prefix}-images holds {len(images)} images of {images.shape[1]} x "
                              f"{images.shape[2]}, {prefix}-labels {len(labels)} labels up to {labels.max(initial=0)}; "
                              "expected as many labels, 0 to 9, as images of 28 x 28: download both again")
        halves[part] = Digits(images, labels)
    return Mnist(halves["train"], halves["test"], other)


def _found(folder: Path, name: str) -> Path | None:
    """The file under its own name, that of other mirrors (train-images.idx3-ubyte), or either with .gz."""
    names = [name, name.replace("-idx", ".idx")]
    return next((folder / n for n in [*names, *(f"{n}.gz" for n in names)] if (folder / n).is_file()), None)


def _read_idx(folder: Path, name: str, axes: int, other: list[str]) -> np.ndarray:
    """The array of an idx file of unsigned bytes; its name is put into `other` when it is not the published one."""
    path = _found(folder, name)
    if path is None:
        raise NnmissError(f"{folder} has no {name} (or {name}.gz): -i takes the folder with MNIST's four idx files")
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    except (OSError, EOFError, zlib.error) as error:
        raise NnmissError(f"{path} cannot be read ({error}): download it again") from None
    head = 4 + 4 * axes
    if content[:4] != bytes([0, 0, 8, axes]) or len(content) < head:
        raise NnmissError(f"{path} is no idx file of unsigned bytes with {axes} axes: download it again")
    shape = np.frombuffer(content, ">u4", axes, 4).tolist()
    if len(content) - head != np.prod(shape):
        raise NnmissError(f"{path} holds {len(content) - head} bytes, its header says {shape}: it is truncated or damaged, "
                          "download it again")
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != CANONICAL[name]:
        other.append(path.name)
    return np.frombuffer(content, np.uint8, offset=head).reshape(shape)
