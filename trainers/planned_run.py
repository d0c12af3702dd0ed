"""One segmentation run on disk: nnU-Net's plans, folds and cases, and the training of one stage."""
from __future__ import annotations

import json

import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnmiss.atomic_files import read_json, write_json
from nnmiss.availability import apply_missing_table, modality_names, read_availability, read_missing_table
from nnmiss.errors import NnmissError
from nnmiss.preprocessing.plan_checks import check_plans

from .processes import until_written
from .run_arguments import RunArguments, run_folders
from .run_base import RunBase
from .run_record import case_notes, digest, sha256
from .splits import fold_cases, load_or_make_splits, without_test_cases

__all__ = ["Run", "RunArguments", "run_folders"]

FEWEST_STAGES = 3  # nnU-Net gives the coarsest output of deep supervision no weight, and with fewer has no other


class Run(RunBase):
    """A segmentation run on disk: where it is, what was asked, what is finished."""

    def read_dataset(self) -> None:
        self.dataset_json = read_json(self.preprocessed / "dataset.json", "preprocessed dataset.json "
                                      "(nnmiss_plan_and_preprocess writes it)", ("channel_names", "labels", "file_ending"))
        self.modalities = modality_names(self.dataset_json)

    def read_plans(self) -> dict:
        arguments = self.arguments
        plans = read_json(self.preprocessed / f"{arguments.plans_name}.json", "plans file (nnmiss_plan_and_preprocess "
                          "writes it)", ("configurations", "plans_name", "dataset_name"))
        known = check_plans(plans, str(self.preprocessed / f"{arguments.plans_name}.json"))["configurations"]
        if arguments.configuration not in known:
            raise NnmissError(f"configuration {arguments.configuration!r} is not in {arguments.plans_name}.json, which "
                              f"has {', '.join(known)}")
        # with what it inherits from another configuration, so that the nnmiss block comes along
        resolved = PlansManager(plans).get_configuration(arguments.configuration).configuration
        known[arguments.configuration] = {k: v for k, v in resolved.items() if k != "inherits_from"}
        if resolved.get("previous_stage"):
            raise NnmissError(f"configuration {arguments.configuration} is a cascade, which nnmiss does not train: use "
                              "3d_fullres or 3d_lowres")
        stages = len(resolved["architecture"]["arch_kwargs"]["features_per_stage"])
        if stages < FEWEST_STAGES:
            patch = " x ".join(map(str, resolved["patch_size"]))
            raise NnmissError(f"configuration {arguments.configuration} of {arguments.plans_name}.json has {stages} stages "
                              f"for patches of {patch}, but nnU-Net needs {FEWEST_STAGES} to train: plan with a larger "
                              "-gpu_memory_target, or use larger images")
        if arguments.tag:
            plans["plans_name"] = f"{plans['plans_name']}-{arguments.tag}"
        return plans

    def check_cases(self) -> None:
        folder = self.preprocessed / self.configuration["data_identifier"]
        if not folder.is_dir():
            raise NnmissError(f"{folder} is not there: run nnmiss_plan_and_preprocess -c {self.arguments.configuration}")
        available = read_availability(self.preprocessed, self.modalities)
        if self.missing_path:
            apply_missing_table(available, read_missing_table(self.missing_path, self.modalities))
        cases = sorted(available)
        splits = load_or_make_splits(self.preprocessed, cases)
        fold_cases(splits, self.arguments.fold, without_test_cases(self.preprocessed, cases))

    def data_record(self) -> dict:
        return {
            "configuration_sha256": digest({k: v for k, v in self.configuration.items() if k != "nnmiss"}),
            "data_sha256": digest([self.dataset_json, *[sha256(self.preprocessed / name) for name in
                                                        ("availability.json", "dataset_fingerprint.json")]]),
        }

    def make_trainer(self, stage: str):
        names = self.stage_names
        epochs = [self.settings[name]["num_epochs"] for name in names]
        iterations = [self.settings[name]["num_epochs"] * self.settings[name]["num_iterations_per_epoch"] for name in names]
        plans = json.loads(json.dumps(self.plans))  # nnU-Net changes what it is given
        plans["continue_training"] = False
        plans["nnmiss_run"] = {
            "stage": stage, "settings": self.settings[stage], "seed": self.arguments.seed,
            "missing": self.missing_path, "first_epoch": sum(epochs[: names.index(stage)]), "total_epochs": sum(epochs),
            "first_iteration": sum(iterations[: names.index(stage)]),
        }
        trainer = self.trainer_class(plans=plans, configuration=self.arguments.configuration, fold=self.arguments.fold,
                                     dataset_json=dict(self.dataset_json), device=torch.device(self.arguments.device))
        trainer.show_progress = self.arguments.show_progress
        return trainer

    def train_stage(self, stage: str, quiet: bool = False) -> None:
        super().train_stage(stage, quiet)
        until_written(self.stage_folder(stage) / "checkpoint_final.pth")

    def start(self, trainer) -> list[str]:
        trainer.get_tr_and_val_datasets()
        if trainer.local_rank != 0:
            return []
        training, validation = trainer.do_split()
        write_json(self.fold_folder / "run.json", {
            **self.record(), "versions": self.versions(), "device": str(trainer.device),
            "held_out_cases": trainer.held_out, "validation_cases": validation})
        return case_notes(trainer, training)
