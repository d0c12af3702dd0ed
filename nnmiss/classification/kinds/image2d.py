"""Images: PNG, JPEG and others that scikit-image reads, kept as uint8 until they are normalised."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from nnmiss.classification.kinds.base import Kind
from nnmiss.classification.kinds.encoder_rules import image_encoder
from nnmiss.classification.kinds.image_augmentation import chest_xray
from nnmiss.classification.kinds.npy_files import read_npy
from nnmiss.classification.kinds.spec_checks import one_of, sizes
from nnmiss.errors import NnmissError

LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as most image libraries turn colours to grey
IMAGENET = {"mean": [255 * m for m in (0.485, 0.456, 0.406)], "sd": [255 * s for s in (0.229, 0.224, 0.225)]}


class ImageKind(Kind):
    """Raw value: (C, H, W) uint8."""

    name = "image2d"
    keys = ("channels", "size", "resize", "normalisation", "augmentation")
    remedy = ': give "size": [H, W] and "channels" in dataset.json'

    def check_spec(self, spec: dict, where: str) -> dict:
        spec = super().check_spec(spec, where)
        spec["channels"] = one_of(spec, "channels", (None, 1, 3), where)
        spec["size"] = sizes(spec, "size", 2, where)
        spec["resize"] = one_of(spec, "resize", ("stretch", "crop"), where)
        spec["normalisation"] = one_of(spec, "normalisation", ("zscore", "half", "imagenet"), where)
        spec["augmentation"] = one_of(spec, "augmentation", ("none", "cxr"), where)
        if spec["normalisation"] == "imagenet":
            if spec["channels"] == 1:
                raise NnmissError(f'{where}: "normalisation": "imagenet" is for three channels, "channels" is 1')
            spec["channels"] = 3
        return spec

    def read(self, path: str | Path, spec: dict) -> np.ndarray:
        if str(path).lower().endswith(".npy"):
            return self.from_array(read_npy(path), spec, str(path))
        from skimage.io import imread

        try:
            array = imread(path)
            array = _rgb_of_ink(path, array) if array.ndim == 3 and array.shape[2] == 4 else array
        except FileNotFoundError:
            raise NnmissError(f"{path} does not exist") from None
        except Exception as error:  # every decoder has exceptions of its own for damage
            raise NnmissError(f"{path} cannot be read as an image ({_first_line(error)}): expected a whole PNG or JPEG "
                              "file, or .npy") from None
        return self.from_array(array, spec, str(path))

    def from_array(self, array: np.ndarray, spec: dict, where: str) -> np.ndarray:
        """(H, W) or (H, W, 1 to 4), of which 2 and 4 are with alpha, bool, uint8 or uint16, as the raw value."""
        if array.ndim == 2:
            array = array[..., None]
        if array.ndim != 3 or array.shape[2] > 4 or not array.size:
            raise NnmissError(f"{where} holds an image of shape {array.shape}, expected (H, W) or (H, W, channels) with 1 "
                              "or 3 channels, alpha aside")
        if array.dtype == bool:
            array = array.astype(np.uint8) * 255
        if array.dtype == np.uint16:
            array = np.round(array / 257).astype(np.uint8)  # 65535 = 257 * 255
        if array.dtype != np.uint8:
            raise NnmissError(f"{where} holds an image of {array.dtype}, expected uint8 or uint16")
        colours = array[..., :3] if array.shape[2] >= 3 else array[..., :1]  # alpha left out
        if spec["channels"] == 1 and colours.shape[2] == 3:
            colours = np.round(colours @ LUMA).astype(np.uint8)[..., None]
        if spec["channels"] == 3 and colours.shape[2] == 1:
            colours = colours.repeat(3, 2)
        image = np.ascontiguousarray(colours.transpose(2, 0, 1))
        return resized(image, spec["size"], spec["resize"]) if spec["size"] else image

    def raw_shape(self, values: list, example: np.ndarray | None, spec: dict) -> list[int]:
        if spec["size"] and spec["channels"]:
            return [spec["channels"], *spec["size"]]
        return super().raw_shape(values, example, spec)

    def fit(self, values: list, spec: dict, example: np.ndarray | None = None) -> dict:
        """{"raw_shape", "mean", "sd"}: per channel, in units of 0 to 255."""
        shape = self.raw_shape(values, example, spec)
        if spec["normalisation"] == "imagenet":
            return {"raw_shape": shape, **IMAGENET}
        if spec["normalisation"] == "half" or not values:
            return {"raw_shape": shape, "mean": [127.5] * shape[0], "sd": [127.5] * shape[0]}
        counts = sum(np.stack([np.bincount(channel.ravel(), minlength=256) for channel in value]) for value in values)
        levels, n = np.arange(256), counts.sum(1)  # counts: (C, 256), exact whatever the number of images
        mean = counts @ levels / n
        sd = np.sqrt((counts * (levels - mean[:, None]) ** 2).sum(1) / n)
        return {"raw_shape": shape, "mean": mean.tolist(), "sd": np.where(sd > 0, sd, 1.0).tolist()}

    def transform(self, values: list, spec: dict, fitted: dict) -> Tensor:
        out = torch.empty(len(values), *fitted["raw_shape"])
        mean, sd = (torch.tensor(fitted[key], dtype=torch.float32).view(-1, 1, 1) for key in ("mean", "sd"))
        for i, value in enumerate(values):
            out[i] = (torch.from_numpy(value) - mean) / sd
        return out

    def augment(self, values: Tensor, spec: dict, fitted: dict, generator: torch.Generator) -> Tensor:
        if spec["augmentation"] == "none":
            return values
        black = -torch.tensor(fitted["mean"]) / torch.tensor(fitted["sd"])
        return chest_xray(values, black.to(values).view(-1, 1, 1), generator)

    def default_encoder(self, spec: dict, shape: tuple[int | None, ...], num_samples: int) -> dict:
        return dict(spec.get("encoder") or image_encoder(shape, num_samples))


def resized(image: np.ndarray, size: list[int], how: str) -> np.ndarray:
    """(C, H, W) uint8 of `size` [H, W], bilinear with antialiasing.

    how: "stretch" changes the aspect; "crop" keeps it, fits the tighter side and cuts the other at both ends.
    """
    height, width = image.shape[1:]
    if [height, width] == size:
        return image
    target = list(size)
    if how == "crop":
        ratio = max(size[0] / height, size[1] / width)
        target = [max(size[0], round(height * ratio)), max(size[1], round(width * ratio))]
    out = F.interpolate(torch.from_numpy(image)[None].float(), target, mode="bilinear", antialias=True)[0]
    top, left = (target[0] - size[0]) // 2, (target[1] - size[1]) // 2
    return out[:, top:top + size[0], left:left + size[1]].round().clamp(0, 255).to(torch.uint8).numpy()


def _rgb_of_ink(path: str | Path, array: np.ndarray) -> np.ndarray:
    """(H, W, 4) as it is, or (H, W, 3) where the four are inks (CMYK, as in JPEGs for print) and not colours with alpha."""
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")) if image.mode == "CMYK" else array


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
