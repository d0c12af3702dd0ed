"""SimMLM: an expert per modality, mixed by a gating network, and the ranking loss "more versus fewer".

Li et al., "SimMLM: A Simple Framework for Multi-modal Learning with Missing Modality" (ICCV 2025), its supplement
(tables A1 to A3), and a third-party copy of its official code for what neither says. Where each choice comes from, and
what we decide, is in documentation/reference/methods/simmlm.md.
"""
from __future__ import annotations

from pathlib import Path

import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from torch import Tensor, nn

from nnmiss.atomic_files import read_json
from nnmiss.classification.tasks import num_outputs
from nnmiss.inference.gate_weights import task_names
from nnmiss.losses.more_versus_fewer import more_versus_fewer, ranking_loss
from nnmiss.networks.architecture import build_unet
from nnmiss.networks.expert_mixture import build_experts
from nnmiss.networks.modality_experts import GATINGS, LEVELS, ExpertNetwork, ModalityExperts
from nnmiss.seeding import torch_generator

from .base import MissingModalityTrainer, network_block
from .classification import ClassificationTrainer
from .stages import SCHEDULES, Stage, StagedSchedule

# Official code: an epoch is 228 training cases in batches of 4, 57 iterations. Ours are 250 iterations.
EXPERT_EPOCHS = 114  # 500 * 57 / 250
JOINT_EPOCHS = 68  # 300 * 57 / 250 = 68.4
OPTIMIZERS = {"adam": lambda p, lr, decay: torch.optim.Adam(p, lr, weight_decay=decay),
              "sgd": lambda p, lr, decay: torch.optim.SGD(p, lr, momentum=0.99, nesterov=True, weight_decay=decay)}


class SimMLM:
    """Stages, nested subsets and losses, the same for segmentation and classification; mixed into their trainers."""

    method = "simmlm"
    expert_epochs, joint_epochs = EXPERT_EPOCHS, JOINT_EPOCHS
    run_settings = {"pretrain_experts": True}  # False is Table A2's joint training from random weights

    @classmethod
    def stages_of(cls, modalities, settings):
        """One stage per expert, then the joint one; without the experts' the joint one has all epochs (Table A2).

        An expert of the two-stage training is updated in its own and in the joint stage, so these add up.
        """
        if not settings["pretrain_experts"]:
            return (Stage("joint", cls.expert_epochs + cls.joint_epochs),)
        experts = (Stage(f"expert_{modality}", cls.expert_epochs, drop_modalities=False) for modality in modalities)
        return (*experts, Stage("joint", cls.joint_epochs))

    @property
    def expert(self) -> int | None:
        """The modality whose expert this stage trains; None in the joint stage."""
        return None if self.stage.name == "joint" else self.modalities.index(self.stage.name.removeprefix("expert_"))

    @property
    def starts_afresh(self):
        return self.expert is not None or len(self.stages) == 1

    def resting_parts(self):
        """Experts whose modality no sample of the step has."""
        return list(self.bare_network.experts) if self.expert is None else []

    def begin_stage(self, checkpoint_of):
        """Experts start from random weights, the joint stage from all of theirs and a gate that weighs them alike."""
        if self.expert is None and len(self.stages) > 1:
            for m, modality in enumerate(self.modalities):
                self.bare_network.load_expert(m, checkpoint_of(f"expert_{modality}")["network_weights"])

    def training_cases(self, cases):
        """An expert's stage uses the cases that have its modality."""
        return cases if self.expert is None else [case for case in cases if self.available[case][self.expert]]

    def draw(self, available):
        """The expert's modality; in the joint stage two nested subsets of what each case has."""
        if self.expert is not None:
            own = torch.arange(len(self.modalities), device=available.device) == self.expert
            return {"present": available & own}
        more, fewer = draw_nested(available.cpu(), torch_generator(
            self.seed, self.stage.name, self.current_epoch, self.iteration, 0, "nested subsets"))
        return {"present": more.to(available.device), "fewer": fewer.to(available.device)}

    def losses(self, network, x, target, present, fewer=None):
        """Task loss; in the joint stage of both subsets, from one pass of the experts, plus MoFe."""
        if self.expert is not None:
            return {"loss": self.loss(network(x, present), target)}
        more_logits, fewer_logits = network(x, present, fewer=fewer)
        task = (self.loss(more_logits, target) + self.loss(fewer_logits, target)) / 2
        ranking = self.ranking(more_logits, fewer_logits, target)
        return {"loss": task + self.mofe * ranking, "task": task, "mofe": ranking}

    def ranking(self, more, fewer, target) -> Tensor:
        """MoFe of the logits of both subsets."""
        raise NotImplementedError


class nnMissTrainerSimMLM(SimMLM, MissingModalityTrainer):
    """DMoME trained expert by expert, then jointly with the MoFe loss on nested subsets of the same crop."""

    hyperparameters = {
        "mofe": 0.1,  # weight of MoFe (supplement, Fig. A3; official code); 0 is DMoME alone
        "mofe_detach": False,  # no gradient into the side with fewer modalities; official code: it has one
        "optimizer_name": "adam",  # official code; "sgd" is nnU-Net's
        "schedule": "constant",  # official code, joint stage; that of the experts is not known
    }
    network_settings = {
        "level": "logits",  # where experts are mixed; the others are Table A3
        "gating": "dynamic",  # "static" is Table A2's plain average
        "expert_width": 1.0,  # of each expert, relative to the plan's U-Net
        "expert_checkpointing": True,  # recompute experts in the joint stage, so that one's activations exist at a time
    }
    unused = ("subset_sampling",)  # it draws nested pairs of subsets
    limits = {"mofe": (0, 1e6), "expert_width": (1 / 64, 8)}
    choices = {"optimizer_name": tuple(OPTIMIZERS), "schedule": tuple(SCHEDULES), "level": LEVELS, "gating": GATINGS}
    presets = {"paper": {"joint.initial_lr": 1e-3, "weight_decay": 0.0}}  # official code; experts have initial_lr 1e-2

    @classmethod
    def prepare(cls, block: dict, modalities: list[str], preprocessed_folder: Path) -> list[str]:
        """Notes in the plans whether outputs are regions, which mixing probabilities needs at inference."""
        content = read_json(Path(preprocessed_folder) / "dataset.json", "preprocessed dataset.json", ("labels",))
        block["regions"] = LabelManager(content["labels"], content.get("regions_class_order")).has_regions
        return []

    @staticmethod
    def build_network_architecture(plans_manager, configuration_manager, num_input_channels, num_output_channels,
                                   enable_deep_supervision=True) -> nn.Module:
        """One U-Net of the plan per modality, with one input channel, and the gate."""
        block = network_block(configuration_manager)
        experts = [build_unet(configuration_manager, 1, num_output_channels, enable_deep_supervision,
                              block.get("expert_width", 1.0)) for _ in range(num_input_channels)]
        return ModalityExperts(experts, num_output_channels, block.get("level", "logits"), block.get("gating", "dynamic"),
                               block.get("regions"), block.get("expert_checkpointing", True))

    def stage_network(self, plans_manager, configuration_manager, num_input_channels, num_output_channels,
                      enable_deep_supervision=True) -> nn.Module:
        if self.expert is None:
            return super().stage_network(plans_manager, configuration_manager, num_input_channels, num_output_channels,
                                         enable_deep_supervision)
        width = network_block(configuration_manager).get("expert_width", 1.0)
        unet = build_unet(configuration_manager, 1, num_output_channels, enable_deep_supervision, width)
        return ExpertNetwork(unet, num_input_channels, self.expert)

    def initialize(self):
        super().initialize()
        self.seen_weights: list[Tensor] = []  # of this epoch's validation batches

    def configure_optimizers(self):
        """Adam with a constant rate, of each stage's own."""
        optimizer = OPTIMIZERS[self.optimizer_name](self.network.parameters(), self.initial_lr, self.weight_decay)
        return optimizer, StagedSchedule(optimizer, self.initial_lr, self.schedule, 0, self.num_epochs)

    def ranking(self, more, fewer, target):
        finest = [t[0] if isinstance(t, list) else t for t in (more, fewer, target)]
        labels = self.label_manager
        return more_versus_fewer(*finest, labels.has_regions, labels.ignore_label, self.mofe_detach)

    # ---- validation and the log of gate weights -----------------------------------------------------------------

    def validation_subset(self, number):
        """An expert is validated on its own modality."""
        if self.expert is None:
            return super().validation_subset(number)
        return tuple(m == self.expert for m in range(len(self.modalities)))

    def on_validation_epoch_start(self):
        super().on_validation_epoch_start()
        self.seen_weights = []

    def validation_step(self, batch):
        if self.expert is None and self.bare_network.gate is not None:
            available = self.available_of(batch["keys"], self.files)
            x, _ = self.to_device(batch)
            with self.autocast():
                weights = self.bare_network.gate_weights(x, available)  # (B, M, K)
            self.seen_weights.append(weights.masked_fill(~available[..., None], float("nan")).cpu())
        return super().validation_step(batch)

    def on_validation_epoch_end(self, val_outputs):
        super().on_validation_epoch_end(val_outputs)
        if self.seen_weights:
            mean = torch.cat(self.seen_weights).nanmean(0)  # (M, K)
            names = [f"{task}:{modality}" for task in task_names(self.dataset_json) for modality in self.modalities]
            self.progress.add_row("gate_weights", names, self.first_iteration + self.iteration, mean.T.flatten().tolist())


class nnMissClassifierSimMLM(SimMLM, ClassificationTrainer):
    """DMoME of whole classifiers, one a modality (Table A1), trained one by one, then jointly with MoFe."""

    expert_epochs, joint_epochs = 60, 60  # not published for classification; MetaKD's runs of the same data have 60
    hyperparameters = {
        "mofe": 0.1,  # weight of MoFe (Fig. A3)
        "mofe_detach": False,  # no gradient into the side with fewer modalities
    }
    network_settings = {"level": "logits", "gating": "dynamic"}
    unused = ("feature_dim", "hidden", "dropout")  # experts have the heads they are published with
    limits = {"mofe": (0, 1e6)}
    choices = {"level": LEVELS, "gating": GATINGS}
    presets = {"paper": {}}

    @classmethod
    def build_classifier(cls, configuration, shapes, task, classes) -> nn.Module:
        """The plan's encoders, each with a head of its own, and a gate of two-layer networks."""
        return build_experts(configuration, shapes, num_outputs(task, classes), task, **configuration.get("nnmiss", {}))

    @property
    def alone(self):
        return self.expert

    def ranking(self, more, fewer, target):
        return ranking_loss(self.loss.per_sample(more, target),
                            self.loss.per_sample(fewer.detach() if self.mofe_detach else fewer, target))

    def on_validation_epoch_start(self):
        super().on_validation_epoch_start()
        self.seen_weights: list[Tensor] = []

    def validation_step(self, batch):
        if self.expert is None and self.bare_network.gate is not None:
            available = self.available_of(batch["keys"], self.files)
            weights = self.bare_network.gate_weights(self.to_device(batch)[0], available)  # (B, M)
            self.seen_weights.append(weights.masked_fill(~available, float("nan")).cpu())
        return super().validation_step(batch)

    def on_validation_epoch_end(self, outputs):
        super().on_validation_epoch_end(outputs)
        if self.seen_weights:
            mean = torch.cat(self.seen_weights).nanmean(0)  # (M,)
            self.progress.add_row("gate_weights", self.modalities, self.first_iteration + self.iteration, mean.tolist())


def draw_nested(available: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Two subsets per sample, one within the other: uniform over all such pairs of what is available.

    That is the official code's law for complete cases. A case with a single modality gives it twice.

    Args:
        available: (B, M) bool on the CPU with no empty row.

    Returns:
        more, fewer: (B, M) bool; fewer is a non-empty strict subset of more, where available has two or more.
    """
    more, fewer = available.clone(), available.clone()  # (B, M)
    open_rows = available.sum(1) > 1  # (B,)
    while open_rows.any():  # each modality is in neither, in `more` or in both; a fifth of the draws or more are valid
        role = torch.randint(0, 3, available.shape, generator=generator) * available
        valid = open_rows & (role == 1).any(1) & (role == 2).any(1)
        more[valid], fewer[valid] = role[valid] > 0, role[valid] == 2
        open_rows &= ~valid
    return more, fewer
