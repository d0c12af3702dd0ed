"""Chest X-rays made small: shorter side to 256, middle 224 x 224 cut out, as grey PNG."""
from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from nnmiss.bounded_threads import in_threads
from nnmiss.dataset_conversion.mimic_cxr import Radiograph, image_path
from nnmiss.errors import NnmissError

MARGIN = 256 / 224  # of the shorter side before the middle is cut out, as usual for ImageNet networks


def ending(size: int) -> str:
    """Of the files that `write_images` writes."""
    return ".png" if size else ".jpg"


def write_images(source: str | os.PathLike, folder: Path, images: Mapping[str, Radiograph], size: int, num_threads: int,
                 disable_progress_bar: bool) -> dict[str, str]:
    """Writes `folder`/STAY.png for each stay; with size 0 copies the files as they are, as .jpg.

    Returns stay id -> what is wrong, for images that are absent or cannot be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    failed = {}
    work = partial(_write_one, source, folder, images, size)
    with closing(in_threads(work, images, num_threads)) as jobs:
        for stay, job in tqdm(jobs, total=len(images), desc="X-rays", disable=disable_progress_bar):
            try:
                job.result()
            except NnmissError as error:
                failed[stay] = str(error)
    return failed


def small_image(image: np.ndarray, size: int) -> np.ndarray:
    """(size, size) uint8 of an image (H, W) or (H, W, 3 or 4), 0..255 or 16 bit: shorter side resized, middle cut out."""
    from skimage.color import rgb2gray
    from skimage.transform import resize
    from skimage.util import img_as_float32

    grey = img_as_float32(image) if image.ndim == 2 else rgb2gray(image[..., :3])
    scale = round(size * MARGIN) / min(grey.shape)
    grey = resize(grey, [max(size, round(n * scale)) for n in grey.shape], order=1, anti_aliasing=scale < 1)
    top, left = ((n - size) // 2 for n in grey.shape)
    return np.round(grey[top:top + size, left:left + size].clip(0, 1) * 255).astype(np.uint8)


def _write_one(source: str | os.PathLike, folder: Path, images: Mapping[str, Radiograph], size: int, stay: str) -> None:
    from skimage.io import imread, imsave

    path = image_path(source, images[stay])
    target = folder / (stay + ending(size))
    try:
        image = imread(path)
        if image.ndim not in (2, 3) or min(image.shape[:2]) < 2:
            raise ValueError(f"its shape is {image.shape}")
        small = small_image(image, size) if size else None
    except Exception as error:  # every decoder has exceptions of its own for damage
        raise NnmissError(f"its X-ray {path} cannot be read ({error}): download it again") from None
    if small is None:
        shutil.copyfile(path, target)
    else:
        imsave(target, small, check_contrast=False)
