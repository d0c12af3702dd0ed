"""Stages that train unimodal teachers, and what the best of them say of every training sample (MIND, Eq. 4)."""
from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from nnmiss.classification.tasks import num_outputs
from nnmiss.errors import NnmissError
from nnmiss.inference.classify_samples import subset_logits
from nnmiss.losses.ensemble_distillation import ensemble_targets
from nnmiss.networks.single_expert import build_expert
from nnmiss.seeding import derive_seed

from .classification import ClassificationTrainer
from .shared_teachers import keep, shared_teacher, take
from .stages import Stage
from .teacher_list import num_listed, teachers_of

PREFIX = "teacher_"


class UnimodalTeachers(ClassificationTrainer):
    """Base of the methods with teachers: a stage `teacher_<modality>_<number>` each, before the stage of the method.

    A teacher is an encoder with its own head, trained on every training sample that has its modality, whatever else the
    sample lacks. Weights and batches depend on seed and stage, not on the method, so that all methods have the same
    teachers, and a finished one is not trained again (nnmiss.trainers.shared_teachers).

    Attributes:
        lessons: modality -> (N, outputs) mean probabilities of its teachers; NaN for samples that are not trained on.
    """

    teacher_settings = {
        "teachers": 3,  # how many of a modality's teachers teach, the best on validation samples; 1 is a single teacher
        "teacher_encoders": "",  # such as image:resnet34+resnet18+ehr:lstm2+lstm3; what it does not name: teacher_list.py
        "share_teachers": True,  # take finished teachers of other runs that were trained alike
        "max_epochs": 100,  # of each stage, where num_epochs is 0
    }
    limits = {"teachers": (1, 100), "max_epochs": (1, 10**7)}
    teachers = 1
    tau = 1.0

    @classmethod
    def taught(cls, modalities: list[str], settings: dict[str, object]) -> list[str]:
        """The modalities that have teachers."""
        return modalities

    @classmethod
    def teacher_stages(cls, modalities: list[str], settings: dict[str, object]) -> tuple[Stage, ...]:
        """One stage per teacher."""
        listed, needed = num_listed(settings["teacher_encoders"], modalities), settings.get("teachers", 1)
        taught = cls.taught(modalities, settings)
        for name in taught:
            if listed[name] < needed:
                raise NnmissError(f"teachers={needed}, but only {listed[name]} of modality {name} are trained: list more "
                                  "with teacher_encoders, or lower teachers")
        return tuple(Stage(f"{PREFIX}{name}_{k}", settings["max_epochs"], drop_modalities=False)
                     for name in taught for k in range(1, listed[name] + 1))

    def teacher_of(self, stage: str) -> tuple[int, int] | None:
        """(modality, number from 1) of the teacher that a stage trains; None for the method's own."""
        modality, _, number = stage.removeprefix(PREFIX).rpartition("_")
        return (self.modalities.index(modality), int(number)) if stage.startswith(PREFIX) else None

    @property
    def teacher(self) -> tuple[int, int] | None:
        """`teacher_of` this stage."""
        return self.teacher_of(self.stage.name)

    @property
    def alone(self):
        return self.teacher and self.teacher[0]

    def teacher_encoder(self, modality: int, number: int) -> str:
        """Short name of a teacher's encoder."""
        name = self.modalities[modality]
        planned = self.configuration["modalities"][name]["encoder"]
        return teachers_of(self.teacher_encoders, self.modalities, name, planned)[number - 1]

    def build_teacher(self, modality: int, number: int) -> nn.Module:
        """A teacher as a network of all modalities."""
        name = self.modalities[modality]
        return build_expert(self.configuration, self.samples.shapes, num_outputs(self.task, self.classes), name,
                            f"{name}:{self.teacher_encoder(modality, number)}")

    # ---- a teacher's stage --------------------------------------------------------------------------------------

    def stage_network(self):
        torch.manual_seed(derive_seed(self.seed, self.stage.name, "initial weights"))  # the same for all methods
        return super().stage_network() if self.teacher is None else self.build_teacher(*self.teacher)

    def choose_samples(self):
        if self.teacher is not None:
            self.select_on = self.modalities[self.teacher[0]]
        super().choose_samples()

    @property
    def starts_afresh(self):
        return self.teacher is None

    def begin_stage(self, checkpoint_of):
        """Every stage starts from random weights; pretrained ones are for the method's own."""

    def run_training(self):
        """Trains, unless another run of this data set has trained the same teacher."""
        if self.teacher is None:
            super().run_training()
            return
        print(f"{self.stage.name}: {self.teacher_encoder(*self.teacher)}, {len(self.training)} training samples"
              + ", so it stays as it is and teaches nobody" * (not self.training))
        if not self.training:
            super().run_training()
            return
        finished = shared_teacher(self) if self.share_teachers else None
        if finished is not None and not self.current_epoch and take(finished, self):
            return
        super().run_training()
        if finished is not None:
            keep(finished, self)

    # ---- what the teachers say ----------------------------------------------------------------------------------

    def recall(self, checkpoint_of):
        """In the method's own stage: chooses the teachers and asks them about the training samples, once."""
        self.lessons = {}
        if self.teacher is None:
            for modality, weights in self.choose_teachers(checkpoint_of).items():
                self.lessons[self.modalities[modality]] = self.lesson(modality, weights)

    def choose_teachers(self, checkpoint_of: Callable[[str], dict]) -> dict[int, dict[int, dict[str, Tensor]]]:
        """Modality -> number of each teacher that teaches, the best on validation samples first -> its weights."""
        finished: dict[int, dict[int, tuple[float, dict]]] = {}
        for stage in self.stages:
            if self.teacher_of(stage.name) is not None:
                modality, number = self.teacher_of(stage.name)
                checkpoint = checkpoint_of(stage.name)
                finished.setdefault(modality, {})[number] = checkpoint["kept"]["score"], checkpoint["network_weights"]
        chosen = {}
        for modality, graduates in finished.items():
            best = best_first({number: score for number, (score, _) in graduates.items()})[: self.teachers]
            chosen[modality] = {number: graduates[number][1] for number in best}
            if not any(self.data.available[name][modality] for name in self.data.training):
                print(f"teachers of {self.modalities[modality]}: untrained, as no training sample has it")
                continue
            print(f"teachers of {self.modalities[modality]}, by validation {self.select_score}, * teaches: " + ", ".join(
                f"{self.teacher_encoder(modality, number)} {score:.4f}{' *' if number in best else ''}"
                for number, (score, _) in graduates.items()))
        return chosen

    def lesson(self, modality: int, weights: dict[int, dict[str, Tensor]]) -> Tensor:
        """(N, outputs): mean probabilities of some teachers of a modality, for the training samples that have it."""
        rows = self.rows_of_ids(name for name in self.training if self.available[name][modality])
        logits = []
        for number, state in weights.items():
            network = self.build_teacher(modality, number)
            network.load_state_dict(state)
            logits.append(subset_logits(network.to(self.device), self.samples, rows, self.only(modality)[None],
                                        self.device)[0])  # (n, outputs)
        table = torch.full((len(self.samples), logits[0].shape[1]), torch.nan)
        table[rows] = ensemble_targets(torch.stack(logits), self.task, self.tau)
        return table

    def lessons_for(self, modality: str, rows: Tensor) -> Tensor:
        """(n, outputs) on the device: what the teachers of a modality say of these rows (n,) of the batch."""
        return self.lessons[modality][self.batch_rows[rows.cpu()]].to(self.device)


def best_first(scores: dict[int, float]) -> list[int]:
    """The keys, that of the highest score first; of equals the first, and what has no score last."""
    return sorted(scores, key=lambda k: (-scores[k] if scores[k] == scores[k] else float("inf"), k))
