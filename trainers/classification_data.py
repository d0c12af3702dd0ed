"""The data half of the classification trainer: what it trains on, what each sample has, and batches."""
from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from nnmiss.availability import Present, draw_present, reported_subsets
from nnmiss.classification.balance import class_weights, sample_weights, smote
from nnmiss.classification.description import Description
from nnmiss.classification.preprocessing import augmented
from nnmiss.classification.sample_set import ModalityInput, SampleSet
from nnmiss.classification.tasks import TaskLoss
from nnmiss.errors import NnmissError
from nnmiss.seeding import derive_seed, torch_generator

from .splits import hold_out


@dataclass(frozen=True)
class FoldData:
    """One fold of a data set, preprocessed.

    description: what dataset.json says. configuration: the plan's, with the settings of the run's network.
    samples: all samples of the data set, with everything they have.
    training, validation, test: ids. available: id -> what training may use, of every sample.
    fitted: the preprocessing that was fitted on the training samples.
    """

    description: Description
    configuration: dict
    samples: SampleSet
    training: list[str]
    validation: list[str]
    test: list[str]
    available: dict[str, Present]
    fitted: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Batches:
    """Random batches of `rows` (n,) long, replayable from the parts of `purpose` and of `rows_of`.

    batch_size: the largest; the batches of a pass are equally large to within one sample.
    weights: (n,) float chances of being drawn, with replacement; None: every row once a pass.
    """

    rows: Tensor
    batch_size: int
    purpose: tuple = ()
    weights: Tensor | None = None

    def __len__(self) -> int:
        """Batches in a pass over all rows."""
        return max(1, -(-len(self.rows) // self.batch_size))

    def rows_of(self, *parts) -> Tensor:
        """(B,) long: the rows of one batch, any of the first pass that these parts give."""
        return self.of_pass(0, *parts)[0]

    def of_pass(self, number: int, *parts) -> tuple[Tensor, ...]:
        """The batches of one pass over the rows, each (B,) long."""
        generator = torch_generator(*self.purpose, "order", number, *parts)
        order = torch.randperm(len(self.rows), generator=generator) if self.weights is None else torch.multinomial(
            self.weights, len(self.rows), replacement=True, generator=generator)
        return self.rows[order].tensor_split(len(self))


class TrainingBatches:
    """The training batches of a stage: pass after pass over the rows, whatever the length of an epoch."""

    def __init__(self, batches: Batches, per_epoch: int):
        self.batches, self.per_epoch = batches, per_epoch
        self.made: tuple[int, tuple[Tensor, ...]] = (-1, ())

    def rows_of(self, epoch: int, iteration: int, *_) -> Tensor:
        """(B,) long: the rows of an iteration of an epoch."""
        number, position = divmod(epoch * self.per_epoch + iteration, len(self.batches))
        if self.made[0] != number:
            self.made = number, self.batches.of_pass(number)
        return self.made[1][position]


class ClassificationData:
    """Samples and batches of a run; mixed into ClassificationTrainer, whose attributes it uses."""

    def choose_samples(self) -> None:
        """Decides what this stage trains on: `training`, `held_out`, `validation`, `unlabelled`, `loss`, loaders."""
        data = self.data
        self.samples, self.test = data.samples, list(data.test)
        self.files = dict(zip(data.samples.ids, map(tuple, data.samples.available.tolist())))
        trained_on = set(data.training)  # a missingness table says nothing of the others
        self.available = {name: data.available[name] if name in trained_on else row for name, row in self.files.items()}
        self.position = {name: i for i, name in enumerate(data.samples.ids)}
        labelled = self.labelled(data.training)
        self.unlabelled = len(data.training) - len(labelled)
        training, self.held_out = hold_out(labelled, self.available, self.num_held_out(), self.seed,
                                           dict(zip(data.samples.ids, data.samples.groups)))
        self.training = self.training_cases(training)
        # where nobody has a modality, what reads it alone keeps its first weights, and the later stages train all the same
        if not self.training and (not training or self.stage is self.stages[-1]):
            raise NnmissError(f"stage {self.stage.name} of {self.method} has no training sample in fold {self.fold}: none "
                              "has a label and the modalities it needs")
        self.validation = list(data.validation)
        if self.class_balance == "smote" and self.training:
            self.oversample()
        targets = self.samples.targets[self.rows_of_ids(self.training)]
        weights = class_weights(self.task, targets, self.classes) if self.class_balance == "weights" else None
        self.loss = TaskLoss(self.task, weights)

    def labelled(self, ids: list[str]) -> list[str]:
        """Those of `ids` that have a label, or at least one of several."""
        targets = self.samples.targets
        known = targets >= 0 if self.task == "multiclass" else (~targets.isnan()).any(1)
        return [name for name in ids if known[self.position[name]]]

    def oversample(self) -> None:
        """Adds synthetic training samples of the rarer classes, made from what training may use."""
        before = self.samples
        allowed = torch.tensor([self.available[name] for name in before.ids])  # (N, M)
        seen = replace(before, modalities={
            name: replace(stored, row=torch.where(allowed[:, m], stored.row, -1))
            for m, (name, stored) in enumerate(before.modalities.items())})
        grown, rows = smote(seen, self.rows_of_ids(self.training), self.seed)
        whole = {name: replace(stored, row=torch.cat([before.modalities[name].row, stored.row[len(before):]]))
                 for name, stored in grown.modalities.items()}
        self.samples = replace(grown, modalities=whole)
        self.position = {name: i for i, name in enumerate(self.samples.ids)}
        for name, row in list(zip(self.samples.ids, map(tuple, grown.available.tolist())))[len(before):]:
            self.files[name] = self.available[name] = row
        self.training = [self.samples.ids[row] for row in rows.tolist()]

    def rows_of_ids(self, ids) -> Tensor:
        """(B,) long: where samples stand in `samples`."""
        return torch.tensor([self.position[name] for name in ids], dtype=torch.long)

    def do_split(self) -> tuple[list[str], list[str]]:
        """(training, validation) samples of the fold; held-out and unlabelled ones are still among them here."""
        return list(self.data.training), list(self.data.validation)

    def get_dataloaders(self) -> tuple[TrainingBatches, list[Tensor]]:
        """Training batches, and the rows of every validation batch."""
        rows, weights = self.rows_of_ids(self.training), None
        if self.class_balance == "sampler":
            weights = sample_weights(self.task, self.samples.targets[rows], self.classes)
        batches = Batches(rows, self.batch_size, (self.seed, self.stage.name), weights)
        return (TrainingBatches(batches, self.num_iterations_per_epoch),
                list(self.rows_of_ids(self.validation).split(self.validation_batch_size)))

    def make_loader(self, ids: list[str], batch_size: int, *purpose) -> Batches:
        """Batches of other samples, such as held-out ones, for `next_batch`; `purpose` tells loaders apart."""
        return Batches(self.rows_of_ids(ids), batch_size, (self.seed, self.stage.name, *purpose))

    def next_batch(self, loader: Batches | TrainingBatches, *purpose) -> dict:
        """A batch, the same again for the same purpose: data (one ModalityInput each), target, keys and rows."""
        parts = (self.seed, self.stage.name, *purpose)
        torch.default_generator.manual_seed(derive_seed(*parts))  # of dropout; torch.manual_seed takes longer than a step
        if self.device.type == "cuda":
            torch.cuda.manual_seed(derive_seed(*parts))
        batch = self.batch_of(loader.rows_of(*purpose))
        if self.data.fitted and isinstance(loader, TrainingBatches):
            batch["data"] = augmented(batch["data"], self.data.fitted, torch_generator(*parts, "augmentation"))
        return batch

    def batch_of(self, rows: Tensor) -> dict:
        """The batch of these rows (B,) long of `samples`."""
        return {"data": self.samples.inputs(rows), "target": self.samples.targets[rows], "rows": rows,
                "keys": [self.samples.ids[row] for row in rows.tolist()]}

    def to_device(self, batch: dict) -> tuple[list[ModalityInput], Tensor]:
        """(inputs, target) of a batch on the device."""
        return [part.to(self.device) for part in batch["data"]], batch["target"].to(self.device)

    def available_of(self, keys, table: dict[str, Present] | None = None) -> Tensor:
        """(B, M) bool on the device: what the samples of a batch have, by default for training."""
        table = self.available if table is None else table
        return torch.tensor([table[key] for key in keys], dtype=torch.bool, device=self.device)

    def draw_present(self, available: Tensor) -> Tensor:
        """(B, M) bool: what the network is shown in this iteration; replayable from seed, stage and iteration."""
        if not (self.stage.drop_modalities and self.drop):
            return available
        return draw_present(available, torch_generator(
            self.seed, self.stage.name, self.current_epoch, self.iteration, "present"))

    def reported_subsets(self) -> list[Present]:
        """The subsets that are validated after every epoch, and predicted and evaluated in the end."""
        if self.alone is not None:
            return [tuple(self.only(self.alone).tolist())]
        return reported_subsets(len(self.modalities))
