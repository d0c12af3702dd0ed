"""What a classification method may write, beside what segmentation has too: its network and its losses."""
from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn

from nnmiss.classification.sample_set import ModalityInput
from nnmiss.classification.tasks import num_outputs
from nnmiss.errors import NnmissError
from nnmiss.networks.encoders import parse_encoders
from nnmiss.networks.single_expert import build_expert

from .classification_settings import CHOICES, COMMON, LIMITS, NETWORK
from .shared_hooks import SharedHooks


class ClassificationHooks(SharedHooks):
    """Everything a method overrides, with its default; mixed into ClassificationTrainer, whose attributes it uses."""

    common, common_network, common_limits, common_choices = COMMON, NETWORK, LIMITS, CHOICES

    def losses(self, network: nn.Module, x: list[ModalityInput], target: Tensor, present: Tensor,
               **drawn: Tensor) -> dict[str, Tensor]:
        """The method's training objective.

        Args:
            network: what `stage_network` built.
            x: one input per modality of B samples; rows of samples that lack it hold anything.
            target: (B,) long, or (B, outputs) float, as SampleSet has it. `self.batch_rows` says which samples these are.
            present: (B, M) bool, what the network may be shown.
            drawn: what else `draw` gave, a row per sample.

        Returns:
            {"loss": scalar with gradient, and named parts to log}. Default: the task loss of what is present.
        """
        return {"loss": self.loss(network(x, present), target)}

    @classmethod
    def build_classifier(cls, configuration: dict, shapes: dict[str, tuple], task: str, classes: list[str]) -> nn.Module:
        """The network of inference, a MissingModalityClassifier, from what is stored with the model.

        Args:
            configuration: of the run's plans: "modalities" with their encoders, "feature_dim", "head", and
                "nnmiss" with the method's network_settings.
            shapes: modality -> shape of one sample, None for the length of series.
            task, classes: see nnmiss.classification.tasks.
        """
        raise NotImplementedError

    @property
    def alone(self) -> int | None:
        """The only modality that this stage reads, and its samples have; None: whatever they have."""
        return None

    def stage_network(self) -> nn.Module:
        """What this stage trains. Default: the network of inference; of `alone` its encoder with a head of its own."""
        if self.alone is None:
            return type(self).build_classifier(self.configuration, self.samples.shapes, self.task, self.classes)
        return build_expert(self.configuration, self.samples.shapes, num_outputs(self.task, self.classes),
                            self.modalities[self.alone])

    def training_cases(self, cases: list[str]) -> list[str]:
        """Which of `cases` this stage uses: all, or those that have the modality it reads alone."""
        return cases if self.alone is None else [case for case in cases if self.available[case][self.alone]]

    def draw(self, available: Tensor) -> dict[str, Tensor]:
        """As nnmiss.trainers.shared_hooks has it; of a stage that reads one modality alone that one."""
        if self.alone is None:
            return super().draw(available)
        return {"present": available & self.only(self.alone).to(available.device)}

    def only(self, modality: int) -> Tensor:
        """(M,) bool: the subset of one modality."""
        return torch.arange(len(self.modalities)) == modality


def configured(configuration: dict, settings: dict[str, object], network_settings: dict[str, object]) -> dict:
    """A plan's configuration with the settings of a run's network in it, where prediction finds them.

    Args:
        configuration: as planned.
        settings: of the run's last stage.
        network_settings: names of the method's own; they go into the block "nnmiss".

    Raises NnmissError for encoders or modalities that do not exist, or hidden layers that are no numbers.
    """
    made = deepcopy(configuration)
    for name, encoder in parse_encoders(settings["encoders"], list(made["modalities"])).items():
        planned = made["modalities"][name].get("encoder", {})  # its options hold for an encoder of the same name
        made["modalities"][name]["encoder"] = {**(planned if planned.get("name") == encoder["name"] else {}), **encoder}
    if settings["feature_dim"]:
        made["feature_dim"] = settings["feature_dim"]
    head = made.setdefault("head", {})
    if settings["hidden"]:
        head["hidden"] = _sizes(settings["hidden"])
    if settings["dropout"] >= 0:
        head["dropout"] = settings["dropout"]
    made["nnmiss"] = {**made.get("nnmiss", {}), **{key: settings[key] for key in network_settings}}
    return made


def _sizes(text: str) -> list[int]:
    if text == "none":
        return []
    try:
        sizes = [int(part) for part in text.split("+")]
    except ValueError:
        sizes = [0]
    if min(sizes) < 1:
        raise NnmissError(f"hidden={text} must be sizes of layers such as 64 or 512+128, or none")
    return sizes
