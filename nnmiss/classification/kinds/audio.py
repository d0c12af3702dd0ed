"""Sound as a picture of it: read from wav, turned into MFCC or a spectrogram once, then normalised."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nnmiss.classification.kinds.audio_features import check_feature, feature_shape, picture, read_wave
from nnmiss.classification.kinds.base import Kind
from nnmiss.classification.kinds.encoder_rules import sound_encoder
from nnmiss.classification.kinds.npy_files import numbers
from nnmiss.classification.kinds.scaling import zscore
from nnmiss.classification.kinds.spec_checks import one_of
from nnmiss.errors import NnmissError


class AudioKind(Kind):
    """Raw value: the picture (1, rows, columns) float32, so that the cache saves the transform."""

    name = "audio"
    keys = ("feature", "normalisation")

    def check_spec(self, spec: dict, where: str) -> dict:
        spec = super().check_spec(spec, where)
        spec["feature"] = check_feature(spec.get("feature", {}), where)
        spec["normalisation"] = one_of(spec, "normalisation", ("zscore", "half_raw"), where)
        return spec

    def read(self, path: str | Path, spec: dict) -> np.ndarray:
        return picture(*read_wave(path, spec["feature"]["sample_rate"]), spec["feature"])

    def from_array(self, array: np.ndarray, spec: dict, where: str) -> np.ndarray:
        """A ready picture, (rows, columns) or (1, rows, columns)."""
        if array.ndim == 2:
            array = array[None]
        if array.ndim != 3 or len(array) != 1:
            raise NnmissError(f"{where} holds an array of shape {array.shape}, expected a picture (rows, columns)")
        return numbers(array, where)

    def raw_shape(self, values: list, example: np.ndarray | None, spec: dict) -> list[int]:
        if not values and example is None:
            return feature_shape(spec["feature"])
        return super().raw_shape(values, example, spec)

    def fit(self, values: list, spec: dict, example: np.ndarray | None = None) -> dict:
        """{"raw_shape", "mean", "sd"}: per row of the picture, over samples and columns, padding included."""
        shape = self.raw_shape(values, example, spec)
        if spec["normalisation"] == "half_raw":
            mean = sd = np.full(shape[1], 0.5)
        else:
            columns = np.stack(values)[:, 0].transpose(0, 2, 1).astype(np.float64) if values else np.zeros((0, shape[1]))
            mean, sd = zscore(columns.reshape(-1, shape[1]))
        return {"raw_shape": shape, "mean": mean.tolist(), "sd": sd.tolist()}

    def transform(self, values: list, spec: dict, fitted: dict) -> Tensor:
        if not values:
            return torch.empty(0, *fitted["raw_shape"])
        mean, sd = (np.array(fitted[key])[:, None] for key in ("mean", "sd"))
        return torch.from_numpy(((np.stack(values) - mean) / sd).astype(np.float32))

    def default_encoder(self, spec: dict, shape: tuple[int | None, ...], num_samples: int) -> dict:
        return dict(spec.get("encoder") or sound_encoder(shape, num_samples))
