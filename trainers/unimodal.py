"""A classifier that reads one modality alone: the bound that every multimodal method must beat."""
from __future__ import annotations

from torch import nn

from nnmiss.availability import match_modality
from nnmiss.classification.tasks import num_outputs
from nnmiss.errors import NnmissError
from nnmiss.networks.single_expert import build_expert

from .classification import ClassificationTrainer
from .stages import Stage


class nnMissClassifierUnimodal(ClassificationTrainer):
    """The encoder of one modality with its published head, trained on every sample that has it."""

    method = "unimodal"
    stages = (Stage("train", epochs=50, drop_modalities=False),)  # SMIL's train_mnist.py
    hyperparameters = {"schedule": "step", "lr_step": 20}
    network_settings = {"subset": ""}  # the modality's name; there is no default
    unused = ("feature_dim", "hidden", "dropout")  # experts have the heads they are published with
    presets = {
        "paper": {},  # SMIL's image model: Adam 1e-3, weight decay 1e-4, batches of 64
        "smil_sound": {"num_epochs": 35, "lr_decay": 0.5, "lr_step": 10, "batch_size": 16},  # theirs: batches of 4
    }

    @classmethod
    def prepare(cls, block, modalities, preprocessed_folder):
        if not block["subset"]:
            raise NnmissError(f"unimodal needs the modality it reads: --set subset=NAME, of {', '.join(modalities)}")
        return []

    @classmethod
    def stages_of(cls, modalities, settings):
        if settings["subset"]:
            match_modality(settings["subset"], modalities)  # refuses unknown names before anything is written
        return cls.stages

    @classmethod
    def build_classifier(cls, configuration, shapes, task, classes) -> nn.Module:
        """The modality's encoder with its own head, as a network of all modalities."""
        names = list(configuration["modalities"])
        name = names[match_modality(configuration["nnmiss"]["subset"] or names[0], names)]
        return build_expert(configuration, shapes, num_outputs(task, classes), name)

    @property
    def alone(self):
        return match_modality(self.configuration["nnmiss"]["subset"] or self.modalities[0], self.modalities)
