"""MIND: ensembles of unimodal teachers distil into the heads of a compact multimodal student.

"MIND: Modality-Informed Knowledge Distillation Framework for Multimodal Clinical Prediction Tasks". Equation numbers are
the paper's. There is no public code; what we decide is in documentation/reference/methods/mind.md.
"""
from __future__ import annotations

from .distilled_student import DistilledStudent
from .modality_weights import parse_weights


class nnMissClassifierMIND(DistilledStudent):
    """Supervision of the fusion and of every modality's head (Eq. 2), distillation into the modalities' heads (Eq. 7)."""

    method = "mind"
    hyperparameters = {
        **DistilledStudent.hyperparameters,
        "supervise_heads": True,  # False: the modalities' heads learn from their teachers alone
    }
    run_settings = {
        **DistilledStudent.run_settings,
        "omega": "1",  # weights of distillation, Eq. 7: one number, or such as image:50+ehr:1; 0 needs no teacher
    }
    search = {"student.initial_lr": "1e-5..1e-3", "omega": "each:0.1..100"}  # Table A3; the paper names no range of omega

    @classmethod
    def taught(cls, modalities, settings):
        omega = parse_weights("omega", settings["omega"], modalities)
        return [name for name in modalities if omega[name] > 0]

    def losses(self, network, x, target, present):
        """Eq. 7: L_S of the fusion and of each head, plus omega_m times the distillation into head m."""
        if self.teacher is not None:
            return super().losses(network, x, target, present)
        heads = network.heads(x, present)
        omega = parse_weights("omega", self.omega, self.modalities)
        supervised = heads if self.supervise_heads else {"fusion": heads["fusion"]}
        parts = self.supervision(supervised, target)
        total = sum(parts.values())
        for name in self.lessons:
            parts[f"distillation_{name}"] = self.distillation(name, *heads[name])
            total = total + omega[name] * parts[f"distillation_{name}"]
        return {"loss": total, **parts}
