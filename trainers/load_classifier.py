"""A trained classification model from its folder: network, preprocessing, and what its outputs mean."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from nnmiss.classification.description import Description, parse_description
from nnmiss.classification.preprocessing import load_preprocessing
from nnmiss.errors import NnmissError
from nnmiss.inference.checkpoints import read_checkpoint
from nnmiss.networks.memory_format import fastest_layout

from . import classifier_of_trainer


@dataclass(frozen=True)
class LoadedClassifier:
    """A model that is ready to predict.

    network: a MissingModalityClassifier in evaluation mode.
    fitted: its preprocessing (nnmiss.classification.preprocessing).
    checkpoint: the file it came from.
    """

    network: nn.Module
    method: str
    modalities: list[str]
    task: str
    classes: list[str]
    description: Description
    fitted: dict
    checkpoint: Path


def load_classifier(fold_folder: str | Path, checkpoint: str = "checkpoint_final.pth",
                    device: torch.device | str = "cpu") -> LoadedClassifier:
    """The model of one fold. Nothing in its files is run.

    Raises NnmissError when a file is absent or damaged, or the checkpoint is not of a classification method of ours.
    """
    path = Path(fold_folder) / checkpoint
    stored = read_checkpoint(path, device)
    made = stored.get("init_args", {})
    if "classes" not in made or "nnmiss" not in stored:
        raise NnmissError(f"{path} is not a classification model of nnmiss")
    trainer = classifier_of_trainer(stored["trainer_name"])
    shapes = {name: tuple(shape) for name, shape in made["shapes"].items()}
    network = trainer.build_classifier(made["configuration"], shapes, made["task"], made["classes"]).to(device)
    try:
        network.load_state_dict(stored["network_weights"])
    except RuntimeError as error:
        raise NnmissError(f"{path} does not fit the network it describes: {str(error).splitlines()[-1].strip()}") from None
    fastest_layout(network, torch.device(device))
    return LoadedClassifier(network.eval(), stored["nnmiss"]["method"], list(stored["nnmiss"]["modalities"]), made["task"],
                            list(made["classes"]), parse_description(made["dataset_json"], str(path)),
                            load_preprocessing(fold_folder), path)
