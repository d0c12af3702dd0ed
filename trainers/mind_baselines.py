"""What MIND is compared with: one or several heads without teachers, TS, MKE, and the mean of unimodal models.

Appendix A.4 and Table A4 of MIND; documentation/reference/methods/mind_baselines.md says what each paper leaves open.
"""
from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import torch

from nnmiss.availability import match_modality
from nnmiss.classification.sample_set import ModalityInput
from nnmiss.classification.tasks import num_outputs
from nnmiss.inference.checkpoints import read_checkpoint
from nnmiss.losses.ensemble_distillation import consistency
from nnmiss.networks.encoders import encoder_spec
from nnmiss.networks.expert_mixture import build_experts
from nnmiss.seeding import torch_generator

from .distilled_student import DistilledStudent
from .multi_head_student import MultiHeadStudent
from .stages import Stage
from .unimodal_teachers import UnimodalTeachers


class nnMissClassifierVanilla3H(MultiHeadStudent):
    """Eq. 2: a loss on the fusion and one on each modality's head. With fusion=medfuse: MedFuse-3H."""

    method = "vanilla_3h"
    run_settings = {"student_rows": "complete", "max_epochs": 100}

    @classmethod
    def taught(cls, modalities, settings):
        return []

    @classmethod
    def stages_of(cls, modalities, settings):
        return (Stage("student", settings["max_epochs"], drop_modalities=False),)


class nnMissClassifierVanilla(nnMissClassifierVanilla3H):
    """One loss on the fusion, no further head. With fusion=medfuse: MedFuse with random initialisation."""

    method = "vanilla"
    with_heads = False


class nnMissClassifierTS(DistilledStudent):
    """Teacher-student (Wang et al. 2020): the fusion learns from the labels and from a teacher of each modality."""

    method = "ts"
    with_heads = False
    run_settings = {
        **DistilledStudent.run_settings,
        "teachers": 1,
        "alpha": 0.5,  # weight of the first modality's teacher
        "beta": 0.5,  # weight of each other modality's
    }
    limits = {**DistilledStudent.limits, "alpha": (0, 1e6), "beta": (0, 1e6)}
    search = {"student.initial_lr": "1e-5..1e-3", "alpha": "0.0,0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9",
              "beta": "0.0,0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9"}

    @classmethod
    def taught(cls, modalities, settings):
        return [name for m, name in enumerate(modalities) if settings["beta" if m else "alpha"] > 0]

    def losses(self, network, x, target, present):
        """L_S of the fusion + alpha times its distance to the first modality's teacher + beta times to the others'."""
        if self.teacher is not None:
            return super().losses(network, x, target, present)
        heads = network.heads(x, present)
        parts = self.supervision(heads, target)
        total = parts["fusion"]
        logits, rows = heads["fusion"]
        for name in self.lessons:
            m = self.modalities.index(name)
            has = present[rows, m]
            parts[f"distillation_{name}"] = self.distillation(name, logits[has], rows[has])
            total = total + (self.beta if m else self.alpha) * parts[f"distillation_{name}"]
        return {"loss": total, **parts}


class nnMissClassifierMKE(DistilledStudent):
    """Multimodal knowledge expansion (Xue et al. 2021): the fusion learns from one modality's teacher, not from labels."""

    method = "mke"
    with_heads = False
    hyperparameters = {
        **DistilledStudent.hyperparameters,
        "gamma": 1.0,  # weight of the regularisation
        "noise": 0.1,  # standard deviation of what the second pass adds to the (normalised) inputs
    }
    run_settings = {**DistilledStudent.run_settings, "teachers": 1, "teacher_modality": ""}  # "": the first
    limits = {**DistilledStudent.limits, "gamma": (0, 1e6), "noise": (0, 1e3)}

    @classmethod
    def taught(cls, modalities, settings):
        return [modalities[match_modality(settings["teacher_modality"] or modalities[0], modalities)]]

    def training_cases(self, cases):
        """The student needs what its teacher saw."""
        kept = super().training_cases(cases)
        if self.teacher is not None:
            return kept
        m = self.modalities.index(self.taught(self.modalities, {"teacher_modality": self.teacher_modality})[0])
        return [case for case in kept if self.available[case][m]]

    def losses(self, network, x, target, present):
        """L_KD of the fusion + gamma times how far its prediction moves when noise is added to the inputs."""
        if self.teacher is not None:
            return super().losses(network, x, target, present)
        logits, rows = network.heads(x, present)["fusion"]
        (name,) = self.lessons
        parts = {"distillation": self.distillation(name, logits, rows)}
        total = parts["distillation"]
        if self.gamma > 0:
            noisy, _ = network.heads([self.disturbed(part, m) for m, part in enumerate(x)], present)["fusion"]
            parts["regularisation"] = consistency(logits, noisy, self.task)
            total = total + self.gamma * parts["regularisation"]
        return {"loss": total, **parts}

    def disturbed(self, part: ModalityInput, modality: int) -> ModalityInput:
        """A modality with Gaussian noise, the same again for the same iteration."""
        generator = torch_generator(self.seed, self.stage.name, self.current_epoch, self.iteration, "noise", modality)
        noise = torch.randn(part.values.shape, generator=generator).to(part.values)
        return replace(part, values=part.values + self.noise * noise)


class nnMissClassifierUME(UnimodalTeachers):
    """Unimodal ensemble (Du et al. 2023): the mean of the probabilities of each present modality's best model.

    The last stage trains nothing: it chooses the models on validation samples and stores them as one network.
    """

    method = "ume"
    hyperparameters = {**MultiHeadStudent.hyperparameters, "select_on": "mean"}
    run_settings = {key: value for key, value in UnimodalTeachers.teacher_settings.items() if key != "teachers"}
    unused = ("feature_dim", "hidden", "dropout")
    presets = {"paper": {}, "clinical": {k: v for k, v in MultiHeadStudent.presets["clinical"].items() if k != "fusion"}}
    search = {"initial_lr": "1e-6..1e-4"}  # Table A3

    @classmethod
    def stages_of(cls, modalities, settings):
        return (*cls.teacher_stages(modalities, settings), Stage("mean", 1, drop_modalities=False))

    @classmethod
    def build_classifier(cls, configuration, shapes, task, classes):
        """One model per modality, of the configuration's encoders, mixed with equal weights."""
        return build_experts(configuration, shapes, num_outputs(task, classes), task, level="probabilities",
                             gating="static")

    def initialize(self):
        if self.teacher is None:
            self.num_epochs = 1
        super().initialize()

    def recall(self, checkpoint_of):
        """Puts each modality's best model into the network; its encoder goes into the stored configuration."""
        if self.teacher is not None:
            return
        best = self.choose_teachers(checkpoint_of)
        configuration = deepcopy(self.configuration)
        for modality, weights in best.items():
            (number,) = weights
            block = configuration["modalities"][self.modalities[modality]]
            spec = encoder_spec(self.teacher_encoder(modality, number))
            block["encoder"] = {**(block["encoder"] if block["encoder"]["name"] == spec["name"] else {}), **spec}
        self.configuration = configuration
        self.network = self.stage_network().to(self.device)
        self.optimizer, self.lr_scheduler = self.configure_optimizers()
        for modality, weights in best.items():
            for state in weights.values():
                self.network.load_expert(modality, state)

    def load_checkpoint(self, filename_or_checkpoint):
        """The network is that of the encoders that were chosen."""
        given = isinstance(filename_or_checkpoint, dict)
        checkpoint = filename_or_checkpoint if given else read_checkpoint(filename_or_checkpoint)
        if self.teacher is None and "configuration" in checkpoint.get("init_args", {}):
            self.configuration, self.was_initialized = checkpoint["init_args"]["configuration"], False
        super().load_checkpoint(checkpoint)

    def train_epoch(self):
        """In the last stage there is nothing to learn: the network is validated and stored."""
        return super().train_epoch() if self.teacher is not None else [{"loss": 0.0}]


