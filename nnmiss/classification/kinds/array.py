"""Arrays of numbers (genotypes, radiomics, laboratory panels) and precomputed embeddings."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nnmiss.classification.kinds.base import Kind
from nnmiss.classification.kinds.encoder_rules import image_encoder, mlp_encoder, series_encoder, volume_encoder
from nnmiss.classification.kinds.npy_files import numbers, read_npy
from nnmiss.classification.kinds.scaling import SCALINGS, scaling_of
from nnmiss.classification.kinds.spec_checks import one_of, sizes
from nnmiss.errors import NnmissError


class ArrayKind(Kind):
    """Raw value: float32 of one shape; NaN where a feature is missing, which gets the mean of the training samples."""

    name = "array"
    keys = ("shape", "scaling")
    scalings = ("zscore", "minmax", "none")
    remedy = ': every array needs the same shape, or the same size and a "shape" in dataset.json'

    def check_spec(self, spec: dict, where: str) -> dict:
        spec = super().check_spec(spec, where)
        spec["shape"] = sizes(spec, "shape", (1, 2, 3, 4), where)
        spec["scaling"] = one_of(spec, "scaling", self.scalings, where)
        return spec

    def read(self, path: str | Path, spec: dict) -> np.ndarray:
        return self.from_array(read_npy(path), spec, str(path))

    def from_array(self, array: np.ndarray, spec: dict, where: str) -> np.ndarray:
        array = numbers(array, where, missing=True)
        if not spec["shape"]:
            return array.ravel()
        if array.size != np.prod(spec["shape"]):
            raise NnmissError(f"{where} holds an array of shape {array.shape}, which cannot become the \"shape\" "
                              f"{spec['shape']} of dataset.json")
        return array.reshape(spec["shape"])

    def raw_shape(self, values: list, example: np.ndarray | None, spec: dict) -> list[int]:
        return spec["shape"] or super().raw_shape(values, example, spec)

    def fit(self, values: list, spec: dict, example: np.ndarray | None = None) -> dict:
        """{"raw_shape", "fill", "shift", "scale"}: flat lists; x becomes (x - shift) / scale, NaN becomes fill first."""
        shape = self.raw_shape(values, example, spec)
        table = np.array(values, np.float64).reshape(len(values), int(np.prod(shape)))
        known = ~np.isnan(table)
        fill = np.where(known, table, 0).sum(0) / np.maximum(known.sum(0), 1)  # (F,)
        shift, scale = SCALINGS[spec["scaling"]](np.where(known, table, fill))
        return {"raw_shape": list(shape), "fill": fill.tolist(), "shift": shift.tolist(), "scale": scale.tolist()}

    def transform(self, values: list, spec: dict, fitted: dict) -> Tensor:
        table = np.array(values, np.float64).reshape(len(values), len(fitted["fill"]))
        table = np.where(np.isnan(table), np.array(fitted["fill"]), table)
        table = scaling_of(table, fitted["shift"], fitted["scale"])
        return torch.from_numpy(table.astype(np.float32)).reshape(len(values), *fitted["raw_shape"])

    def default_encoder(self, spec: dict, shape: tuple[int | None, ...], num_samples: int) -> dict:
        by_rank = {1: mlp_encoder, 2: series_encoder, 3: image_encoder, 4: volume_encoder}
        return dict(spec.get("encoder") or by_rank[len(shape)](shape, num_samples))


class EmbeddingKind(ArrayKind):
    """Vectors that another network made, of text for example: as arrays, but kept as they are by default."""

    name = "embedding"
    scalings = ("none", "zscore", "minmax")
