"""Reads a file of embeddings that somebody made of the texts of a data set."""
from __future__ import annotations

import os

import numpy as np

from nnmiss.classification.kinds.base import read_npz
from nnmiss.errors import NnmissError, shortened


def read_embeddings(path: str | os.PathLike, samples: set[str]) -> tuple[list[str], np.ndarray]:
    """(ids, values (n, D) float32) of those of `samples` that an npz with `ids` (n,) and `values` (n, D) holds.

    Raises NnmissError as `read_npz`, for values that are no finite vectors, and when it has none of the samples.
    """
    ids, values = read_npz(path)
    if values.ndim != 2 or not values.shape[1] or values.dtype.kind not in "fiu":
        raise NnmissError(f"{path} holds values of {values.dtype} and shape {values.shape}: expected vectors (n, D)")
    keep = [i for i, name in enumerate(ids) if name in samples]
    if not keep:
        raise NnmissError(f"{path} has none of the samples: its ids are as {shortened(ids, 3)}, the samples' as "
                          f"{shortened(sorted(samples), 3)}")
    values = values[keep].astype(np.float32)
    strange = [ids[i] for i, row in zip(keep, values) if not np.isfinite(row).all()]
    if strange:
        raise NnmissError(f"{path}: embeddings with NaN or infinite numbers: {shortened(strange, 5)}")
    return [ids[i] for i in keep], values
