"""A trained classification model from its folder: network, preprocessing, and what its outputs mean."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from nnmiss.classification.description import Description, parse_description
from nnmiss.classification.preprocessing import load_preprocessing
from nnmiss.errors import NnmissError
from nnmiss.inference.checked_build import build_checked
from nnmiss.inference.checkpoints import entry, read_checkpoint
from nnmiss.networks.memory_format import fastest_layout
from nnmiss.plain_names import shown

from . import classifier_of_trainer

LARGEST_NUMBER, MOST_LAYERS, MOST_ENTRIES = 2**27, 64, 1024  # of a plan: features, layers, and entries of a list


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
    made, modalities = described_network(stored, path), entry(stored, path, "nnmiss", "modalities", kind=(list, tuple))
    trainer = classifier_of_trainer(entry(stored, path, "trainer_name"))
    shapes = {name: tuple(shape) for name, shape in made["shapes"].items()}
    network = build_checked(
        lambda: trainer.build_classifier(made["configuration"], shapes, made["task"], made["classes"]),
        {str(path): stored["network_weights"]}, str(path)).to(device)
    network.load_state_dict(stored["network_weights"])
    fastest_layout(network, torch.device(device))
    return LoadedClassifier(network.eval(), entry(stored, path, "nnmiss", "method"), list(modalities), made["task"],
                            list(made["classes"]), parse_description(made["dataset_json"], str(path)),
                            load_preprocessing(fold_folder), path)


def described_network(stored: dict, path: Path) -> dict:
    """"init_args" of a checkpoint of classification, with entries of the right types and bounded numbers.

    Raises NnmissError when it is of another kind, or asks for what no encoder has, such as a billion layers.
    """
    made = stored.get("init_args")
    if not isinstance(made, dict) or "classes" not in made or "nnmiss" not in stored:
        raise NnmissError(f"{path} is not a classification model of nnmiss")
    kinds = {"configuration": dict, "shapes": dict, "classes": (list, tuple), "dataset_json": dict, "task": str}
    for key, kind in kinds.items():
        entry(stored, path, "init_args", key, kind=kind)
    entry(stored, path, "init_args", "configuration", "modalities", kind=dict)
    named = [("shapes", list(made["shapes"].values())), ("configuration", made["configuration"])]
    while named:
        key, value = named.pop()
        if isinstance(value, dict):
            named += value.items()
        elif isinstance(value, list | tuple) and len(value) <= MOST_ENTRIES:
            named += [(key, inner) for inner in value]
        elif isinstance(value, list | tuple) or (
                isinstance(value, int | float) and not abs(value) <= (MOST_LAYERS if key == "layers" else LARGEST_NUMBER)):
            raise NnmissError(f"{path}: {key} of its network is {shown(value)}, beyond what any network has")
    return made
