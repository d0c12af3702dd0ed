"""Runs of methods with teachers, stage after stage, without a data set on disk."""
from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

import torch
from tiny_classification import make_classifier

from nnmiss.inference.checkpoints import read_checkpoint
from nnmiss.trainers.classification_curves import Curves

SMALL = "image:lenet+lenet+lenet"  # teachers of images; those of the other kinds are small anyway


def run_stages(method: str, fold, folder: Path, listed: str = SMALL, until: str = "", **settings):
    """Trains all stages, or those before `until`, which is started only; returns the last stage's trainer."""
    if not method.startswith("vanilla"):
        settings["teacher_encoders"] = listed
    stages = make_classifier(method, fold, initialize=False, **settings).stages
    for stage in stages:
        trainer = make_classifier(method, fold, stage.name, folder, **settings)
        trainer.begin_stage(checkpoints(folder))
        trainer.recall(checkpoints(folder))
        if stage.name == until:
            break
        with patch.object(Curves, "write"):  # drawing takes longer than training here
            trainer.run_training()
    return trainer


def checkpoints(folder: Path):
    """The final checkpoint of an earlier stage, by its name."""
    return lambda stage: read_checkpoint(Path(folder) / f"stage_{stage}" / "checkpoint_final.pth")


def batch_losses(trainer, rows: torch.Tensor) -> tuple[dict, dict]:
    """(losses, heads) of a batch of training rows, in evaluation mode, so that dropout changes nothing."""
    trainer.network.eval()
    trainer.batch_rows = rows
    x, target = trainer.samples.inputs(rows), trainer.samples.targets[rows]
    present = trainer.available_of([trainer.samples.ids[row] for row in rows.tolist()])
    return trainer.losses(trainer.network, x, target, present), trainer.network.heads(x, present)
