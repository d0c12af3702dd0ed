"""The data half of the segmentation trainer: folds, what each case has, what the network is shown, and batches."""
from __future__ import annotations

from functools import partial

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA
from torch import Tensor

from nnmiss.availability import (
    Present,
    all_subsets,
    apply_missing_table,
    read_availability,
    read_missing_table,
    reported_subsets,
)
from nnmiss.errors import NnmissError
from nnmiss.networks.memory_format import fastest_layout
from nnmiss.seeding import derive_seed, seed_libraries, torch_generator

from .loaders import choose_without_timing
from .splits import fold_cases, hold_out, load_or_make_splits, without_test_cases
from .weight_average import WeightAverage


class TrainingData(nnUNetTrainer):
    """Cases and batches of a run; mixed into MissingModalityTrainer, whose attributes it uses."""

    def initialize(self):
        self.files = read_availability(self.preprocessed_dataset_folder_base, self.modalities)  # validation sees them all
        self.available = self.files  # training: without what a table of simulated missingness takes away
        if self.missing_table:
            self.available = apply_missing_table(self.files, read_missing_table(self.missing_table, self.modalities))
        torch.manual_seed(derive_seed(self.seed, self.method, self.stage.name, "initial weights"))
        super().initialize()
        fastest_layout(self.bare_network, self.device)
        if self.ema_decay:
            self.average = WeightAverage(self.inference_network, self.ema_decay)

    def do_split(self):
        """(training, validation) cases of the fold; held-out cases are still among the training cases here."""
        cases = sorted(self.available)
        splits = load_or_make_splits(self.preprocessed_dataset_folder_base, cases)
        return fold_cases(splits, self.fold, without_test_cases(self.preprocessed_dataset_folder_base, cases))

    def get_tr_and_val_datasets(self):
        training, validation = self.do_split()
        self.check_preprocessed({*training, *validation})
        training, self.held_out = hold_out(training, self.available, self.num_held_out(), self.seed)
        training = self.training_cases(training)
        if not training:
            raise NnmissError(f"stage {self.stage.name} of {self.method} has no training case in fold {self.fold}: none "
                              "has the modalities it needs")
        validation = self.training_cases(validation) or training
        self.print_to_log_file(f"training {training}, held out {self.held_out}, validation {validation}")
        return (self.dataset_class(self.preprocessed_dataset_folder, training),
                self.dataset_class(self.preprocessed_dataset_folder, validation))

    @staticmethod
    def get_training_transforms(*args, **kwargs):
        """nnU-Net's augmentation; replayable where one process loads."""
        transforms = nnUNetTrainer.get_training_transforms(*args, **kwargs)
        return choose_without_timing(transforms) if get_allowed_n_proc_DA() == 0 else transforms

    def check_preprocessed(self, cases: set[str]) -> None:
        """Raises NnmissError when cases of the split have no whole preprocessed file."""
        have = set(self.dataset_class.get_identifiers(self.preprocessed_dataset_folder))
        lacking = sorted(cases - have)
        if lacking:
            raise NnmissError(f"{len(lacking)} case(s) are not in {self.preprocessed_dataset_folder}, such as "
                              f"{', '.join(lacking[:3])}: finish nnmiss_plan_and_preprocess -c {self.configuration_name}")

    def available_of(self, keys, table: dict[str, Present] | None = None) -> Tensor:
        """(B, M) bool on the device: what the cases of a batch have, by default for training."""
        table = self.available if table is None else table
        return torch.tensor([table[str(key)] for key in keys], dtype=torch.bool, device=self.device)

    def draw_present(self, available: Tensor) -> Tensor:
        """(B, M) bool: what the network is shown in this iteration; replayable from seed, stage and iteration."""
        if not self.stage.drop_modalities:
            return available
        return self.sampler.draw(available, torch_generator(
            self.seed, self.stage.name, self.current_epoch, self.iteration, 0, "present"))

    def next_batch(self, loader, *purpose, whole: bool = False) -> dict:
        """This process's part of the next batch; with single-process loading it is the same again after a resume.

        Loading processes load that part alone, unless theirs are `whole` batches. Without them each training process
        loads the whole batch, so that a run does not depend on how many there are.
        """
        if not hasattr(loader, "num_processes"):
            seed_libraries(self.seed, self.stage.name, 0, *purpose)
            whole = True
        return self.my_part(next(loader)) if whole else next(loader)

    def to_device(self, batch: dict) -> tuple[Tensor, list[Tensor] | Tensor]:
        """(data, target) of a batch on the device."""
        target = batch["target"]
        move = partial(torch.Tensor.to, device=self.device, non_blocking=True)
        return move(batch["data"]), [move(t) for t in target] if isinstance(target, list) else move(target)

    def validation_subset(self, number: int) -> tuple[bool, ...]:
        """The subset shown in validation batch `number`: a fixed cycle, spread evenly when there are more subsets."""
        subsets = all_subsets(len(self.modalities))
        batches = self.num_val_iterations_per_epoch
        return subsets[number % len(subsets) if batches >= len(subsets) else number * len(subsets) // batches]

    def reported_subsets(self) -> list[Present]:
        """The subsets the final validation predicts and evaluates, of cases that have at least one of them in full."""
        return reported_subsets(len(self.modalities))
