"""Small files in the official form of classification data sets, and what the tests of their converters share."""
from __future__ import annotations

import gzip
import json
import os
import wave
from pathlib import Path

import numpy as np
import pandas as pd
from skimage.io import imsave

from nnmiss.classification.description import read_description
from nnmiss.classification.integrity import check_dataset
from nnmiss.classification.raw_samples import RawSamples, read_raw_samples

REAL_DATA = Path(os.environ.get("NNMISS_TEST_DATA") or Path(__file__).parents[2] / "shared" / "data")


def write_wav(path: Path, seconds: float = 0.1, rate: int = 8000, seed: int = 0) -> Path:
    """Noise, 16 bit, mono."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(seed).integers(-3000, 3000, max(1, int(seconds * rate)))
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").tobytes())
    return path


def write_image(path: Path, side: int = 12, seed: int = 0) -> Path:
    """A colour picture, JPEG or PNG by the ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    imsave(path, np.random.default_rng(seed).integers(0, 256, (side, side, 3)).astype(np.uint8), check_contrast=False)
    return path


def write_mnist(folder: Path, per_digit: int = 110, seed: int = 0) -> Path:
    """Four idx files with `per_digit` images of each digit in both halves; of one of them the compressed form."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for prefix in ("train", "t10k"):
        labels = rng.permutation(np.repeat(np.arange(10), per_digit)).astype(np.uint8)
        images = rng.integers(0, 256, (len(labels), 28, 28)).astype(np.uint8)
        for name, array in ((f"{prefix}-images-idx3-ubyte", images), (f"{prefix}-labels-idx1-ubyte", labels)):
            content = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()
            if prefix == "train":
                (folder / f"{name}.gz").write_bytes(gzip.compress(content))
            else:
                (folder / name).write_bytes(content)
    return folder


def write_recordings(folder: Path, speakers=("jackson", "nicolas", "theo"), takes: int = 50) -> Path:
    """A short recording of every digit, speaker and take."""
    for number, (digit, speaker, take) in enumerate((d, s, t) for d in range(10) for s in speakers for t in range(takes)):
        write_wav(folder / f"{digit}_{speaker}_{take}.wav", 0.01, seed=number)
    return folder


def manifest_of(folder: Path) -> pd.DataFrame:
    """manifest.csv, every cell as text, by sample id."""
    return pd.read_csv(folder / "manifest.csv", dtype=str, keep_default_na=False).set_index("sample_id", drop=False)


def content_of(folder: Path, name: str = "dataset.json") -> dict:
    """A JSON file of the data set."""
    return json.loads((folder / name).read_text())


def values_of(folder: Path, name: str) -> dict[str, np.ndarray]:
    """id -> value of an npz."""
    with np.load(folder / name, allow_pickle=False) as arrays:
        return dict(zip(arrays["ids"].tolist(), arrays["values"]))


def read_back(folder: Path) -> RawSamples:
    """The samples as planning reads them, after its integrity check; fails when one of them is bad."""
    description = read_description(folder)
    check_dataset(folder, description)
    raw, bad = read_raw_samples(folder, description, show_progress=False)
    assert not bad
    return raw
