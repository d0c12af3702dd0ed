"""Finished teachers that several runs of a data set use: nnUNet_results/DatasetXXX_Name/shared_teachers/<hash>.pth.

The hash covers everything that makes a teacher: data, split, missing table, fold, seed, encoder, settings of its stage.
"""
from __future__ import annotations

import os
import shutil
from pathlib import Path

from nnmiss.atomic_files import read_json, replacing
from nnmiss.errors import NnmissError
from nnmiss.inference.checkpoints import read_checkpoint

from .classification_settings import COMMON
from .run_record import digest

FOLDER = "shared_teachers"
SAME = ("data_sha256", "configuration_sha256", "splits_sha256", "fold", "seed")  # of run.json


def shared_teacher(trainer) -> Path | None:
    """Where the teacher of a trainer's stage lies once any run has finished it; None for a run without a folder."""
    record = trainer.fold_folder and Path(trainer.fold_folder) / "run.json"
    if not record or not record.is_file():
        return None
    run = read_json(record, "run record", (*SAME, "missing", "versions"))
    modality, number = trainer.teacher
    made_of = {
        **{key: run[key] for key in SAME},
        "missing": run["missing"] and run["missing"]["sha256"],
        "nnmiss": run["versions"]["nnmiss"],
        "stage": trainer.stage.name,
        "encoder": trainer.teacher_encoder(modality, number),
        "planned": trainer.configuration["modalities"][trainer.modalities[modality]],
        "settings": {key: getattr(trainer, key) for key in sorted(COMMON) if key != "save_every"},
    }
    return Path(trainer.fold_folder).parent.parent / FOLDER / f"{digest(made_of)[:32]}.pth"


def take(path: Path, trainer) -> bool:
    """Makes a finished teacher the final checkpoint of a trainer's stage; False when there is none, or a damaged one."""
    if not path.is_file():
        return False
    try:
        read_checkpoint(path)
    except NnmissError as error:
        print(f"note: {error}; the teacher is trained again")
        return False
    _share(path, Path(trainer.output_folder) / "checkpoint_final.pth")
    print(f"{trainer.stage.name}: trained by an earlier run, taken from {FOLDER}/{path.name}")
    return True


def keep(path: Path, trainer) -> None:
    """Offers the final checkpoint of a trainer's stage to other runs."""
    path.parent.mkdir(exist_ok=True)
    _share(Path(trainer.output_folder) / "checkpoint_final.pth", path)


def _share(source: Path, target: Path) -> None:
    """One file under two names where the disk can do that, else a copy; the target is whole or not there."""
    with replacing(target) as temporary:
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)
