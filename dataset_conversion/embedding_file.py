"""Reads a file of embeddings that somebody made of the texts of a data set."""
from __future__ import annotations

import os

import numpy as np

from nnmiss.errors import NnmissError, shortened


def read_embeddings(path: str | os.PathLike, samples: set[str]) -> tuple[list[str], np.ndarray]:
    """(ids, values (n, D) float32) of those of `samples` that an npz with `ids` (n,) and `values` (n, D) holds.

    Raises NnmissError for another file, ids that come twice, values that are no finite numbers, or none of the samples.
    """
    wanted = "expected an npz with ids (n,) of text and values (n, D)"
    try:
        with np.load(path, allow_pickle=False) as arrays:
            ids, values = [str(i) for i in arrays["ids"]], arrays["values"]
    except FileNotFoundError:
        raise NnmissError(f"{path} does not exist: {wanted}") from None
    except Exception as error:  # zip, pickle and npy errors are all of them damage or another format
        raise NnmissError(f"{path} cannot be read ({error}): {wanted}, without Python objects") from None
    if values.ndim != 2 or len(values) != len(ids) or values.dtype.kind not in "fiu":
        raise NnmissError(f"{path} holds {len(ids)} ids and values of shape {values.shape}: {wanted}")
    if len(set(ids)) < len(ids):
        raise NnmissError(f"{path}: ids come twice: {shortened(sorted({i for i in ids if ids.count(i) > 1}), 3)}")
    keep = [i for i, name in enumerate(ids) if name in samples]
    if not keep:
        raise NnmissError(f"{path} has none of the samples: its ids are as {shortened(ids, 3)}, the samples' as "
                          f"{shortened(sorted(samples), 3)}")
    values = values[keep].astype(np.float32)
    strange = [ids[i] for i, row in zip(keep, values) if not np.isfinite(row).all()]
    if strange:
        raise NnmissError(f"{path}: embeddings with NaN or infinite numbers: {shortened(strange, 5)}")
    return [ids[i] for i in keep], values
