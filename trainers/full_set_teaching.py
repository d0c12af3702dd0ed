"""Variants of MetaKD's distillation for segmentation: what teaches whom, where, and what keeps features from collapsing."""
from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from nnmiss.errors import NnmissError
from nnmiss.losses.collapse_guards import (
    between_cases_hinge,
    counted_voxels,
    region_truth,
    variance_hinge,
)
from nnmiss.losses.full_set_distillation import feature_lessons, logit_lessons
from nnmiss.losses.pairwise_distillation import pairwise_distillation
from nnmiss.losses.teacher_election import region_weights
from nnmiss.networks.subset_teaching import Pass, SubsetTeaching

from .processes import num_processes
from .variant_checks import FULL_SET, check_variant

# what means nothing where distillation weighs nothing
OF_DISTILLATION = ("alpha_warmup", "p", "distance", "direction", "places", "projector", "teacher", "temperature", "guard")


class FullSetTeaching:
    """The full set as a teacher, projectors and guards; mixed into MetaKD's segmentation trainer, whose settings it reads.

    Encoder features are distilled between modalities (`pairwise_distillation`), decoder features and logits from all that
    a case has into the subset that is shown. That takes a second decoding, without gradient unless `full_task` gives it a
    loss of its own. In a stage that drops nothing there is nothing to teach, and no second decoding.
    """

    @classmethod
    def check_settings(cls, settings):
        super().check_settings(settings)
        check_variant(settings)

    @classmethod
    def without_effect(cls, settings):
        needs = super().without_effect(settings)
        if settings["places"] != "logits":
            needs = {**needs, "temperature": "places=logits"}
        else:
            needs = {**needs, "p": "features to compare (another places)"}
        return needs if settings["alpha"] else {**needs, **dict.fromkeys(OF_DISTILLATION, "an alpha above 0")}

    def initialize(self):
        check_variant(vars(self))
        super().initialize()
        together = min(self.micro_batch, self.configuration_manager.batch_size // num_processes())
        if self.guard == "between_cases" and together < 2:
            raise NnmissError("guard=between_cases compares the samples of a pass of the network, of which there is one "
                              f"here: --set batch_size={2 * num_processes()} micro_batch=2, or use another guard")

    @property
    def decodes_twice(self) -> bool:
        """Whether a step of this stage also decodes all that the cases have."""
        return self.stage.drop_modalities and ((self.alpha > 0 and self.places in FULL_SET) or self.full_task > 0)

    @property
    def wrapped(self) -> bool:
        """Whether what is trained is more than the network of inference."""
        return self.places in FULL_SET or self.projector or self.full_task > 0

    def stage_network(self, plans_manager, configuration_manager, num_input_channels, num_output_channels,
                      enable_deep_supervision=True) -> nn.Module:
        network = super().stage_network(plans_manager, configuration_manager, num_input_channels, num_output_channels,
                                        enable_deep_supervision)
        return SubsetTeaching(network, self.places, self.projector) if self.wrapped else network

    @property
    def inference_network(self):
        return self.bare_network.network if self.wrapped else self.bare_network

    def resting_parts(self):
        """Projectors, when nobody was taught."""
        return list(self.bare_network.projectors) if self.wrapped else []

    def draw(self, available):
        drawn = super().draw(available)
        return {**drawn, "available": available} if self.decodes_twice else drawn

    def method_state(self):
        projectors = {"projectors": self.bare_network.projectors.state_dict()} if self.projector else {}
        return {**super().method_state(), **projectors}

    def load_method_state(self, state):
        super().load_method_state(state)
        if self.projector:
            self.bare_network.projectors.load_state_dict(state["projectors"])

    # ---- the loss -----------------------------------------------------------------------------------------------

    def look(self, network, x, present, available=None) -> Pass:
        if not self.wrapped:
            return super().look(network, x, present)
        teacher = self.average.network if self.teacher == "average" else None
        return network(x, present, available, self.full_task > 0, teacher)

    def distillation(self, seen: Pass, target, present: Tensor, available: Tensor | None = None) -> Tensor:
        """Distillation of this stage's places, and the guard's term."""
        if not self.wrapped and self.guard == "none":
            return super().distillation(seen, target, present)
        if self.places in FULL_SET:
            lesson = self.full_set_lesson(seen, target, present, available) / len(present)
        else:
            regional = self.per_region and self.guard == "foreground"
            ratios = self.importance.region_ratios() if regional else self.importance.ratios()
            lesson = sum(pairwise_distillation(f, seen.index, ratios, self.p, self.direction, self.distance, s,
                                               self.voxel_weights(target, f))
                         for f, s in zip(seen.features, seen.students)) / len(seen.features)
        return lesson + self.guard_term(seen) + seen.nothing

    def full_set_lesson(self, seen: Pass, target, present: Tensor, available: Tensor | None) -> Tensor:
        """Sum over the samples that are taught."""
        outputs = seen.logits[0] if isinstance(seen.logits, list) else seen.logits
        if not seen.taught:
            return 0 * outputs.float().sum()
        ratios = self.importance.set_ratios(available[seen.taught], present[seen.taught])  # (n, K)
        taught = partial(rows_of, rows=seen.taught)
        if self.places == "logits":
            full = seen.full_logits[0] if isinstance(seen.full_logits, list) else seen.full_logits
            if not self.per_region:
                ratios = ratios[:, 0]
            elif not self.label_manager.has_regions:  # the background is no region
                ratios = torch.cat([ratios.mean(1, keepdim=True), ratios], 1)
            weights = self.voxel_weights(target, outputs, whole=True)
            return logit_lessons(taught(outputs), full, ratios, self.label_manager.has_regions, self.temperature,
                                 None if weights is None else taught(weights))
        if not (self.per_region and self.guard == "foreground"):
            ratios = ratios.mean(1)
        lesson = 0
        for student, teacher in zip(seen.students, seen.full_features):
            weights = self.voxel_weights(target, student)
            lesson = lesson + feature_lessons(taught(student), teacher, ratios, self.distance, self.p,
                                              None if weights is None else taught(weights))
        return lesson / len(seen.students)

    def voxel_weights(self, target, features: Tensor, whole: bool = False) -> Tensor | None:
        """(B, K, *spatial) of the features' size: where the foreground is, or each region; None: everywhere alike.

        A patch without foreground weighs nothing, so it teaches nothing. `whole`: not region by region.
        """
        if self.guard != "foreground":
            return None
        truth = region_truth(target, self.label_manager)
        if whole or not self.per_region:
            truth = truth.any(1, keepdim=True)
        return region_weights(truth, features.shape[2:])

    def guard_term(self, seen: Pass) -> Tensor | float:
        """The guard's hinge over the features of samples that are taught, before any projection; mean over scales."""
        if self.guard not in ("variance", "between_cases"):
            return 0.0
        if self.places == "decoder":
            index = torch.full((len(seen.index), 1), -1)  # (B, 1)
            index[seen.taught, 0] = torch.tensor(seen.taught, dtype=torch.long)
        else:
            index = torch.where((seen.index >= 0).sum(1, keepdim=True) > 1, seen.index, -1).cpu()  # (B, M)
        items = index[index >= 0].tolist()
        hinges = [variance_hinge(rows_of(features, items)) if self.guard == "variance" else
                  between_cases_hinge(features, index) for features in seen.features]
        return sum(hinges) / len(hinges)

    def full_loss(self, seen: Pass, target) -> Tensor | None:
        """Task loss of all that the cases have; None where the stage drops nothing, or without `full_task`."""
        if not (self.decodes_twice and self.full_task > 0):
            return None
        if not seen.taught:
            return self.loss(seen.logits, target)
        if isinstance(seen.logits, list):
            return self.loss([replaced(*pair, seen.taught) for pair in zip(seen.logits, seen.full_logits)], target)
        return self.loss(replaced(seen.logits, seen.full_logits, seen.taught), target)

    # ---- the outer problem's view of held-out cases ---------------------------------------------------------------

    def scores_of(self, logits, target):
        """Soft Dice of every region or foreground label."""
        finest = (logits[0] if isinstance(logits, list) else logits).float()
        truth, counted = region_truth(target, self.label_manager), counted_voxels(target, self.label_manager)
        p = finest.sigmoid() if self.label_manager.has_regions else finest.softmax(1)[:, 1:]
        if counted is not None:
            p, truth = p * counted[:, None], truth & counted[:, None]
        p, truth = p.flatten(2), truth.flatten(2)  # (B, K, V)
        size = truth.sum(2)
        dice = 2 * (p * truth).sum(2) / (p.sum(2) + size).clamp_min(1e-8)
        return torch.where(size > 0, dice, torch.nan)


def rows_of(values: Tensor, rows: list[int] | None) -> Tensor:
    """Some rows of a tensor; the tensor itself, not a copy, where they are all."""
    return values if rows is None or len(rows) == len(values) else values[rows]


def replaced(values: Tensor, others: Tensor, rows: list[int]) -> Tensor:
    """`values` (B, ...) with `others` (n, ...) in these rows."""
    if len(rows) == len(values):
        return others
    return values.index_copy(0, torch.tensor(rows, device=values.device), others.to(values.dtype))
