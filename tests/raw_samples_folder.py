"""A raw classification data set in a few lines: images and series by path, a table in one file, holes wherever wanted."""
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

MODALITIES = {
    "image": {"type": "image2d"},
    "ehr": {"type": "timeseries", "columns": {"rate": {"kind": "continuous", "normal": 80.0}}},
    "clinical": {"type": "table", "file": "tables/clinical.csv"},
}
LABELS = {"multiclass": {"0": "CN", "1": "MCI", "2": "AD"}, "binary": {"0": "alive", "1": "dead"},
          "multilabel": ["shock", "stroke; other", "sepsis"]}


def make_raw_folder(folder: Path, n: int = 20, task: str = "multiclass", split: bool = False, **changes) -> pd.DataFrame:
    """Writes `n` samples s00, s01, ..., two of each subject; every fourth lacks the image, every fifth the table row.

    With `split` subjects go to train, train, val, test in turn. `changes` go into dataset.json. Returns the manifest.
    """
    rng, ids = np.random.default_rng(0), [f"s{i:02d}" for i in range(n)]
    for name in ("image", "ehr", "tables"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    rows, table = [], []
    for i, name in enumerate(ids):
        np.save(folder / "image" / f"{name}.npy", rng.integers(0, 256, (8, 8), dtype=np.uint8))
        hours = np.arange(1 + i % 3)
        pd.DataFrame({"Hours": hours, "rate": 70.0 + i + hours}).to_csv(folder / "ehr" / f"{name}.csv", index=False)
        row = {"sample_id": name, "subject_id": f"p{i // 2:02d}"}
        row |= {"split": ("train", "train", "val", "test")[i // 2 % 4]} if split else {}
        classes = LABELS[task]
        row |= {label: str(int((i + k) % 3 == 0)) for k, label in enumerate(classes)} if task == "multilabel" else \
            {"label": str(i % len(classes))}
        rows.append(row | {"image": "" if i % 4 == 3 else f"image/{name}.npy", "ehr": f"ehr/{name}.csv"})
        if i % 5 != 4:
            table.append({"sample_id": name, "age": 40 + i, "sex": "fm"[i % 2]})
    pd.DataFrame(table).to_csv(folder / "tables" / "clinical.csv", index=False)
    manifest = pd.DataFrame(rows)
    write_manifest(folder, manifest)
    content = {"name": "tiny", "task": task, "labels": LABELS[task], "modalities": MODALITIES, **changes}
    (folder / "dataset.json").write_text(json.dumps(content))
    return manifest


def write_manifest(folder: Path, manifest: pd.DataFrame) -> None:
    """manifest.csv of this table."""
    manifest.to_csv(folder / "manifest.csv", index=False)
