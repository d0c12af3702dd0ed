"""MetaKD: importance weights learned on held-out cases steer pairwise distillation between modalities.

Wang et al., "Meta-Learned Modality-Weighted Knowledge Distillation for Robust Multi-Modal Learning with Missing Data"
(MetaKD). Equation numbers are the paper's. What the authors' code does differently is the preset `official`; what we
decide where neither says is in documentation/reference/methods/metakd.md.
"""
from __future__ import annotations

from contextlib import contextmanager

import torch
from torch import nn

from nnmiss.classification.tasks import num_outputs
from nnmiss.errors import NnmissError
from nnmiss.losses.feature_statistics import collapse_statistics, generation_statistics
from nnmiss.losses.importance import NORMALISATIONS, ImportanceWeights
from nnmiss.losses.pairwise_distillation import DIRECTIONS, pairwise_distillation
from nnmiss.networks.base import item_index
from nnmiss.networks.fusion import FUSIONS
from nnmiss.networks.shared_encoder_unet import IMPUTATIONS, build_shared_encoder
from nnmiss.networks.shared_features import build_shared_features
from nnmiss.seeding import torch_generator

from .base import MissingModalityTrainer
from .classification import ClassificationTrainer
from .loaders import make_loader
from .processes import mean_of_all
from .stages import SCHEDULES, Stage, StagedSchedule

FEWEST_UPDATES = 10  # of w in a stage, however short the run


class MetaKD:
    """Eq. 4 to 6 and Algorithm 1, the same for segmentation and classification; mixed into their trainers."""

    method = "metakd"
    shared = {
        "alpha": 0.1,  # weight of distillation, Eq. 4, section 8
        "p": 1,  # norm of Eq. 5, section 8; 2 is Fig. 3a's ablation
        "direction": "detached",  # who learns from whom (pairwise_distillation); Eq. 4 as written: symmetric
        "normalisation": "softmax",  # of w, Eq. 6; "relu" and "sigmoid" are Table 6
        "meta_interval": 100,  # iterations between updates of w, section 8
        "meta_steps": 1,  # optimiser steps per update of w
        "meta_batch_size": 0,  # cases per step; 0: the plan's batch size
        "meta_lr": 1e-2,  # Adam on w, section 8
    }
    limits = {"alpha": (0, 1e6), "meta_interval": (1, 10**7), "meta_steps": (1, 10**4), "meta_batch_size": (0, 10**4),
              "meta_lr": (1e-12, 1e3), "meta_weight_decay": (0, 1e3)}
    choices = {"p": (1, 2), "direction": DIRECTIONS, "normalisation": tuple(NORMALISATIONS)}
    places = "bottleneck"  # the features that are distilled, of the scales that the network returns

    def initialize(self):
        super().initialize()
        start = torch_generator(self.seed, self.method, "importance weights")
        self.importance = ImportanceWeights(len(self.modalities), self.normalisation, start).to(self.device)
        self.importance_optimizer = torch.optim.Adam(self.importance.parameters(), self.meta_lr,
                                                     weight_decay=self.meta_weight_decay)

    def losses(self, network, x, target, present):
        """Inner problem of Eq. 4: task loss plus alpha times the modality-weighted distillation."""
        logits, features = network(x, present, return_features=True)
        index, ratios = item_index(present), self.importance.ratios()
        scales = features if self.places == "every_stage" else features[-1:]
        distillation = sum(pairwise_distillation(f, index, ratios, self.p, self.direction) for f in scales) / len(scales)
        task = self.loss(logits, target)
        return {"loss": task + self.alpha * distillation, "task": task, "distillation": distillation}

    # ---- outer problem: the importance weights ------------------------------------------------------------------

    @property
    def update_interval(self) -> int:
        """Iterations between updates of w; shorter in short runs, so that every stage has at least ten."""
        iterations = self.num_epochs * self.num_iterations_per_epoch
        return min(self.meta_interval, max(1, iterations // FEWEST_UPDATES))

    def before_iteration(self):
        if self.iteration % self.update_interval == 0:
            seen = [self.update_importance(step) for step in range(self.meta_steps)]
            bottleneck, present = (torch.cat(parts) for parts in zip(*seen))
            self.log_importance(bottleneck, item_index(present))

    def meta_batch(self, step: int) -> dict:
        """The held-out cases of one step."""
        return self.next_batch(self.meta_loader, self.iteration, step, "meta")

    def update_importance(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """One step of Adam on w for the task loss of w-weighted features on held-out cases (Eq. 4, first line).

        First order, as in the official code: the network is taken as it is and gets no gradient.

        Returns:
            The bottleneck features (P, C, *spatial) and what was shown (B, M), for the log.
        """
        batch = self.meta_batch(step)
        x, target = self.to_device(batch)
        present = self.available_of(batch["keys"])
        with frozen(self.bare_network), self.autocast():
            logits, features = self.bare_network(x, present, importance=self.importance(), return_features=True)
            loss = self.loss(logits, target)
        # in half precision the gradient, a mean over voxels, would fall below the smallest number without scaling
        scale = self.grad_scaler.get_scale() if self.grad_scaler is not None else 1.0
        gradient = torch.autograd.grad(loss * scale, [self.importance.raw])[0] / scale
        gradient = mean_of_all(gradient, batch.get("weight", 1.0))
        if torch.isfinite(gradient).all():  # else the scale was too large, and the training steps will lower it
            self.importance.raw.grad = gradient
            self.importance_optimizer.step()
        return features[-1].detach(), present

    def log_importance(self, bottleneck: torch.Tensor, index: torch.Tensor) -> None:
        """Fig. 4 (w), Fig. 5 (generated against true features) and what reveals collapse, over iterations."""
        iteration = self.first_iteration + self.iteration
        self.progress.add_row("importance_weights", self.modalities, iteration, self.importance().tolist())
        collapse, generated = collapse_statistics(bottleneck, index), generation_statistics(bottleneck, index)
        nan = (float("nan"), float("nan"))
        columns = {f"collapse:{name.replace('_', ' ')}": value for name, value in collapse.items()}
        for position, name in enumerate(("L1 distance", "cosine similarity")):
            columns.update({f"{name} of generated and true feature:{modality}": generated.get(m, nan)[position]
                            for m, modality in enumerate(self.modalities)})
        self.progress.add_row("features", list(columns), iteration, list(columns.values()))

    def status(self) -> str:
        weights = " ".join(f"{m} {w:.2f}" for m, w in zip(self.modalities, self.importance().tolist()))
        return f", w {weights}"

    def method_state(self):
        return {"importance": self.importance.state_dict(),
                "importance_optimizer": self.importance_optimizer.state_dict()}

    def load_method_state(self, state):
        self.importance.load_state_dict(state["importance"])
        self.importance_optimizer.load_state_dict(state["importance_optimizer"])
        for group in self.importance_optimizer.param_groups:  # the stage before may have had others
            group.update(lr=self.meta_lr, weight_decay=self.meta_weight_decay)


class nnMissTrainerMetaKD(MetaKD, MissingModalityTrainer):
    """Shared encoder, generated features for missing modalities (Eq. 2), bi-level training (Eq. 4, Algorithm 1)."""

    # 115,000 iterations (section 8); the official code's are 80,000 with every modality, then 35,000 with dropout.
    stages = (Stage("warmup", epochs=320, drop_modalities=False), Stage("missing", epochs=140))
    hyperparameters = {
        **MetaKD.shared,
        "places": "bottleneck",  # features that are distilled: "bottleneck" (section 8) or "every_stage"
        "schedule": "cosine",  # section 8; the official code: poly
        "meta_weight_decay": 5e-5,  # section 8
    }
    run_settings = {"meta_cases": 5}  # held-out training cases, as the official code's list
    limits = {**MetaKD.limits, "meta_cases": (1, 10**6)}
    choices = {**MetaKD.choices, "places": ("bottleneck", "every_stage"), "schedule": tuple(SCHEDULES),
               "fusion": tuple(FUSIONS), "imputation": IMPUTATIONS}
    network_settings = {"fusion": "concat", "imputation": "all", "width_factor": 1.0, "activation_checkpointing": False,
                        "micro_batch": 0}
    presets = {
        "paper": {},
        "official": {"schedule": "poly", "weight_decay": 0.0, "imputation": "bottleneck",
                     "meta_weight_decay": 5e-4, "meta_steps": 20, "meta_batch_size": 1, "missing.meta_interval": 500},
    }

    @staticmethod
    def build_network_architecture(plans_manager, configuration_manager, num_input_channels, num_output_channels,
                                   enable_deep_supervision=True) -> nn.Module:
        """nnU-Net's U-Net of the plan with one input channel, at the plan's width factor, and a fusion per scale."""
        return build_shared_encoder(configuration_manager, num_input_channels, num_output_channels, enable_deep_supervision)

    def configure_optimizers(self):
        """SGD with Nesterov momentum 0.99 (section 8; nnU-Net's own), one schedule over both stages."""
        optimizer, _ = super().configure_optimizers()
        return optimizer, StagedSchedule(optimizer, self.initial_lr, self.schedule, self.first_epoch, self.total_epochs)

    def num_held_out(self) -> int:
        return self.meta_cases

    def get_dataloaders(self):
        loaders = super().get_dataloaders()
        whole = self.meta_batch_size or self.configuration_manager.batch_size
        self.meta_loader = make_loader(self, self.held_out, whole)
        return loaders

    def meta_batch(self, step):
        return self.next_batch(self.meta_loader, self.iteration, step, "meta", whole=True)


class nnMissClassifierMetaKD(MetaKD, ClassificationTrainer):
    """An encoder per modality with features of one size (SharedFeatureClassifier), bi-level training (Eq. 4).

    The meta-validation set Dv is the fold's validation part, as Eq. 4 has it disjoint from the training set; the weights of
    an epoch are chosen on it too.
    """

    stages = (Stage("train", epochs=60),)  # section 8, Audiovision-MNIST; ADNI: 100
    hyperparameters = {
        **MetaKD.shared,
        "weight_decay": 1e-2,  # section 8; part of the gradient, as Adam has it
        "schedule": "step", "lr_decay": 0.9, "lr_step": 20,  # "decayed by 10 % every 20 epochs"
        "meta_weight_decay": 1e-2,  # section 8
    }
    network_settings = {"imputation": True, "projection": True}
    limits, choices = MetaKD.limits, MetaKD.choices
    presets = {
        "paper": {},
        "adni": {"num_epochs": 100, "weight_decay": 5e-5, "lr_step": 10, "class_balance": "smote",
                 "select_by": "macro_f1"},  # section 8; "validated every 10 iterations" is once an epoch here
    }

    @classmethod
    def build_classifier(cls, configuration, shapes, task, classes) -> nn.Module:
        """The plan's encoders, their features projected to one size, the missing ones generated (Eq. 2)."""
        return build_shared_features(configuration, shapes, num_outputs(task, classes), **configuration.get("nnmiss", {}))

    def initialize(self):
        super().initialize()
        labelled = self.labelled(self.validation)
        if not labelled:
            raise NnmissError(f"metakd learns its importance weights on the validation samples of fold {self.fold}, of "
                              "which none has a label")
        self.meta_loader = self.make_loader(labelled, self.meta_batch_size or self.batch_size, "meta")


@contextmanager
def frozen(network: nn.Module):
    """While open, `network` is taken as it is: no parameter asks for a gradient, no dropout, no statistics are updated."""
    learning, training = [p for p in network.parameters() if p.requires_grad], network.training
    network.eval()
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)
        network.train(training)
