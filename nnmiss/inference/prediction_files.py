"""predictions.csv: a row per sample with the probability of every class, the prediction and the modalities used."""
from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from torch import Tensor

from nnmiss.atomic_files import replacing
from nnmiss.errors import NnmissError, shortened

FILE, RECORD = "predictions.csv", "predictions.json"
ID, PREDICTION, MODALITIES = "sample_id", "prediction", "modalities"


@dataclass(frozen=True)
class Predictions:
    """The content of one predictions.csv.

    ids: names of the samples, unique.
    probabilities: (R, C) float64, one column per class.
    used: name of the subset of modalities that each sample was predicted with.
    """

    ids: list[str]
    probabilities: np.ndarray
    used: list[str]

    def __len__(self) -> int:
        return len(self.ids)


def predicted(probabilities: np.ndarray, task: str) -> np.ndarray:
    """What is predicted: the most probable class, of two classes the second from 0.5 on; labels from 0.5 on.

    Args:
        probabilities: (R, C) float.
        task: multiclass, binary or multilabel.

    Returns:
        (R,) int, a class's number; for a multilabel task (R, C) bool.
    """
    if task == "multilabel":
        return probabilities >= 0.5
    return (probabilities[:, 1] >= 0.5).astype(int) if task == "binary" else probabilities.argmax(1)


def write_predictions(path: str | Path, ids: list[str], probabilities: np.ndarray | Tensor, task: str, classes: list[str],
                      used: list[str]) -> None:
    """Writes a predictions.csv atomically; the folder must be there.

    Args:
        probabilities: (R, C) float, nine digits of which are written: a float32 is read back as it was.
        used: name of the subset of modalities that each sample was predicted with, as "image+sound".
    """
    values = np.asarray(probabilities, float).reshape(len(ids), len(classes))
    chosen = predicted(values, task)
    names = (["|".join(c for c, on in zip(classes, row) if on) for row in chosen] if task == "multilabel"
             else [classes[i] for i in chosen])
    with replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([ID, *classes, PREDICTION, MODALITIES])
        writer.writerows([name, *(f"{p:.9g}" for p in row), prediction, subset]
                         for name, row, prediction, subset in zip(ids, values, names, used))


def read_predictions(path: str | Path, classes: list[str], task: str) -> Predictions:
    """Reads a predictions.csv, by columns, whoever wrote it.

    Raises:
        NnmissError: it is absent or no csv, has other columns, an id twice, or cells that are no probabilities.
    """
    path, columns = Path(path), [ID, *classes, PREDICTION, MODALITIES]
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            header = next(csv.reader(file), [])
        table = pd.read_csv(path, header=None, skiprows=1, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except FileNotFoundError:
        raise NnmissError(f"predictions {path} not found: give a folder that nnmiss_predict wrote to") from None
    except pd.errors.EmptyDataError:
        raise NnmissError(f"{path} has no rows: predict again") from None
    except (OSError, ValueError) as error:  # pandas' and csv's own errors are ValueErrors
        raise NnmissError(f"predictions {path} cannot be read as csv ({error})") from None
    if header != columns or table.shape[1] != len(columns):
        lacking = [c for c in columns if c not in header]
        lacks = f"; it lacks {shortened(lacking)}" if lacking else ""
        raise NnmissError(f"{path}: columns must be {shortened(columns, 8)} ({len(columns)} of them), got "
                          f"{shortened(header, 8)} ({len(header)}){lacks}")
    ids = table[0].tolist()
    if len(set(ids)) < len(ids):
        raise NnmissError(f"{path}: sample {table[0][table[0].duplicated()].iloc[0]} stands there twice")
    values = table.iloc[:, 1:-2].apply(pd.to_numeric, errors="coerce").to_numpy(float)
    _check(path, ids, values, task)
    return Predictions(ids, values, table.iloc[:, -1].tolist())


def _check(path: Path, ids: list[str], values: np.ndarray, task: str) -> None:
    bad = ~((values >= 0) & (values <= 1)).all(1)  # NaN is bad too
    if bad.any():
        raise NnmissError(f"{path}: sample {ids[bad.argmax()]} has cells that are no probabilities from 0 to 1")
    total = values.sum(1)
    apart = np.abs(total - 1) > 1e-3
    if task != "multilabel" and apart.any():
        which = int(apart.argmax())
        raise NnmissError(f"{path}: the probabilities of sample {ids[which]} add up to {total[which]:.4g}, expected 1, as "
                          "classes exclude each other")
