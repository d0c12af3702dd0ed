"""Keeps what was read from a raw classification data set as plain arrays, so that training opens few files."""
from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import numpy as np
import torch

from nnmiss.array_files import read_arrays
from nnmiss.atomic_files import LARGE_JSON_MB, read_json, replacing, writable_folder, write_json
from nnmiss.classification.description import CONFIGURATION as CONFIGURATION  # the folder it is kept in
from nnmiss.classification.description import parse_description
from nnmiss.classification.kinds import KINDS
from nnmiss.classification.raw_samples import RawSamples
from nnmiss.errors import NnmissError

INDEX = "samples.json"
AGAIN = "run nnmiss_plan_and_preprocess again"


def write_raw_samples(raw: RawSamples, folder: str | Path) -> None:
    """Writes one npz per modality, targets.npz and, last, samples.json, each atomically; other npz files are removed.

    samples.json holds the files' hashes, so that it alone tells a training whether the data are those it was begun with.
    While samples.json is not there the folder counts as empty, so an interrupted call leaves nothing that is read.
    """
    folder = writable_folder(folder)
    (folder / INDEX).unlink(missing_ok=True)
    for old in folder.glob("*.npz"):
        old.unlink()
    _write(folder / "targets.npz", {"targets": raw.targets.numpy()})
    files = {}
    for number, (name, spec) in enumerate(raw.description.modalities.items()):
        files[name] = f"modality_{number}.npz"
        _write(folder / files[name], {"row": raw.row[name].numpy(), **KINDS[spec["type"]].pack(raw.values[name], spec)})
    write_json(folder / INDEX, {"dataset_json": raw.description.content, "ids": raw.ids, "groups": raw.groups,
                                "split": raw.split, "files": files,
                                "sha256": {name: _sha256(folder / name) for name in ("targets.npz", *files.values())}})


def load_raw_samples(folder: str | Path) -> RawSamples:
    """What `write_raw_samples` wrote. Raises NnmissError when it is absent, damaged or of another version."""
    folder = Path(folder)
    index = read_json(folder / INDEX, f"preprocessed samples (made by nnmiss_plan_and_preprocess), {INDEX},",
                      ("dataset_json", "ids", "groups", "split", "files"), max_mb=LARGE_JSON_MB)
    description = parse_description(index["dataset_json"], str(folder / INDEX))
    targets = torch.from_numpy(_read(folder / "targets.npz", ("targets",))["targets"])
    values, row = {}, {}
    for number, (name, spec) in enumerate(description.modalities.items()):
        path = folder / f"modality_{number}.npz"  # as they were written: no path is taken from the index
        arrays = _read(path, ("row",))
        row[name] = torch.from_numpy(arrays.pop("row"))
        values[name] = KINDS[spec["type"]].unpack(arrays, spec)
        if len(row[name]) != len(index["ids"]) or len(values[name]) != int((row[name] >= 0).sum()):
            raise NnmissError(f"{path} does not fit {folder / INDEX}: {AGAIN}")
    return RawSamples(description, index["ids"], index["groups"], index["split"], targets, values, row)


def _write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with replacing(path) as temporary:
        np.savez(temporary, **arrays)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def _read(path: Path, needed: tuple[str, ...]) -> dict[str, np.ndarray]:
    try:
        arrays = read_arrays(path)
    except (OSError, EOFError, MemoryError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise NnmissError(f"preprocessed samples {path} cannot be read ({error}): {AGAIN}") from None
    if set(needed) - set(arrays):
        raise NnmissError(f"{path} lacks {', '.join(needed)}: {AGAIN}")
    return arrays
