"""What every kind of modality offers: checking its entry in dataset.json, reading, caching, fitting and transforming."""
from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nnmiss.array_files import read_arrays
from nnmiss.classification.kinds.spec_checks import check_keys
from nnmiss.errors import NnmissError

COMMON_KEYS = ("type", "file", "encoder")


class Kind:
    """One kind of modality. Subclasses hold no state: everything is in `spec` and in what `fit` returns.

    `spec` is the modality's entry in dataset.json with its defaults filled in by `check_spec`. A raw value is what
    `read` returns for one sample: a NumPy array, or for tables a dictionary column -> cell. What differs between training
    splits is only decided in `fit`, on training samples; `read` and the cache know nothing of splits.
    """

    name: str
    keys: tuple[str, ...] = ()  # of the specification, besides COMMON_KEYS
    remedy = ""  # the end of a message about a shape: what to write in the specification

    def check_spec(self, spec: dict, where: str) -> dict:
        """`spec` with every default filled in. `where` begins its error messages ("dataset.json: modality 'image'").

        Raises NnmissError for unknown keys and values of the wrong type or range.
        """
        return check_keys(spec, (*COMMON_KEYS, *self.keys), where)

    def read(self, path: str | Path, spec: dict) -> Any:
        """The raw value in one file. Raises NnmissError that names the file, what it holds and what was expected."""
        raise NotImplementedError

    def read_file(self, path: str | Path, spec: dict) -> tuple[list[str], list[Any]]:
        """(ids, raw values) of a file that holds all samples: an npz with `ids` (n,) text and `values` (n, ...).

        Raises NnmissError for other content, repeated ids and values that `from_array` refuses.
        """
        ids, values = read_npz(path)
        return ids, [self.from_array(value, spec, f"{path}, id {name!r}") for name, value in zip(ids, values)]

    def from_array(self, array: np.ndarray, spec: dict, where: str) -> Any:
        """The raw value of one row of an npz's `values`. Raises NnmissError, beginning with `where`."""
        raise NotImplementedError

    def pack(self, values: list[Any], spec: dict) -> dict[str, np.ndarray]:
        """Raw values as plain arrays for the cache. Equal shapes are stacked, others laid end to end."""
        shapes = {value.shape for value in values}
        if len(shapes) == 1:
            return {"values": np.stack(values)}
        rank = max((value.ndim for value in values), default=0)
        return {"flat": np.concatenate([value.ravel() for value in values]) if values else np.zeros(0, np.float32),
                "shapes": np.array([value.shape for value in values], np.int64).reshape(len(values), rank)}

    def unpack(self, arrays: dict[str, np.ndarray], spec: dict) -> list[Any]:
        """The raw values that `pack` was given."""
        if "values" in arrays:
            return list(arrays["values"])
        ends = np.cumsum(arrays["shapes"].prod(1)) if len(arrays["shapes"]) else []
        return [arrays["flat"][end - shape.prod():end].reshape(shape) for shape, end in zip(arrays["shapes"], ends)]

    def misfits(self, values: list[Any], spec: dict, fitted: dict | None = None) -> dict[int, str]:
        """Position -> what is wrong, of raw values that do not go with `fitted` or, without it, with most of the others."""
        if fitted:
            expected, whose = tuple(fitted["raw_shape"]), "those of training have"
        else:
            expected, whose = next(iter(Counter(value.shape for value in values).most_common(1)), (None,))[0], "most have"
        return {i: f"shape {value.shape}, but {whose} {expected}{self.remedy}"
                for i, value in enumerate(values) if value.shape != expected}

    def raw_shape(self, values: list[Any], example: Any, spec: dict) -> list[int]:
        """Shape that raw values have, from the first one or the `example`. Raises NnmissError where there is none."""
        if not values and example is None:
            raise NnmissError(f"no sample has this modality, so its shape is unknown{self.remedy or ': leave it out'}")
        return list((values[0] if values else example).shape)

    def fit(self, values: list[Any], spec: dict, example: Any = None) -> dict:
        """Statistics of these raw values (training samples), as plain JSON.

        Where no training sample has the modality, `example` (any raw value, or None) tells the shape and the statistics are
        neutral. Raises NnmissError where that is not enough.
        """
        raise NotImplementedError

    def transform(self, values: list[Any], spec: dict, fitted: dict) -> Tensor | list[Tensor]:
        """Network inputs: (n, *shape) float32 or, for series, a list of n (T, F) float32."""
        raise NotImplementedError

    def augment(self, values: Tensor, spec: dict, fitted: dict, generator: torch.Generator) -> Tensor:
        """A training batch (B, *shape) after `transform`, changed at random. Default: unchanged."""
        return values

    def shape(self, values: list[Any], spec: dict) -> tuple[int | None, ...]:
        """Shape of one sample after `fit` and `transform`; the length of series is None. Default: that of the first."""
        out = self.transform(values[:1], spec, self.fit(values[:1], spec))
        return tuple(out.shape[1:]) if isinstance(out, Tensor) else (None, out[0].shape[1])

    def default_encoder(self, spec: dict, shape: tuple[int | None, ...], num_samples: int) -> dict:
        """The encoder for such samples: the hint `encoder` of the specification, else by a rule on shape and number."""
        raise NotImplementedError


def read_npz(path: str | Path) -> tuple[list[str], np.ndarray]:
    """`ids` and `values` of an npz. Raises NnmissError when it has other arrays or lengths, or ids come twice."""
    wanted = "expected an npz with the arrays ids (n,) of text and values (n, ...)"
    try:
        content = read_arrays(path)
        if not {"ids", "values"} <= set(content):
            raise NnmissError(f"{path} holds the arrays {', '.join(content) or 'none'}: {wanted}")
        ids, values = content["ids"], content["values"]
    except FileNotFoundError:
        raise NnmissError(f"{path} does not exist: {wanted}") from None
    except NnmissError:
        raise
    except Exception as error:  # zip, pickle and npy errors are all of them damage or another format
        raise NnmissError(f"{path} cannot be read ({error}): {wanted}, without Python objects") from None
    if ids.ndim != 1 or ids.dtype.kind != "U" or values.ndim < 1 or len(ids) != len(values):
        raise NnmissError(f"{path}: ids are {ids.dtype} {ids.shape}, values {values.dtype} {values.shape}: {wanted}")
    ids = ids.tolist()
    check_unique(ids, path)
    return ids, values


def check_unique(ids: list[str], path: str | Path) -> None:
    """Raises NnmissError when an id comes twice."""
    twice = [name for name, count in Counter(ids).items() if count > 1]
    if twice:
        raise NnmissError(f"{path}: id {twice[0]!r} comes more than once ({len(twice)} such ids): keep one row of each")
