"""The validation half of the classification trainer: scores after every epoch, the best epoch, the end of a stage."""
from __future__ import annotations

import math

import torch
from torch import Tensor

from nnmiss.availability import AVAILABLE, Present, parse_subset, subset_name
from nnmiss.classification.tasks import TaskLoss

from .classification_scores import score

MEAN, FULL = "mean", "full"  # `select_on`: over the reported subsets; all modalities


class ClassificationValidation:
    """Validation of epochs, on the fold's validation samples alone; mixed into ClassificationTrainer."""

    @property
    def select_score(self) -> str:
        """The score that epochs are compared by: `select_by`, or the usual one of the task."""
        return self.select_by if self.select_by != "auto" else "accuracy" if self.task == "multiclass" else "auroc"

    def validated_subsets(self) -> dict[str, Present]:
        """Name -> subset, of those that are scored after every epoch: the one of `select_on`, else all.

        A stage that reports a single subset, as an expert's, has no other; of many modalities not all subsets are reported.
        """
        subsets = named(self.reported_subsets(), self.modalities)
        chosen = chosen_subset(self.select_on, self.modalities)
        if chosen == MEAN or len(subsets) == 1:
            return subsets
        if chosen in subsets:
            return {chosen: subsets[chosen]}
        return {chosen: (True,) * len(self.modalities) if chosen == AVAILABLE else parse_subset(chosen, self.modalities)}

    def on_validation_epoch_start(self) -> None:
        """Called before the validation batches of an epoch."""
        self.network.eval()

    def validation_step(self, batch: dict) -> dict:
        """What one validation batch gives: `logits` (S, B, outputs) of `validated_subsets`, and `rows` (B,)."""
        x, _ = self.to_device(batch)
        subsets = torch.tensor(list(self.validated_subsets().values()), device=self.device)  # (S, M)
        logits = self.inference_network.forward_subsets(x, self.available_of(batch["keys"], self.files), subsets)
        return {"logits": logits.float().cpu(), "rows": batch["rows"]}

    def on_validation_epoch_end(self, outputs: list[dict]) -> None:
        """Scores the epoch and notes whether it is the best so far."""
        loss, scores = self.validation_scores(outputs) if outputs else (math.nan, {})
        whole = self.selection(scores, loss)
        self.curves.add(self.current_epoch, val_losses=loss, scores=scores, score=whole)
        ranked = (whole, -loss)  # of two equal scores the one with the lower loss is better
        if not math.isnan(whole) and (self.best is None or ranked > (self.best["score"], -self.best["loss"])):
            self.best = {"epoch": self.current_epoch, "score": whole, "loss": loss}

    def validation_scores(self, outputs: list[dict]) -> tuple[float, dict[str, float]]:
        """(loss, subset -> `select_score`) of an epoch, from what `validation_step` gave; higher is better.

        A subset counts the samples that have it in full; without any it is NaN. The loss is that of all subsets.
        """
        rows = torch.cat([out["rows"] for out in outputs])
        logits = torch.cat([out["logits"] for out in outputs], 1)  # (S, V, outputs)
        target, have = self.samples.targets[rows], self.samples.available[rows]
        known = target >= 0 if self.task == "multiclass" else (~target.isnan()).any(1)
        losses, scores = [], {}
        for (name, subset), predicted in zip(self.validated_subsets().items(), logits):
            whole = have.any(1) if name == AVAILABLE else (have | ~torch.tensor(subset)).all(1)
            kept = whole & known & ~predicted.isnan().any(1)
            if kept.any():
                losses.append(float(TaskLoss(self.task)(predicted[kept], target[kept])))
            scores[name] = self.score_of(predicted[kept], target[kept])
        return (sum(losses) / len(losses) if losses else math.nan), scores

    def score_of(self, logits: Tensor, target: Tensor) -> float:
        """`select_score` of some samples; of a loss its negative; NaN where it is not defined."""
        return score(self.select_score, logits, target, self.task)

    def selection(self, scores: dict[str, float], loss: float) -> float:
        """The number by which epochs are compared, higher is better: the mean score of the subsets.

        Where none is defined, as for AUROC of one class, it is the negative loss; NaN where nothing is labelled.
        """
        counted = [value for name, value in scores.items()
                   if not math.isnan(value) and (name != AVAILABLE or len(scores) == 1)]
        return sum(counted) / len(counted) if counted else -loss

    @property
    def ended_early(self) -> bool:
        """Whether `patience` epochs have passed without a better one."""
        return bool(self.patience) and self.best is not None and \
            self.current_epoch - 1 - self.best["epoch"] >= self.patience


def named(subsets: list[Present], modalities: list[str]) -> dict[str, Present]:
    """Name -> subset; where the full set is among them also `available`, everything a sample has."""
    names = {subset_name(s, modalities): s for s in subsets}
    everything = (True,) * len(modalities)
    return {**names, AVAILABLE: everything} if everything in subsets else names


def chosen_subset(select_on: str, modalities: list[str]) -> str:
    """The subset that `select_on` names: `mean`, `available`, or a subset's name. Raises NnmissError for unknown ones."""
    if select_on in (MEAN, AVAILABLE):
        return select_on
    return "+".join(modalities) if select_on == FULL else subset_name(parse_subset(select_on, modalities), modalities)
