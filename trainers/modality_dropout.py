"""The baseline every method must beat: stock nnU-Net's network and training, with channels dropped at random."""
from __future__ import annotations

import torch
from torch import Tensor, nn

from nnmiss.availability import Present, parse_subset
from nnmiss.classification.tasks import num_outputs
from nnmiss.networks.architecture import build_unet
from nnmiss.networks.early_fusion_unet import EarlyFusionUNet
from nnmiss.networks.shared_features import build_shared_features

from .base import MissingModalityTrainer, network_block
from .classification import ClassificationTrainer
from .stages import Stage


class nnMissTrainerModalityDropout(MissingModalityTrainer):
    """nnU-Net's loss, optimiser and schedule; absent and dropped channels are zeros (after augmentation).

    With its settings also the bounds that methods are measured against: `dropout=false train_on=complete` is stock
    nnU-Net on complete cases, which knows no zeros (lower bound); `subset=flair+t1` is a network of its own for one subset,
    trained and validated on the cases that have it (upper bound).
    """

    method = "modality_dropout"
    stages = (Stage("train", epochs=1000),)
    hyperparameters = {
        "dropout": True,  # False: every modality that a case has is always shown
        "train_on": "all",  # or "complete": only cases that have every modality
        "full_task": 0.0,  # above 0 each step also shows all that a case has; weight of its loss (twice the cost)
    }
    # modality names joined by +: only these are ever shown, to cases that have them all; prediction knows it from the plans
    # `width` multiplies the plan's features; the plan's own width_factor is that of networks with an encoder per modality
    network_settings = {"subset": "", "width": 1.0}
    limits = {"full_task": (0, 100), "width": (0.05, 8)}
    choices = {"train_on": ("all", "complete")}

    @classmethod
    def stages_of(cls, modalities, settings):
        if settings["subset"]:
            parse_subset(settings["subset"], modalities)  # refuses unknown names before anything is written
        return cls.stages

    @classmethod
    def without_effect(cls, settings):
        idle = ("subset_sampling", "full_task") if settings["subset"] or not settings["dropout"] else ()
        return {**super().without_effect(settings), **dict.fromkeys(idle, "dropout=true and all subsets")}

    @property
    def shown(self) -> Present | None:
        """The one subset of a dedicated network; None for all others."""
        subset = network_block(self.configuration_manager).get("subset")
        return parse_subset(subset, self.modalities) if subset else None

    @staticmethod
    def build_network_architecture(plans_manager, configuration_manager, num_input_channels, num_output_channels,
                                   enable_deep_supervision=True) -> nn.Module:
        """Stock nnU-Net's network of the plan; its parameters keep stock's names."""
        width = network_block(configuration_manager).get("width", 1.0)
        unet = build_unet(configuration_manager, num_input_channels, num_output_channels, enable_deep_supervision, width)
        return EarlyFusionUNet(unet, num_input_channels)

    def training_cases(self, cases: list[str]) -> list[str]:
        """The cases that have what `subset` or `train_on` ask for; without either all of them."""
        if self.train_on == "complete":
            cases = [case for case in cases if all(self.available[case])]
        return cases if self.shown is None else [case for case in cases if has(self.available[case], self.shown)]

    def draw_present(self, available: Tensor) -> Tensor:
        """A random subset of what a case has, all of it without `dropout`, or always `subset`."""
        if self.shown is not None:
            return available & torch.tensor(self.shown, device=available.device)
        return super().draw_present(available) if self.dropout else available

    def validation_subset(self, number: int) -> Present:
        return super().validation_subset(number) if self.shown is None else self.shown

    def reported_subsets(self) -> list[Present]:
        return super().reported_subsets() if self.shown is None else [self.shown]

    def draw(self, available):
        return {**super().draw(available), **({"available": available} if self.full_task else {})}

    def losses(self, network, x, target, present, available=None):
        """nnU-Net's task loss of a random subset, and of the full set with `full_task`, from one call of the network."""
        if available is None:
            return {"loss": self.loss(network(x, present), target)}
        both = network(torch.cat([x, x]), torch.cat([present, available]))  # (2 B, K, *patch), or one for each scale
        both = both if isinstance(both, list) else [both]
        subset, full = zip(*(logits.chunk(2) for logits in both))
        target = target if isinstance(target, list) else [target]
        task, full = self.loss_of_scales(subset, target), self.loss_of_scales(full, target)
        return {"loss": task + self.full_task * full, "task": task, "full": full}

    def loss_of_scales(self, logits, target) -> Tensor:
        """nnU-Net's loss, which takes lists with deep supervision and tensors without."""
        return self.loss(list(logits), target) if self.enable_deep_supervision else self.loss(logits[0], target[0])


def has(available: Present, subset: Present) -> bool:
    """Whether a case has every modality of a subset."""
    return all(a or not s for a, s in zip(available, subset))


class nnMissClassifierModalityDropout(ClassificationTrainer):
    """`fusion` shown a random subset of each sample's modalities in every step."""

    method = "modality_dropout"
    stages = (Stage("train", epochs=60),)
    hyperparameters = {"schedule": "step", "lr_step": 30}  # those of `fusion`
    network_settings = {"imputation": True}  # missing features are the mean of the present ones; False: zeros

    @classmethod
    def build_classifier(cls, configuration, shapes, task, classes) -> nn.Module:
        """An encoder per modality, projected to the common size, and the head of the plan."""
        return build_shared_features(configuration, shapes, num_outputs(task, classes),
                                     imputation=configuration["nnmiss"]["imputation"])
