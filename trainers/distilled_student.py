"""A student that learns from the mean probabilities of unimodal teachers: what MIND, TS and MKE share."""
from __future__ import annotations

from torch import Tensor

from nnmiss.errors import NnmissError
from nnmiss.losses.ensemble_distillation import REDUCTIONS, ensemble_distillation

from .multi_head_student import MultiHeadStudent


class DistilledStudent(MultiHeadStudent):
    """Adds temperature, reduction and the distillation loss of one head from one modality's teachers."""

    hyperparameters = {
        **MultiHeadStudent.hyperparameters,
        "tau": 1.0,  # temperature of multiclass tasks, Eq. 1; the paper names none
        "reduction": "sum",  # over the labels of a multilabel task, Eq. 3; "mean" is the scale of the supervised loss
    }
    limits = {**MultiHeadStudent.limits, "tau": (1e-3, 1e3)}
    choices = {**MultiHeadStudent.choices, "reduction": REDUCTIONS}

    def initialize(self):
        if self.task != "multiclass" and self.tau != 1:
            raise NnmissError(f"tau={self.tau:g}: a temperature is for multiclass tasks, this one is {self.task}. Leave it "
                              "out, and weigh the distillation instead")
        super().initialize()

    def distillation(self, modality: str, logits: Tensor, rows: Tensor) -> Tensor:
        """How far logits (n, outputs) of these rows (n,) of the batch are from what the modality's teachers say of them."""
        return ensemble_distillation(logits, self.lessons_for(modality, rows), self.task, self.reduction, self.tau)
