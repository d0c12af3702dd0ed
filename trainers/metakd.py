"""MetaKD: importance weights learned on held-out cases steer pairwise distillation between modalities.

Wang et al., "Meta-Learned Modality-Weighted Knowledge Distillation for Robust Multi-Modal Learning with Missing Data"
(MetaKD). Equation numbers are the paper's. What the authors' code does differently is the preset `official`; what we
decide where neither says is in documentation/reference/methods/metakd.md.
"""
from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn

from nnmiss.classification.tasks import TaskLoss, num_outputs
from nnmiss.errors import NnmissError
from nnmiss.inference.gate_weights import task_names
from nnmiss.losses.collapse_guards import GUARDS
from nnmiss.losses.feature_distances import DISTANCES
from nnmiss.losses.pairwise_distillation import DIRECTIONS, pairwise_distillation
from nnmiss.networks import shared_encoder_unet
from nnmiss.networks.base import item_index
from nnmiss.networks.shared_encoder_unet import build_shared_encoder
from nnmiss.networks.shared_features import build_shared_features
from nnmiss.networks.subset_teaching import PLACES, Pass

from .base import MissingModalityTrainer
from .classification import ClassificationTrainer
from .full_set_teaching import FullSetTeaching
from .held_out_crops import fixed_crops
from .loaders import make_loader
from .modality_importance import ModalityImportance
from .splits import most_complete
from .stages import SCHEDULES, Stage, StagedSchedule

SHARED_CASES = 5  # training cases that w looks at where none is held out


class MetaKD(ModalityImportance):
    """Eq. 4 to 6 and Algorithm 1, the same for segmentation and classification; mixed into their trainers.

    Here is the inner problem; the outer one, w, is ModalityImportance.
    """

    method = "metakd"
    shared = {
        "alpha": 0.1,  # weight of distillation, Eq. 4, section 8
        "alpha_warmup": 0.0,  # share of the stage's iterations over which alpha grows from 0, for features to form first
        "p": 1,  # norm of Eq. 5, section 8; 2 is Fig. 3a's ablation
        "distance": "lp",  # of features, Eq. 5; or cosine, relation (nnmiss.losses.feature_distances)
        "direction": "detached",  # who learns from whom (pairwise_distillation); Eq. 4 as written: symmetric
        **ModalityImportance.settings_of_w,
    }
    limits = {"alpha": (0, 1e6), "alpha_warmup": (0, 1), **ModalityImportance.limits_of_w}
    choices = {"p": (1, 2), "distance": DISTANCES, "direction": DIRECTIONS, **ModalityImportance.choices_of_w}
    places = "bottleneck"  # the features that are distilled, of the scales that the network returns

    def losses(self, network, x, target, present, available=None):
        """Inner problem of Eq. 4: task loss plus alpha times the modality-weighted distillation, if alpha is not 0."""
        seen = self.look(network, x, present, available)
        task, full = self.loss(seen.logits, target), self.full_loss(seen, target)
        parts = {"loss": task + seen.nothing, "task": task}
        if self.alpha:
            distillation = self.distillation(seen, target, present, available)
            parts = {"loss": task + self.alpha_now * distillation, "task": task, "distillation": distillation}
        if full is not None:
            parts = {**parts, "loss": parts["loss"] + self.full_task * full, "full": full}
        return parts

    def look(self, network, x, present: Tensor, available: Tensor | None = None) -> Pass:
        """One call of the network."""
        logits, features = network(x, present, return_features=True)
        scales = features if self.places == "every_stage" else features[-1:]
        return Pass(logits, item_index(present), scales, scales)

    def distillation(self, seen: Pass, target, present: Tensor, available: Tensor | None = None) -> Tensor:
        """Mean over scales of the distances between modalities, weighted by w_i / w_j (Eq. 4 and 5)."""
        ratios = self.importance.ratios()
        return sum(pairwise_distillation(f, seen.index, ratios, self.p, self.direction, self.distance)
                   for f in seen.features) / len(seen.features)

    def full_loss(self, seen: Pass, target) -> Tensor | None:
        """Task loss of all that the samples have, which counts `full_task` times; None where it does not."""
        return None

    @property
    def alpha_now(self) -> float:
        """alpha at this iteration."""
        rising = self.alpha_warmup * self.num_epochs * self.num_iterations_per_epoch
        return self.alpha * min(1.0, max(0, self.iteration) / rising) if rising > 0 else self.alpha


class nnMissTrainerMetaKD(FullSetTeaching, MetaKD, MissingModalityTrainer):
    """Shared encoder, generated features for missing modalities (Eq. 2), bi-level training (Eq. 4, Algorithm 1)."""

    # 115,000 iterations (section 8); the official code's are 80,000 with every modality, then 35,000 with dropout.
    stages = (Stage("warmup", epochs=320, drop_modalities=False), Stage("missing", epochs=140))
    hyperparameters = {
        **MetaKD.shared,
        "full_task": 0.0,  # weight of the task loss of all that a case has, from the same encoding; toy: +2 ET
        "temperature": 2.0,  # of places=logits (Hinton et al. 2015: 2 to 5 for few classes)
        "guard": "none",  # against collapse: variance (VICReg), between_cases, or foreground: only its voxels count
        "schedule": "cosine",  # section 8; the official code: poly
        "meta_weight_decay": 5e-5,  # section 8
    }
    run_settings = {
        "warmup": True,  # the stage with every modality before the one with dropped ones
        "meta_cases": 5,  # held-out training cases, as the official code's list; 0: w looks at training cases, none is lost
        "places": "bottleneck",  # what is distilled: bottleneck (section 8), every_stage, decoder, logits
        "projector": False,  # a learned 1x1x1 convolution on the student's side (FitNets)
        "teacher": "online",  # of places decoder and logits: the network itself, or "average": with ema_decay its average
        "per_region": False,  # one vector w per region or label, with weighting forward or leave_one_out
        **ModalityImportance.run_settings_of_w,
    }
    limits = {**MetaKD.limits, "full_task": (0, 100), "temperature": (1e-3, 1e3), "meta_cases": (0, 10**6),
              **shared_encoder_unet.LIMITS}
    choices = {**MetaKD.choices, "places": PLACES, "teacher": ("online", "average"), "guard": GUARDS,
               "schedule": tuple(SCHEDULES), **shared_encoder_unet.CHOICES}
    network_settings = {**shared_encoder_unet.SETTINGS, "width_factor": 1.0, "micro_batch": 0}
    presets = {
        "paper": {},
        "official": {"schedule": "poly", "weight_decay": 0.0, "imputation": "bottleneck",
                     "meta_weight_decay": 5e-4, "meta_steps": 20, "meta_batch_size": 1, "missing.meta_interval": 500},
        # documentation/explanation/metakd.md says what each of these is worth, reference/metakd_search.md what is not here
        "best": {"fusion": "linear", "imputation": "none", "modality_specific": "norm", "separate_stages": 1,
                 "warmup": False, "num_epochs": 1000, "schedule": "poly", "alpha": 0.0, "weighting": "equal",
                 "meta_cases": 0},
    }
    default_preset = "best"

    @classmethod
    def notes(cls, settings):
        return [] if any(stage["alpha"] for stage in settings) else [
            "with alpha=0 nothing is distilled, as distillation gained nothing where it was measured; the published MetaKD "
            "is --preset paper"]

    @classmethod
    def stages_of(cls, modalities, settings):
        warmup, missing = cls.stages
        return cls.stages if settings["warmup"] else (replace(missing, epochs=warmup.epochs + missing.epochs),)

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

    def get_tr_and_val_datasets(self):
        training, validation = super().get_tr_and_val_datasets()
        if self.w_counts:
            self.held_out = self.held_out or most_complete(training.identifiers, self.available, SHARED_CASES, self.seed)
        return training, validation

    def get_dataloaders(self):
        loaders, whole = super().get_dataloaders(), self.meta_batch_size or self.configuration_manager.batch_size
        if not self.w_counts:
            return loaders
        if self.weighting == "bilevel":
            self.meta_loader = make_loader(self, self.held_out, whole)
        else:
            self.fixed_batches()  # now, as cutting them draws random numbers
        return loaders

    def meta_batch(self, step):
        return self.next_batch(self.meta_loader, self.iteration, step, "meta", whole=True)

    def make_fixed_batches(self):
        return fixed_crops(self, self.held_out, self.meta_batch_size or self.configuration_manager.batch_size)

    def region_names(self):
        names = task_names(self.dataset_json)
        return names if self.label_manager.has_regions else names[1:]


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
    run_settings = ModalityImportance.run_settings_of_w
    network_settings = {"imputation": True, "projection": True}
    limits, choices = MetaKD.limits, MetaKD.choices
    presets = {
        "paper": {},
        "adni": {"num_epochs": 100, "weight_decay": 5e-5, "lr_step": 10, "class_balance": "smote",
                 "select_by": "macro_f1"},  # section 8; "validated every 10 iterations" is once an epoch here
    }

    @classmethod
    def without_effect(cls, settings):
        """Nothing is refused: nnmiss_search may draw what only some of the weightings that it draws have."""
        return {}

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
        if self.distance != "lp" and self.p != 1:
            raise NnmissError(f"p={self.p} is the norm of distance=lp: leave it out")
        self.meta_loader = self.make_loader(labelled, self.meta_batch_size or self.batch_size, "meta")
        self.held_out_rows = self.rows_of_ids(labelled)

    def make_fixed_batches(self):
        return [self.batch_of(rows) for rows in self.held_out_rows.split(self.validation_batch_size)]

    def region_names(self):
        return ["class"]

    def scores_of(self, logits, target):
        """Probability given to the true class; of several labels the geometric mean."""
        return (-TaskLoss(self.task).per_sample(logits, target)).exp()[:, None]
