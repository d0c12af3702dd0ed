"""LCKD: the modality that segments a task best alone is elected its teacher; teachers teach all present modalities.

Wang et al., "Learnable Cross-modal Knowledge Distillation for Multi-modal Learning with Missing Modality" (LCKD), known
to us from a summary and from the authors' public code. What they say, what we do and why is in
documentation/reference/methods/lckd.md.
"""
from __future__ import annotations

from collections import Counter

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from tqdm import tqdm

from nnmiss.availability import match_modality
from nnmiss.classification.tasks import num_outputs
from nnmiss.errors import NnmissError
from nnmiss.evaluation.label_maps import regions_of
from nnmiss.inference.predictor import MissingModalityPredictor
from nnmiss.losses.pairwise_distillation import pairwise_distillation
from nnmiss.losses.teacher_election import (
    NAN,
    compare_modalities,
    elect_teachers,
    region_weights,
    regional_distillation,
    soft_dice,
)
from nnmiss.networks import shared_encoder_unet
from nnmiss.networks.base import item_index
from nnmiss.networks.shared_encoder_unet import build_shared_encoder
from nnmiss.networks.shared_features import build_shared_features

from .base import MissingModalityTrainer
from .classification import ClassificationTrainer
from .stages import SCHEDULES, Stage, StagedSchedule

ELECTIONS = 23  # in a run: the official code's 115,000 iterations, with an election every 5,000
TASKS_SHOWN = 6  # whose teachers the line of an epoch names


class LCKD:
    """Election of teachers and distillation from them, the same for segmentation and classification."""

    method = "lckd"
    shared = {
        "kd": 0.1,  # weight of distillation
        "p": 1,  # norm of the distance
        "election": "elected",  # or "fixed": `fixed_teachers` teach all the time
        "fixed_teachers": "",  # names joined by "+"; with per_task one per task, in the order of the network's outputs
        "election_interval": 0,  # iterations; the official code's 5000; 0: the same part of the run, whatever its length
    }
    limits = {"kd": (0, 1e6), "election_interval": (0, 10**7)}
    choices = {"p": (1, 2), "election": ("elected", "fixed")}
    per_task, places = False, "bottleneck"

    @classmethod
    def stages_of(cls, modalities, settings):
        for name in settings["fixed_teachers"].split("+") if settings["fixed_teachers"] else ():
            match_modality(name, modalities)  # refuses unknown names before anything is written
        return cls.stages

    def task_names(self) -> list[str]:
        """What teachers are elected for, in the order of the network's outputs."""
        raise NotImplementedError

    def initialize(self):
        self.tasks = self.task_names()
        self.teachers = self.named_teachers() if self.election == "fixed" else [0] * len(self.tasks)
        if self.fixed_teachers and self.election != "fixed":
            raise NnmissError(f"fixed_teachers={self.fixed_teachers} needs election=fixed: --set election=fixed, or leave "
                              "fixed_teachers out")
        super().initialize()

    def named_teachers(self) -> list[int]:
        """The modalities of `fixed_teachers`. Raises NnmissError for unknown names or a number that does not fit."""
        names = [name for name in self.fixed_teachers.split("+") if name.strip()]
        if not names:
            raise NnmissError(f"election=fixed needs --set fixed_teachers=NAME+NAME, of {', '.join(self.modalities)}")
        if self.per_task and len(names) != len(self.tasks):
            raise NnmissError(f"fixed_teachers={self.fixed_teachers} names {len(names)}: per_task=true needs one teacher "
                              f"for each task, in the order {', '.join(self.tasks)} (names may come twice)")
        return [match_modality(name, self.modalities) for name in names]

    def losses(self, network, x, target, present):
        """Task loss plus `kd` times the distance of every present modality's features to every present teacher's."""
        logits, features = network(x, present, return_features=True)
        index = item_index(present)
        scales = features if self.places == "every_stage" else features[-1:]
        distance = self.regional_distance(target, index) if self.per_task else self.plain_distance(index)
        distillation = sum(distance(scale) for scale in scales) / len(scales)
        task = self.loss(logits, target)
        return {"loss": task + self.kd * distillation, "task": task, "distillation": distillation}

    def plain_distance(self, index: Tensor):
        """Features of a scale -> distillation from the union of the teachers."""
        teaches = torch.zeros(len(self.modalities), len(self.modalities))  # [i, j]: i teaches j
        teaches[self.teachers] = 1
        return lambda features: pairwise_distillation(features, index, teaches, self.p, "detached")

    # ---- election -----------------------------------------------------------------------------------------------

    @property
    def interval(self) -> int:
        """Iterations between elections."""
        return self.election_interval or -(-self.total_epochs * self.num_iterations_per_epoch // ELECTIONS)

    def before_iteration(self):
        if self.election == "elected" and self.iteration % self.interval == 0:
            self.elect()

    def elect(self) -> None:
        """Makes the modality that is best at each task alone, on the held-out cases, its teacher; logs all of it."""
        iteration = self.first_iteration + self.iteration
        try:
            scores = compare_modalities(self.scores_of_single_modalities())  # (M, K)
        except NnmissError as error:
            raise NnmissError(f"election of teachers at iteration {iteration}: {error}. If the training diverged, lower "
                              f"--set initial_lr (now {self.initial_lr})") from None
        self.teachers = elect_teachers(scores, self.teachers)
        columns = [f"{task}:{modality}" for task in self.tasks for modality in self.modalities]
        self.progress.add_row("elections", columns, iteration, scores.T.flatten().tolist())
        best = [f"{task} {self.modalities[t]} ({float(scores[t, k]):.3f})"
                for k, (task, t) in enumerate(zip(self.tasks, self.teachers))]
        self.announce(f"teachers elected at iteration {iteration}: {', '.join(best)}")

    def announce(self, line: str) -> None:
        """Tells the user of an election, where that is not too often."""

    def scores_of_single_modalities(self) -> Tensor:
        """(C, M, K) float in 0 to 1: how well each held-out case is predicted from each modality alone; NaN where not."""
        raise NotImplementedError

    def status(self) -> str:
        if self.election == "fixed":
            return f", teachers {'+'.join(self.modalities[t] for t in self.teachers)}"
        if len(self.tasks) > TASKS_SHOWN:  # of many labels how often each modality teaches
            count = Counter(self.modalities[t] for t in self.teachers)
            return ", teachers " + ", ".join(f"{name} of {count[name]}" for name in self.modalities if count[name])
        return ", teachers " + ", ".join(f"{task} {self.modalities[t]}" for task, t in zip(self.tasks, self.teachers))

    def method_state(self):
        return {"teachers": self.teachers}

    def load_method_state(self, state):
        if self.election == "elected":
            self.teachers = [int(teacher) for teacher in state["teachers"]]


class nnMissTrainerLCKD(LCKD, MissingModalityTrainer):
    """Shared encoder, generated features for missing modalities, distillation from elected teachers."""

    # The official code trains 80,000 iterations with every modality, then 35,000 with modality dropout.
    stages = (Stage("warmup", epochs=320, drop_modalities=False), Stage("missing", epochs=140))
    hyperparameters = {
        **LCKD.shared,
        "schedule": "poly",  # official code
        "places": "bottleneck",  # features that are distilled: "bottleneck" (paper) or "every_stage"
        "per_task": False,  # an experiment: a teacher counts where its task's region is
    }
    run_settings = {"election_cases": 5}  # held-out training cases that vote; the official code: its validation list
    limits = {**LCKD.limits, "election_cases": (1, 10**6), **shared_encoder_unet.LIMITS}
    choices = {**LCKD.choices, "places": ("bottleneck", "every_stage"), "schedule": tuple(SCHEDULES),
               **shared_encoder_unet.CHOICES}
    network_settings = {**shared_encoder_unet.SETTINGS, "width_factor": 1.0, "micro_batch": 0}
    presets = {"paper": {}, "official": {"weight_decay": 0.0, "imputation": "bottleneck"}}

    @staticmethod
    def build_network_architecture(plans_manager, configuration_manager, num_input_channels, num_output_channels,
                                   enable_deep_supervision=True) -> nn.Module:
        """nnU-Net's U-Net of the plan with one input channel, at the plan's width factor, and a fusion per scale."""
        return build_shared_encoder(configuration_manager, num_input_channels, num_output_channels, enable_deep_supervision)

    def task_names(self):
        members = regions_of(self.dataset_json).members
        regions = self.label_manager.has_regions  # labels are in the order of their values, as the network's outputs
        self.members = dict(members.items() if regions else sorted(members.items(), key=lambda task: task[1]))
        return list(self.members)

    def announce(self, line):
        self.print_to_log_file(line)
        if self.local_rank == 0:
            tqdm.write(line)  # beside the progress bar

    def configure_optimizers(self):
        """SGD with Nesterov momentum 0.99 (nnU-Net's own, and the official code's), one schedule over both stages."""
        optimizer, _ = super().configure_optimizers()
        return optimizer, StagedSchedule(optimizer, self.initial_lr, self.schedule, self.first_epoch, self.total_epochs)

    def num_held_out(self) -> int:
        return self.election_cases  # with fixed teachers too, so that both train on the same cases

    def regional_distance(self, target: Tensor | list[Tensor], index: Tensor):
        """Features of a scale -> distillation from each task's teacher, where the task's region is."""
        finest = target[0] if isinstance(target, list) else target  # (B, K or 1, *patch)
        truth = finest[:, : len(self.tasks)] if self.label_manager.has_regions else torch.cat(
            [finest == value for (value,) in self.members.values()], 1)  # (B, K, *patch)
        return lambda features: regional_distillation(features, index, self.teachers,
                                                      region_weights(truth, features.shape[2:]), self.p)

    def scores_of_single_modalities(self) -> Tensor:
        """(C, M, K) soft Dice of each held-out case predicted from each modality alone; NaN where it lacks that.

        Draws no random number. Under DDP the cases are shared among the ranks, and all get the whole table.
        """
        predictor = MissingModalityPredictor(tile_step_size=0.5, use_gaussian=True, use_mirroring=False,
                                             device=self.device, allow_tqdm=False)
        predictor.manual_initialization(self.validated_network, self.plans_manager, self.configuration_manager, None,
                                        self.dataset_json, type(self).__name__, None)
        self.set_deep_supervision_enabled(False)
        dice = torch.zeros(len(self.held_out), len(self.modalities), len(self.tasks))
        ranks = dist.get_world_size() if self.is_ddp else 1
        for number in range(self.local_rank if self.is_ddp else 0, len(self.held_out), ranks):
            dice[number] = self.dice_of_case(predictor, self.held_out[number])
        self.set_deep_supervision_enabled(self.enable_deep_supervision)
        self.network.train()
        if self.is_ddp:
            dice = dice.to(self.device)
            dist.all_reduce(dice)  # a case is zero on all ranks but its own
        return dice.cpu()

    def dice_of_case(self, predictor: MissingModalityPredictor, case: str) -> Tensor:
        """(M, K) soft Dice of one held-out case, NaN for modalities that it lacks and regions it does not have."""
        dataset = self.dataset_class(self.preprocessed_dataset_folder, [case])
        data, segmentation, *_ = dataset.load_case(case)
        labels = np.asarray(segmentation[:])[0]  # (*spatial), -1 outside the image
        truth = torch.from_numpy(np.stack([np.isin(labels, members) for members in self.members.values()]))
        ignore = self.label_manager.ignore_label
        valid = None if ignore is None else torch.from_numpy(labels != ignore)
        alone = [tuple(i == m for i in range(len(self.modalities))) for m, has in enumerate(self.available[case]) if has]
        dice = torch.full((len(self.modalities), len(self.tasks)), float("nan"))
        for present, logits in predictor.predict_subsets(torch.from_numpy(data[:]), alone):
            probabilities = self.label_manager.apply_inference_nonlin(logits)
            dice[present.index(True)] = soft_dice(probabilities[-len(self.tasks):], truth, valid)
        return dice


class nnMissClassifierLCKD(LCKD, ClassificationTrainer):
    """MetaKD's network for unlike modalities, with distillation from elected teachers.

    LCKD was published for segmentation. Here the fold's validation samples vote; a modality's score is the mean
    probability that it alone gives to the true class (the analogue of soft Dice), and of labels one teacher is elected
    for each. Optimiser and schedule are those of MetaKD's classification, so that the two compare.
    """

    stages = (Stage("train", epochs=60),)
    hyperparameters = {**LCKD.shared, "weight_decay": 1e-2, "schedule": "step", "lr_decay": 0.9, "lr_step": 20}
    network_settings = {"imputation": True, "projection": True}
    limits, choices, presets = LCKD.limits, LCKD.choices, {"paper": {}}

    @classmethod
    def build_classifier(cls, configuration, shapes, task, classes) -> nn.Module:
        """The plan's encoders, their features projected to one size, the missing ones generated."""
        return build_shared_features(configuration, shapes, num_outputs(task, classes), **configuration.get("nnmiss", {}))

    def task_names(self):
        return list(self.classes) if self.task == "multilabel" else ["class"]

    def initialize(self):
        super().initialize()
        self.voters = self.rows_of_ids(self.labelled(self.validation))
        if self.election == "elected" and not len(self.voters):
            raise NnmissError(f"lckd elects its teachers on the validation samples of fold {self.fold}, of which none has "
                              "a label: --set election=fixed fixed_teachers=NAME names them")

    @torch.no_grad()
    def scores_of_single_modalities(self):
        singles = torch.eye(len(self.modalities), dtype=torch.bool, device=self.device)  # (M, M)
        self.network.eval()
        parts = []
        for rows in self.voters.split(self.validation_batch_size):
            x, target = self.to_device(self.batch_of(rows))
            logits = self.bare_network.forward_subsets(x, self.samples.available[rows].to(self.device), singles)
            parts.append(true_probability(logits, target, self.task).transpose(0, 1).cpu())  # (B, M, K)
        self.network.train()
        scores = torch.cat(parts)
        if not torch.isfinite(scores).any():
            raise NnmissError("no modality gives a finite prediction")
        return scores


def true_probability(logits: Tensor, target: Tensor, task: str) -> Tensor:
    """Probability given to what is true: logits (S, B, outputs) -> (S, B, 1), of labels (S, B, labels).

    NaN where the logits or the label are.
    """
    if task == "multiclass":
        index = target.clamp_min(0).expand(len(logits), -1)[..., None]  # (S, B, 1)
        return logits.softmax(-1).gather(-1, index).masked_fill((target < 0)[:, None], NAN)
    return torch.where(target.isnan(), NAN, torch.where(target > 0.5, logits.sigmoid(), (-logits).sigmoid()))
