"""Writes a trained model as one zip: the network's weights without anything that runs, and no name of a case."""
from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import torch

from nnmiss import __version__
from nnmiss.atomic_files import LARGE_JSON_MB, read_json, replacing
from nnmiss.errors import NnmissError
from nnmiss.inference.checkpoints import entry, plain, read_checkpoint, trained_models
from nnmiss.inference.predictor import find_folds
from nnmiss.model_files.contents import MANIFEST, REQUIRED, Manifest, parse_manifest

NO_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that zip can say: the same model gives the same bytes
PLAIN_FILE = 0o100644 << 16
OF_CASES = ("validation_cases", "held_out_cases", "test_cases")  # of run.json


def export_model(model_folder: str | Path, output: str | Path, folds: list[int | str] | None = None,
                 checkpoint: str = "checkpoint_final.pth") -> Manifest:
    """Writes the zip of a trained model, a whole file or none.

    Case names are left out: of dataset.json the list of files, of run.json the lists of cases, and results.csv of the
    validation numbers its cases.

    Args:
        model_folder: nnUNet_results/DatasetXXX_Name/<Trainer>__<plans>__<configuration>.
        output: the zip; one that is there is replaced.
        folds: numbers or "all"; None: every numbered fold that has the checkpoint.
        checkpoint: name of the checkpoints.

    Raises:
        NnmissError: no such model or fold, a file that cannot be read, a checkpoint that is not nnmiss's, or a
            name that `parse_manifest` would refuse.
    """
    model_folder, output = Path(model_folder), Path(output)
    if not model_folder.is_dir():
        raise NnmissError(f"no trained model in {model_folder}: {trained_models(model_folder.parent)}")
    folds = find_folds(model_folder, checkpoint) if folds is None else folds
    names = [f"fold_{fold}" for fold in dict.fromkeys(folds)]
    first = read_checkpoint(model_folder / names[0] / checkpoint)
    path = model_folder / names[0] / checkpoint
    task = "classification" if "classes" in entry(first, path, "init_args", kind=dict) else "segmentation"
    files: dict[str, tuple[str, int]] = {}
    manifest = Manifest(model_folder.parent.name, model_folder.name, task, entry(first, path, "nnmiss", "method"),
                        tuple(names), checkpoint, files, __version__)
    del first
    with replacing(output, ".zip") as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in _contents(model_folder, names, checkpoint):
            files[name] = (hashlib.sha256(content).hexdigest(), len(content))
            _add(archive, f"{manifest.dataset}/{manifest.model}/{name}", content)
        parse_manifest(manifest.as_json(), str(output))  # nothing is written that could not be installed
        _add(archive, MANIFEST, _json(manifest.as_json()))
    return manifest


def inference_checkpoint(stored: dict, path: str | os.PathLike) -> dict:
    """What prediction needs of a checkpoint: weights, what they are weights of, and nothing of the training.

    Raises NnmissError when the checkpoint is not one of nnmiss.
    """
    made = entry(stored, path, "init_args", kind=dict)
    ours = {key: entry(stored, path, "nnmiss", key) for key in ("method", "stage")}
    ours |= {"modalities": list(entry(stored, path, "nnmiss", "modalities", kind=(list, tuple))), "inference_only": True}
    recovery = (stored["nnmiss"].get("state") or {}).get("recovery")  # of all_stage, for --save_reconstructions
    if isinstance(recovery, dict):
        ours["state"] = {"recovery": _weights(recovery)}
    keys = made.keys() if "classes" in made else ("configuration", "fold")  # else plans and dataset.json lie beside it
    return {"network_weights": _weights(stored["network_weights"]), "trainer_name": entry(stored, path, "trainer_name"),
            "init_args": plain({key: made[key] for key in keys if key in made}),
            "inference_allowed_mirroring_axes": plain(stored.get("inference_allowed_mirroring_axes")),
            "nnmiss": plain(ours)}


def _weights(weights: dict) -> dict[str, torch.Tensor]:
    """Copies on the CPU, each in memory of its own: a view would bring along all that it is a view of."""
    return {name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in weights.items()}


def _contents(model_folder: Path, folds: list[str], checkpoint: str) -> Iterator[tuple[str, bytes]]:
    """Path below the model's folder and content of every file."""
    for name in REQUIRED:
        content = read_json(model_folder / name, f"the model's {name}", ())
        yield name, _json({key: value for key, value in content.items() if key != "dataset"})
    if (model_folder / "dataset_fingerprint.json").is_file():
        yield "dataset_fingerprint.json", _json(read_json(model_folder / "dataset_fingerprint.json", "fingerprint",
                                                          max_mb=LARGE_JSON_MB))
    for fold in folds:
        path = model_folder / fold / checkpoint
        buffer = io.BytesIO()
        torch.save(inference_checkpoint(read_checkpoint(path), path), buffer)
        yield f"{fold}/{checkpoint}", buffer.getvalue()
        run = model_folder / fold / "run.json"
        if run.is_file():
            record = read_json(run, "run record", ())
            yield f"{fold}/run.json", _json({key: value for key, value in record.items() if key not in OF_CASES})
        fitted = model_folder / fold / "preprocessing.json"
        if fitted.is_file():
            yield f"{fold}/preprocessing.json", _json(read_json(fitted, "preprocessing of a model", max_mb=LARGE_JSON_MB))
        results = model_folder / fold / "validation" / "results.csv"
        if results.is_file():
            yield f"{fold}/validation/results.csv", _without_names(results)


def _without_names(results: Path) -> bytes:
    """results.csv with its cases, or samples, numbered."""
    try:
        table = pd.read_csv(results, dtype=str, keep_default_na=False)
    except ValueError as error:  # pandas' own errors are such
        raise NnmissError(f"{results} is damaged ({error}): run nnmiss_train --val, or remove it") from None
    for column in {"case", "sample_id"} & set(table.columns):
        table[column] = [f"case_{number:04d}" for number in pd.factorize(table[column])[0]]
    return table.to_csv(index=False).encode()


def _json(content: object) -> bytes:
    return (json.dumps(content, indent=4) + "\n").encode()


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    info = zipfile.ZipInfo(name, NO_DATE)
    info.create_system, info.external_attr = 3, PLAIN_FILE  # the same on every system
    info.compress_type = zipfile.ZIP_STORED if name.endswith(".pth") else zipfile.ZIP_DEFLATED  # weights hardly shrink
    archive.writestr(info, content)
