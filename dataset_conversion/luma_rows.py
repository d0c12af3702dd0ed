"""Finds the rows of LUMA: its tool's aligned ones, or pairs drawn from the unaligned tables."""
from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd

from nnmiss.dataset_conversion.drawing import shuffled
from nnmiss.dataset_conversion.frame_pickles import read_frame
from nnmiss.errors import NnmissError

# In LUMA's own order; its tool keeps the first 42 for training and test, the others as unknown classes.
CLASSES = [
    "man", "boy", "house", "woman", "girl", "table", "road", "horse", "dog", "ship", "bird", "mountain", "bed", "train",
    "bridge", "fish", "cloud", "chair", "cat", "baby", "castle", "forest", "television", "bear", "camel", "sea", "fox",
    "plain", "bus", "snake", "lamp", "clock", "lion", "tank", "palm", "rabbit", "pine", "cattle", "oak", "mouse", "frog",
    "ray", "bicycle", "truck", "elephant", "roses", "wolf", "telephone", "bee", "whale"]
SIDE = 32  # pixels, of CIFAR's images


def compiled_rows(folder: Path, val: float, seed: int) -> pd.DataFrame:
    """Columns sample_id, split, label, image, path, sound_label of the tool's train and test files, joined by position.

    `val` is the share of the training rows of each class that validates.
    Raises NnmissError when the files of a part have different numbers of rows.
    """
    parts = []
    for part in ("train", "test"):
        images = read_images(folder / f"image_data_{part}.pickle")
        sounds = read_list(folder / "audio" / f"datalist_{part}.csv", "path")
        if len(images) != len(sounds):
            raise NnmissError(f"{folder}: image_data_{part}.pickle has {len(images)} rows, audio/datalist_{part}.csv "
                              f"{len(sounds)}: they are aligned by position and must be of one run of its tool")
        parts.append(pd.DataFrame({
            "sample_id": [f"{part}_{i:05d}" for i in range(len(images))], "split": part, "label": images["label"],
            "image": images["image"], "path": sounds["path"], "sound_label": sounds["label"]}))
    rows = pd.concat(parts, ignore_index=True)
    training = rows[rows["split"] == "train"]
    for _, members in training.groupby("label"):
        order = shuffled(members.index.tolist(), "luma", seed)
        rows.loc[order[: round(val * len(order))], "split"] = "val"
    return rows


def drawn_pairs(folder: Path, pairs: int, val: float, test: float, seed: int) -> pd.DataFrame:
    """The columns of `compiled_rows`, of pairs drawn as MIND says: frequent classes, as many of each, split at random.

    `pairs` are drawn of each class that has so many; `val` and `test` are shares of all.
    Raises NnmissError when no class has enough.
    """
    whole = folder / "image_data_unprocessed.pickle"  # of the tool's get_unprocessed_data.py; else what it is made from
    paths = [whole] if whole.is_file() else [folder / "image_data.pickle", folder / "image_data_test.pickle"]
    images = pd.concat(map(read_images, paths), ignore_index=True)
    sounds = read_list(folder / "audio" / "datalist.csv", "path")
    counts = {name: min(int((t["label"] == name).sum()) for t in (images, sounds)) for name in CLASSES}
    frequent = [name for name, count in counts.items() if count >= pairs > 0]
    if len(frequent) < 2:
        most = max(counts.values(), default=0)
        raise NnmissError(f"--pairs {pairs}: fewer than two classes have as many images and recordings "
                          f"(at most {most})")
    drawn = []
    for name in frequent:
        shown, heard = (t.loc[shuffled(t.index[t["label"] == name].tolist(), "luma", seed, which)[:pairs]]
                        .reset_index(drop=True) for which, t in (("image", images), ("sound", sounds)))
        drawn.append(pd.DataFrame({"sample_id": [f"{name}_{i:04d}" for i in range(pairs)], "label": name,
                                   "image": shown["image"], "path": heard["path"], "sound_label": name}))
    rows = pd.concat(drawn, ignore_index=True)
    order = shuffled(range(len(rows)), "luma", seed, "split")
    held, stop = round(test * len(rows)), round(test * len(rows)) + round(val * len(rows))
    rows["split"] = "train"
    rows.loc[order[:held], "split"] = "test"
    rows.loc[order[held:stop], "split"] = "val"
    return rows


def read_images(path: Path) -> pd.DataFrame:
    """Columns image and label of a pickle, rows numbered from 0. Raises NnmissError as `read_frame`, or without them."""
    table = read_frame(path)
    _need(table, ("image", "label"), path)
    return table[["image"]].assign(label=[str(label) for label in table["label"]])


def read_list(path: Path, column: str) -> pd.DataFrame:
    """Columns `column` ("path" of recordings, "text") and label of a csv or tsv, in its order. Raises NnmissError."""
    try:
        table = pd.read_csv(path, sep="\t" if path.suffix == ".tsv" else ",", dtype=str, keep_default_na=False)
    except FileNotFoundError:
        raise NnmissError(f"{path} does not exist") from None
    except (ValueError, OSError) as error:  # pandas' own errors are ValueErrors
        raise NnmissError(f"{path} cannot be read as a table ({error})") from None
    _need(table, (column, "label"), path)
    return table[[column, "label"]]


def image_array(cell: object) -> np.ndarray | None:
    """(32, 32, 3) uint8, or None when the cell is no such image."""
    if isinstance(cell, np.ndarray) and cell.dtype == np.uint8 and cell.shape == (SIDE, SIDE, 3):
        return cell
    return None


def recording_path(folder: Path, cell: str) -> Path | None:
    """The file that a cell of the list names, or None when it would lie outside the folder."""
    path = Path(os.path.normpath(folder / cell))
    return path if cell and path.is_relative_to(os.path.normpath(folder)) else None


def _need(table: pd.DataFrame, columns: tuple[str, ...], path: Path) -> None:
    lacking = [name for name in columns if name not in table]
    if lacking:
        raise NnmissError(f"{path} lacks the column {' and '.join(lacking)}, it has {', '.join(map(str, table.columns))}")
