"""One classification run on disk: the plan, the fold's preprocessed samples, and the training of one stage."""
from __future__ import annotations

from copy import deepcopy
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace

import torch

from nnmiss.atomic_files import read_json, writable_folder, write_json
from nnmiss.availability import AVAILABLE, apply_missing_table, modality_names, read_availability, read_missing_table
from nnmiss.classification.cache import AGAIN, INDEX, load_raw_samples
from nnmiss.classification.description import CONFIGURATION
from nnmiss.classification.preprocessing import apply_preprocessing, fit_preprocessing, save_preprocessing
from nnmiss.classification.preprocessing import notes as fit_notes
from nnmiss.classification.splits import fold_rows
from nnmiss.errors import NnmissError, shortened
from nnmiss.inference.checkpoints import read_checkpoint

from .classification import ClassificationTrainer, StageRun
from .classification_data import FoldData
from .classification_hooks import configured
from .classification_validation import chosen_subset
from .run_base import RunBase
from .run_record import digest, sha256


class ClassificationRun(RunBase):
    """A classification run on disk: where it is, what was asked, what is finished."""

    def read_dataset(self) -> None:
        self.dataset_json = read_json(self.preprocessed / "dataset.json", "preprocessed dataset.json "
                                      "(nnmiss_plan_and_preprocess writes it)", ("task", "labels", "modalities"))
        self.modalities = modality_names(self.dataset_json)

    def read_plans(self) -> dict:
        arguments = self.arguments
        plans = read_json(self.preprocessed / f"{arguments.plans_name}.json", "plans file (nnmiss_plan_and_preprocess "
                          "writes it)", ("configurations", "plans_name", "dataset_name"))
        if arguments.configuration not in plans["configurations"]:
            raise NnmissError(f"configuration {arguments.configuration!r} is not in {arguments.plans_name}.json: "
                              f"classification data sets have one, {CONFIGURATION}")
        if set(plans["configurations"][arguments.configuration].get("modalities", {})) != set(self.modalities):
            raise NnmissError(f"{arguments.plans_name}.json was made for other modalities than "
                              f"{', '.join(self.modalities)}: {AGAIN}")
        if arguments.tag:
            plans["plans_name"] = f"{plans['plans_name']}-{arguments.tag}"
        self.planned_configuration = deepcopy(plans["configurations"][arguments.configuration])
        return plans

    def write_network_settings(self) -> None:
        for settings in self.settings.values():
            chosen_subset(settings["select_on"], self.modalities)  # refuses unknown names before anything is written
        self.plans["configurations"][self.arguments.configuration] = configured(
            self.configuration, self.settings[self.stage_names[-1]], self.trainer_class.network_settings)

    @property
    def samples_folder(self) -> Path:
        """Where the preprocessed samples lie."""
        return self.preprocessed / self.configuration["data_identifier"]

    def check_cases(self) -> None:
        index = read_json(self.samples_folder / INDEX, "preprocessed samples (nnmiss_plan_and_preprocess makes them)",
                          ("ids", "groups"))
        available = self.available()
        lacking = sorted(set(index["ids"]) - set(available))
        if lacking:
            raise NnmissError(f"{self.preprocessed / 'availability.json'} lacks {lacking[0]}: {AGAIN}")
        fold_rows(self.preprocessed, SimpleNamespace(**index), self.arguments.fold)

    def available(self) -> dict[str, tuple[bool, ...]]:
        """Id -> what training may use: what there is, less what the missingness table takes away."""
        files = read_availability(self.preprocessed, self.modalities)
        if not self.missing_path:
            return files
        return apply_missing_table(files, read_missing_table(self.missing_path, self.modalities))

    def data_record(self) -> dict:
        files = sorted(self.samples_folder.glob("*.npz"))
        return {
            "configuration_sha256": digest({k: v for k, v in self.planned_configuration.items() if k != "nnmiss"}),
            "data_sha256": digest([self.dataset_json, sha256(self.preprocessed / "availability.json"),
                                   sha256(self.samples_folder / INDEX), sha256(self.samples_folder / "targets.npz"),
                                   [[file.name, file.stat().st_size] for file in files]]),
        }

    @cached_property
    def data(self) -> FoldData:
        """The fold, preprocessed with what was fitted on its training samples."""
        raw = load_raw_samples(self.samples_folder)
        training, validation, test = fold_rows(self.preprocessed, raw, self.arguments.fold)
        available = {name: row for name, row in self.available().items() if name in set(raw.ids)}
        position = {name: i for i, name in enumerate(raw.ids)}
        allowed = torch.tensor([available[name] for name in raw.ids])  # (N, M)
        fitted = fit_preprocessing(raw, torch.tensor([position[name] for name in training]), allowed)
        return FoldData(raw.description, self.configuration, apply_preprocessing(raw, fitted), training, validation, test,
                        available, fitted)

    def make_trainer(self, stage: str) -> ClassificationTrainer:
        names = self.stage_names
        epochs = [self.settings[name]["num_epochs"] for name in names]
        trainer = self.trainer_class(self.data, StageRun(
            stage, self.settings[stage], self.arguments.seed, self.arguments.fold, sum(epochs[: names.index(stage)]),
            sum(epochs), self.fold_folder), self.arguments.device)
        trainer.show_progress = self.arguments.show_progress
        finished = [name for name in names[: names.index(stage)] if self.is_finished(name)]
        if finished:
            last = read_checkpoint(self.stage_folder(finished[-1]) / "checkpoint_final.pth")
            trainer.first_iteration = last["nnmiss"]["last_iteration"]
        return trainer

    def start(self, trainer: ClassificationTrainer) -> list[str]:
        """Writes run.json, what was fitted, and what prediction needs to know of the model. Returns notes."""
        save_preprocessing(self.data.fitted, writable_folder(self.fold_folder))
        write_json(self.model_folder / "plans.json", self.plans)
        write_json(self.model_folder / "dataset.json", self.dataset_json)
        write_json(self.fold_folder / "run.json", {
            **self.record(), "versions": self.versions(), "device": str(trainer.device),
            "held_out_cases": trainer.held_out, "validation_cases": self.data.validation, "test_cases": self.data.test})
        return sample_notes(trainer)


def sample_notes(trainer: ClassificationTrainer) -> list[str]:
    """What a user should know about the samples of a stage: unlabelled ones, held-out ones, modalities nobody can learn."""
    notes = fit_notes(trainer.data.fitted)
    if trainer.unlabelled:
        notes.append(f"{trainer.unlabelled} of {len(trainer.data.training)} training samples have no label and are left "
                     "out")
    if trainer.held_out and set(trainer.held_out) >= set(trainer.training):
        notes.append(f"with {len(trainer.training)} training samples none can be held out (that takes five): what "
                     f"{trainer.method} learns on held-out samples, it learns on the training samples")
    elif trainer.held_out:
        notes.append(f"{len(trainer.held_out)} training samples are held out, for what {trainer.method} does not learn by "
                     "training")
    if trainer.fold == "all":
        notes.append("fold 'all' trains and validates on the same samples: its validation says nothing about new ones")
    if not trainer.data.validation:
        notes.append("the fold has no validation samples: the last epoch's weights are kept")
    known = set(trainer.labelled(trainer.data.validation))
    if trainer.data.validation and not known:
        notes.append("no validation sample has a label: the last epoch's weights are kept")
    subsets = trainer.validated_subsets()
    if known and not any(name == AVAILABLE or all(have or not asked for have, asked in zip(trainer.files[sample], subset))
                         for name, subset in subsets.items() for sample in known):
        notes.append(f"no labelled validation sample has all of {' or '.join(subsets)}, by which epochs are compared: the "
                     "last epoch's weights are kept")
    targets = trainer.samples.targets[trainer.rows_of_ids(trainer.labelled(trainer.data.training))]
    absent = [name for i, name in enumerate(trainer.classes) if not (
        (targets[:, i] == 1).any() if trainer.task == "multilabel" else (targets == i).any())]
    if absent:
        notes.append(f"no training sample of this fold is {'positive for' if trainer.task == 'multilabel' else 'of class'} "
                     + shortened(absent))
    for m, name in enumerate(trainer.modalities):
        if not any(trainer.available[case][m] for case in trainer.data.training):
            notes.append(f"no training sample of this fold has {name}: the model cannot learn it")
    return notes
