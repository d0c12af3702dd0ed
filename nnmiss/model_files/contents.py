"""What a model's zip holds: its manifest, and the files that may be in it."""
from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from nnmiss.errors import NnmissError, shortened
from nnmiss.plain_names import name_fault, shown

FORMAT, VERSION = "nnmiss model", 1
MANIFEST = "manifest.json"
MODEL_FILES = ("plans.json", "dataset.json", "dataset_fingerprint.json")
REQUIRED = ("plans.json", "dataset.json")
FOLD = re.compile(r"fold_(\d{1,4}|all)", re.ASCII)
FOLD_FILE = re.compile(
    FOLD.pattern + r"/(checkpoint_\w{1,40}\.pth|run\.json|preprocessing\.json|validation/results\.csv)", re.ASCII)
DATASET = re.compile(r"Dataset\d{3,}_.+")
SHA256 = re.compile(r"[0-9a-f]{64}")
LARGEST_TEXT = 2**30  # bytes of a JSON or CSV file


@dataclass(frozen=True)
class Manifest:
    """A manifest that was checked.

    Attributes:
        dataset: DatasetXXX_Name.
        model: <Trainer>__<plans>__<configuration>, the folder's name.
        task: "segmentation" or "classification".
        method: such as metakd.
        folds: folder names, as fold_0.
        checkpoint: name of the checkpoints, as checkpoint_final.pth.
        files: path below the model's folder -> (sha256 in hexadecimal, bytes).
        nnmiss_version: that wrote it.
    """

    dataset: str
    model: str
    task: str
    method: str
    folds: tuple[str, ...]
    checkpoint: str
    files: dict[str, tuple[str, int]]
    nnmiss_version: str

    @property
    def trainer(self) -> str:
        """Name of the trainer's class."""
        return self.model.partition("__")[0]

    @property
    def plans(self) -> str:
        """The plans' name with the tag behind it, as -p takes it."""
        return self.model.split("__")[1]

    @property
    def configuration(self) -> str:
        return self.model.split("__")[2]

    def as_json(self) -> dict[str, Any]:
        """What stands in manifest.json."""
        return {"format": FORMAT, "version": VERSION, "nnmiss_version": self.nnmiss_version, "dataset": self.dataset,
                "model": self.model, "task": self.task, "method": self.method, "folds": list(self.folds),
                "checkpoint": self.checkpoint,
                "files": {name: {"sha256": digest, "bytes": size} for name, (digest, size) in sorted(self.files.items())}}


def parse_manifest(content: dict, where: str) -> Manifest:
    """Checks the content of a manifest.json. Raises NnmissError, beginning with `where`, for everything unexpected."""
    if content.get("format") != FORMAT:
        raise NnmissError(f"{where} is of another format ({shown(content.get('format'))}): nnmiss_export_model writes "
                          f"{FORMAT!r}")
    version = content.get("version")
    if type(version) is not int or version != VERSION:
        raise NnmissError(f"{where} has format version {shown(version)}, this nnmiss reads {VERSION}: install a newer "
                          "nnmiss, or export the model again with this one")
    texts = {key: content.get(key) for key in ("dataset", "model", "task", "method", "checkpoint", "nnmiss_version")}
    for key, text in texts.items():
        if name_fault(text):
            raise NnmissError(f"{where}: {key} {shown(text)} cannot be used: {name_fault(text)}")
    if not DATASET.fullmatch(texts["dataset"]):
        raise NnmissError(f"{where}: dataset is {shown(texts['dataset'])}, expected a name as Dataset012_Tumour")
    if len(texts["model"].split("__")) != 3 or not all(texts["model"].split("__")):
        raise NnmissError(f"{where}: model is {shown(texts['model'])}, expected TRAINER__PLANS__CONFIGURATION")
    folds, listed = content.get("folds"), content.get("files")
    if not isinstance(folds, list) or not folds or not all(isinstance(f, str) and FOLD.fullmatch(f) for f in folds) \
            or len(set(folds)) < len(folds):
        raise NnmissError(f"{where}: folds are {shown(folds)}, expected a list as fold_0, fold_1 or fold_all")
    if not isinstance(listed, dict):
        raise NnmissError(f"{where} lists no files")
    files = {name: _entry(name, entry, where) for name, entry in listed.items()}
    manifest = Manifest(folds=tuple(folds), files=files, **texts)
    _check_files(manifest, where)
    return manifest


def _entry(name: str, entry: Any, where: str) -> tuple[str, int]:
    if name not in MODEL_FILES and not FOLD_FILE.fullmatch(name):
        raise NnmissError(f"{where} lists {shown(name)}, which is no file of a model")
    digest, size = (entry.get("sha256"), entry.get("bytes")) if isinstance(entry, dict) else (None, None)
    if not isinstance(digest, str) or not SHA256.fullmatch(digest) or type(size) is not int or size < 0:
        raise NnmissError(f"{where}: {name} must have a sha256 and a number of bytes, got {shown(entry)}")
    if not name.endswith(".pth") and size > LARGEST_TEXT:
        raise NnmissError(f"{where}: {name} has {size:,} bytes, more than any such file")
    return digest, size


def _check_files(manifest: Manifest, where: str) -> None:
    """Everything that prediction needs, and no fold that is not named."""
    of_fold = [manifest.checkpoint, *(["preprocessing.json"] if manifest.task == "classification" else [])]
    needed = [*REQUIRED, *[f"{fold}/{name}" for fold in manifest.folds for name in of_fold]]
    lacking = [name for name in needed if name not in manifest.files]
    if lacking:
        raise NnmissError(f"{where} lacks {shortened(lacking)}: export the model again")
    strange = [name for name in manifest.files if "/" in name and name.partition("/")[0] not in manifest.folds]
    strange += [name for name in manifest.files if name.endswith(".pth") and name.rpartition("/")[2] != manifest.checkpoint]
    if strange:
        raise NnmissError(f"{where} lists {shown(strange[0])}, which is of no fold that it names, or another checkpoint")
