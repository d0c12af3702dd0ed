"""What MIND's student and the baselines it is compared with share: network, rows, best epoch, utilisation of modalities."""
from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from nnmiss.availability import AVAILABLE, subset_name
from nnmiss.classification.tasks import num_outputs
from nnmiss.errors import NnmissError
from nnmiss.networks.multi_head import FUSIONS, PARTIAL, build_multi_head

from . import utilisation
from .classification_scores import score
from .classification_validation import FULL
from .stages import Stage
from .unimodal_teachers import UnimodalTeachers


class MultiHeadStudent(UnimodalTeachers):
    """A fusion head, and by choice a head per modality; the last stage of the methods, `student`."""

    with_heads = True  # beside the fusion head
    hyperparameters = {
        "optimizer_name": "adam",  # section 4
        "initial_lr": 1e-4,  # Table A3 has ranges: 1e-3 to 1e-5 for students, 1e-4 to 1e-6 for teachers
        "weight_decay": 0.0,
        "class_balance": "none",
        "select_on": FULL,  # epochs are compared by the fusion's score on samples with all modalities (section 4)
    }
    run_settings = {
        **UnimodalTeachers.teacher_settings,
        "student_rows": "complete",  # training samples of the student: those with all modalities, or "all" (section 3)
    }
    network_settings = {"fusion": "concat", "partial": "average", "dropout": 0.0}
    unused = ("feature_dim", "hidden")
    limits = {**UnimodalTeachers.limits, "dropout": (0, 0.99)}
    choices = {"student_rows": ("complete", "all"), "fusion": FUSIONS, "partial": PARTIAL}
    presets = {
        "paper": {"student.initial_lr": 1e-3},  # appendix C: up to 100 epochs, batches as planned, a linear fusion
        "clinical": {"max_epochs": 300, "patience": 40, "batch_size": 16, "fusion": "medfuse",  # section 4, Table A3
                     "schedule": "plateau", "lr_decay": 0.5, "lr_step": 10},  # MedFuse's
    }
    search = {"student.initial_lr": "1e-5..1e-3"}  # Table A3; what nnmiss_search draws

    @classmethod
    def stages_of(cls, modalities, settings):
        student = Stage("student", settings["max_epochs"], drop_modalities=False)
        return (*cls.teacher_stages(modalities, settings), student)

    @classmethod
    def build_classifier(cls, configuration, shapes, task, classes) -> nn.Module:
        """The plan's encoders, a fusion head and with `with_heads` one head each."""
        block = configuration["nnmiss"]
        return build_multi_head(configuration, shapes, num_outputs(task, classes), task, fusion=block["fusion"],
                                dropout=block["dropout"], with_heads=cls.with_heads, partial=block["partial"])

    # ---- samples ------------------------------------------------------------------------------------------------

    def training_cases(self, cases):
        if self.teacher is not None or self.student_rows == "all":
            return super().training_cases(cases)
        return [case for case in cases if all(self.available[case])]

    def choose_samples(self):
        if self.student_rows == "complete" and not any(all(self.data.available[name]) for name in self.data.training):
            raise NnmissError(f"no training sample of fold {self.fold} has all modalities ({', '.join(self.modalities)}), "
                              f"on which the student of {self.method} is trained: --set student_rows=all trains it on the "
                              "others too")
        super().choose_samples()
        if self.teacher is None:  # which samples train says nothing about those that the student is validated on
            self.validation = list(self.data.validation)
        if self.select_on == FULL:  # without a complete validation sample, with whatever they have
            complete = any(all(self.files[name]) for name in self.labelled(self.validation))
            self.select_on = subset_name((True,) * len(self.modalities), self.modalities) if complete else AVAILABLE

    # ---- loss ---------------------------------------------------------------------------------------------------

    def losses(self, network, x, target, present):
        """Eq. 2 with heads; without, the loss of the fusion alone."""
        if self.teacher is not None:
            return super().losses(network, x, target, present)
        parts = self.supervision(network.heads(x, present), target)
        return {"loss": sum(parts.values()), **parts}

    def supervision(self, heads: dict[str, tuple[Tensor, Tensor]], target: Tensor) -> dict[str, Tensor]:
        """The task loss of every head, over the samples it applies to."""
        return {name: self.loss(logits, target[rows]) for name, (logits, rows) in heads.items()}

    # ---- validation ---------------------------------------------------------------------------------------------

    def validated_subsets(self):
        subsets = super().validated_subsets()
        if self.teacher is not None:
            return subsets
        left_out = map(tuple, utilisation.leave_one_out(len(self.modalities)).tolist())
        return {**subsets, **{subset_name(s, self.modalities): s for s in left_out}}

    def selection(self, scores, loss):
        """As for every method: what only the utilisation needs does not count."""
        return super().selection({name: scores[name] for name in super().validated_subsets()}, loss)

    def validation_scores(self, outputs):
        loss, scores = super().validation_scores(outputs)
        if self.teacher is None:
            self.note_utilisation(torch.cat([out["logits"] for out in outputs], 1),
                                  torch.cat([out["rows"] for out in outputs]))
        return loss, scores

    def note_utilisation(self, logits: Tensor, rows: Tensor) -> None:
        """Adds the epoch's row to the table `utilisation`, from the validation samples that have all modalities.

        Args:
            logits: (S, V, outputs) of `validated_subsets`. rows: (V,) long.
        """
        position = {subset: i for i, subset in enumerate(self.validated_subsets().values())}
        wanted = [position[tuple(s)] for s in utilisation.leave_one_out(len(self.modalities)).tolist()]
        known = set(self.labelled(self.validation))
        kept = torch.tensor([self.samples.ids[row] in known for row in rows.tolist()]) & self.samples.available[rows].all(1)
        target = self.samples.targets[rows]
        usual = "accuracy" if self.task == "multiclass" else "auroc"
        metric = self.select_score if self.select_score != "loss" else usual
        full, *without = [score(metric, logits[s][kept], target[kept], self.task) for s in wanted]
        values = [self.current_epoch + 1, *utilisation.row(full, without)]
        self.progress.add_row("utilisation", ["epoch", *utilisation.columns(self.modalities)],
                              self.first_iteration + self.iteration, values)

    def write_figures(self):
        super().write_figures()
        if self.figures and "utilisation" in self.progress.tables:
            utilisation.draw(self.progress.tables["utilisation"], self.best and self.best["epoch"] + 1,
                             Path(self.fold_folder) / "utilisation.png")
