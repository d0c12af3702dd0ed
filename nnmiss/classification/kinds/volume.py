"""Volumes: NIfTI or .npy, resampled to one size and standardised each by its own voxels."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nnmiss.classification.kinds.base import Kind
from nnmiss.classification.kinds.encoder_rules import volume_encoder
from nnmiss.classification.kinds.npy_files import numbers, read_npy
from nnmiss.classification.kinds.spec_checks import one_of, sizes
from nnmiss.errors import NnmissError
from nnmiss.nifti_header import require_sound_header


class VolumeKind(Kind):
    """Raw value: (1, D, H, W) float32."""

    name = "volume"
    keys = ("size", "normalisation")
    remedy = ': give "size": [D, H, W] in dataset.json'

    def check_spec(self, spec: dict, where: str) -> dict:
        spec = super().check_spec(spec, where)
        spec["size"] = sizes(spec, "size", 3, where)
        spec["normalisation"] = one_of(spec, "normalisation", ("zscore", "none"), where)
        return spec

    def read(self, path: str | Path, spec: dict) -> np.ndarray:
        array = read_npy(path) if str(path).lower().endswith(".npy") else read_nifti(path)
        return self.from_array(array, spec, str(path))

    def from_array(self, array: np.ndarray, spec: dict, where: str) -> np.ndarray:
        """(D, H, W), with axes of length one before or behind, as (1, D, H, W) of `size`."""
        shape = array.shape
        while array.ndim > 3 and 1 in (array.shape[0], array.shape[-1]):
            array = array[0] if array.shape[0] == 1 else array[..., 0]
        if array.ndim != 3:
            raise NnmissError(f"{where} holds an array of shape {shape}, expected one volume of three axes")
        array = numbers(array, where)
        return (resampled(array, spec["size"]) if spec["size"] else array)[None]

    def raw_shape(self, values: list, example: np.ndarray | None, spec: dict) -> list[int]:
        return [1, *spec["size"]] if spec["size"] else super().raw_shape(values, example, spec)

    def fit(self, values: list, spec: dict, example: np.ndarray | None = None) -> dict:
        """{"raw_shape"}: each volume is standardised by itself, so nothing else is fitted."""
        return {"raw_shape": self.raw_shape(values, example, spec)}

    def transform(self, values: list, spec: dict, fitted: dict) -> Tensor:
        """Standardised over the voxels that are not 0; those stay 0."""
        out = torch.empty(len(values), *fitted["raw_shape"])
        for i, value in enumerate(values):
            inside = value != 0
            if spec["normalisation"] == "zscore" and inside.any():
                mean, sd = value[inside].mean(dtype=np.float64), value[inside].std(dtype=np.float64)
                value = np.where(inside, (value - mean) / (sd if sd > 0 else 1.0), 0)
            out[i] = torch.from_numpy(value)
        return out

    def default_encoder(self, spec: dict, shape: tuple[int | None, ...], num_samples: int) -> dict:
        return dict(spec.get("encoder") or volume_encoder(shape, num_samples))


def read_nifti(path: str | Path) -> np.ndarray:
    """The voxels of a NIfTI, axes (z, y, x) of the nearest RAS orientation. Raises NnmissError when it cannot be read."""
    import nibabel

    require_sound_header(path)
    try:
        image = nibabel.as_closest_canonical(nibabel.load(path))
        array = np.asarray(image.dataobj)
    except FileNotFoundError:
        raise NnmissError(f"{path} does not exist") from None
    except Exception as error:  # damage shows as errors of gzip, zlib, struct or nibabel
        raise NnmissError(f"{path} cannot be read as NIfTI ({error}): expected a whole .nii, .nii.gz or .npy") from None
    return array.transpose(*range(3, array.ndim), 2, 1, 0) if array.ndim >= 3 else array


def resampled(volume: np.ndarray, size: list[int]) -> np.ndarray:
    """(D, H, W) float32 of `size`, linear, with a Gaussian against aliasing where it shrinks."""
    from skimage.transform import resize

    if list(volume.shape) == size:
        return volume
    return resize(volume, size, order=1, mode="edge", anti_aliasing=True, preserve_range=True).astype(np.float32)
