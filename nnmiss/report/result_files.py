"""What lies beside results and says of what they are: segmentations, dataset.json, modalities."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from nnmiss.atomic_files import read_json
from nnmiss.availability import modality_names
from nnmiss.errors import NnmissError

MANY_MODALITIES = 12  # names of all subsets are made to order rows; 2^12 of them take no time


def predictions_folder(folder: Path, summary: dict[str, Any]) -> Path | None:
    """Where the segmentations lie: as the evaluation says, where that is gone or unsaid the folder itself."""
    said = summary.get("sources")
    said = said.get("pred") if isinstance(said, dict) else None
    if isinstance(said, str) and Path(said).is_dir():
        return Path(said)
    return folder if any(p.is_dir() or p.name.endswith((".nii.gz", ".nii")) for p in folder.iterdir()) else None


def dataset_json_beside(folder: Path, pred: Path | None) -> dict | None:
    """dataset.json beside results or predictions, or of the trained model whose validation they are."""
    for place in [folder, folder.parent.parent, *([pred, pred.parent.parent] if pred else [])]:
        try:
            content = read_json(place / "dataset.json", "dataset.json", ("labels", "channel_names"))
            modality_names(content)
            return content
        except NnmissError:
            continue
    return None


def modalities_of(summary: dict[str, Any], dataset_json: dict | None, csv: Path) -> list[str]:
    """From summary.json, dataset.json, else the names that occur in results.csv, in their order."""
    names = summary.get("modalities")
    if not isinstance(names, list) or not names:
        names = modality_names(dataset_json) if dataset_json else _modalities_in(csv)
    names = [str(name) for name in names]
    if len(names) > MANY_MODALITIES:
        raise NnmissError(f"{csv}: {len(names)} modalities, a report has room for {MANY_MODALITIES}")
    return names


def _modalities_in(csv: Path) -> list[str]:
    try:
        subsets = pd.read_csv(csv, usecols=["subset"], dtype=str, keep_default_na=False)["subset"].unique()
    except (OSError, ValueError) as error:
        raise NnmissError(f"cannot read results {csv} ({error})") from None
    longest_first = sorted(subsets, key=lambda s: -s.count("+"))
    return list(dict.fromkeys(name for subset in longest_first for name in subset.split("+")))
