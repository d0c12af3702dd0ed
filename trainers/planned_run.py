"""One run on disk: its plans and settings, what is finished, and the training of one stage."""
from __future__ import annotations

import json
import platform
import re
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch
import torch.distributed as dist
from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw
from nnunetv2.utilities.file_path_utilities import get_output_folder
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnmiss import __version__
from nnmiss.atomic_files import read_json, write_json
from nnmiss.availability import apply_missing_table, modality_names, read_availability, read_missing_table
from nnmiss.errors import NnmissError
from nnmiss.inference.checkpoints import read_checkpoint

from . import method_class
from .run_record import case_notes, differences, digest, sha256
from .settings import common_settings, resolve_settings, stage_epochs
from .splits import fold_cases, load_or_make_splits, without_test_cases
from .stages import find_stage


@dataclass(frozen=True)
class RunArguments:
    """What the user asked `nnmiss_train` for; see its help."""

    dataset_name: str
    method: str
    fold: int | str
    configuration: str = "3d_fullres"
    plans_name: str = "nnMissPlans"
    seed: int = 0
    tag: str = ""
    missing: str | None = None
    stage: str | None = None
    preset: str = "paper"
    assignments: dict[str, str] = field(default_factory=dict)
    pretrained_weights: str | None = None
    device: str = "cpu"
    show_progress: bool = True
    save_probabilities: bool = False


# What may differ between two sittings of one run, because it does not change the weights.
FREE_SETTINGS = ("validation_mirroring", "save_every")


def run_folders(arguments: RunArguments) -> tuple[Path, Path]:
    """(model folder, fold folder) of a run."""
    plans = f"{arguments.plans_name}-{arguments.tag}" if arguments.tag else arguments.plans_name
    model = Path(get_output_folder(arguments.dataset_name, method_class(arguments.method).__name__, plans,
                                   arguments.configuration))
    return model, model / f"fold_{arguments.fold}"


class Run:
    """A run on disk: where it is, what was asked, what is finished."""

    def __init__(self, arguments: RunArguments):
        self.arguments = arguments
        self.trainer_class = method_class(arguments.method)
        if not re.fullmatch(r"[\w.-]*", arguments.tag):
            raise NnmissError(f"--tag {arguments.tag!r} may hold letters, digits, '.', '_' and '-' only: it names a folder")
        self.preprocessed = Path(str(nnUNet_preprocessed)) / arguments.dataset_name
        self.dataset_json = read_json(self.preprocessed / "dataset.json", "preprocessed dataset.json",
                                      ("channel_names", "labels", "file_ending"))
        self.plans = self._plans()
        self.modalities = modality_names(self.dataset_json)
        for key in arguments.assignments:
            if "." in key and key.rpartition(".")[2] in {**self.trainer_class.network_settings,
                                                         **self.trainer_class.run_settings}:
                raise NnmissError(f"--set {key}: all stages share it, so set {key.rpartition('.')[2]} without a stage")
        asked = (self._known_settings(), self.trainer_class.presets, arguments.preset, arguments.assignments)
        allowed = (self.trainer_class.limits, self.trainer_class.choices)
        self.stages = self.trainer_class.stages_of(self.modalities, common_settings(*asked, *allowed))
        if arguments.stage is not None:
            find_stage(self.stages, arguments.stage)
        self.settings = resolve_settings(*asked, self.stage_names, *allowed)
        self._share_epochs()
        self._write_network_settings()
        self.model_folder, self.fold_folder = run_folders(arguments)
        self._check_cases()
        self.notes = self._prepare_network()

    def _prepare_network(self) -> list[str]:
        """The method's own preparations; a model that was begun goes on with what they came to then. Returns notes."""
        self.planned_block = deepcopy(self.block)
        notes = []
        for file in sorted(self.model_folder.glob("fold_*/run.json")):
            earlier = read_json(file, "run record", ("settings",))
            if earlier.get("planned_network") == self.planned_block and any(file.parent.rglob("checkpoint_*.pth")):
                self.block.update(earlier["network"])
                notes = [f"this model was begun with {key}={self.block[key]} instead of {value}, and goes on so"
                         for key, value in self.planned_block.items() if self.block[key] != value]
                break
        return [*notes, *self.trainer_class.prepare(self.block, self.modalities, self.preprocessed)]

    @property
    def stage_names(self) -> tuple[str, ...]:
        """The stages of this run in order."""
        return tuple(stage.name for stage in self.stages)

    def _plans(self) -> dict:
        arguments = self.arguments
        plans = read_json(self.preprocessed / f"{arguments.plans_name}.json", "plans file (nnmiss_plan_and_preprocess "
                          "writes it)", ("configurations", "plans_name", "dataset_name"))
        known = plans["configurations"]
        if arguments.configuration not in known:
            raise NnmissError(f"configuration {arguments.configuration!r} is not in {arguments.plans_name}.json, which "
                              f"has {', '.join(known)}")
        # with what it inherits from another configuration, so that the nnmiss block comes along
        resolved = PlansManager(plans).get_configuration(arguments.configuration).configuration
        known[arguments.configuration] = {k: v for k, v in resolved.items() if k != "inherits_from"}
        if resolved.get("previous_stage"):
            raise NnmissError(f"configuration {arguments.configuration} is a cascade, which nnmiss does not train: use "
                              "3d_fullres or 3d_lowres")
        if arguments.tag:
            plans["plans_name"] = f"{plans['plans_name']}-{arguments.tag}"
        return plans

    @property
    def configuration(self) -> dict:
        """This run's configuration in its plans."""
        return self.plans["configurations"][self.arguments.configuration]

    @property
    def block(self) -> dict:
        """The configuration's "nnmiss" block."""
        return self.configuration.setdefault("nnmiss", {})

    def _known_settings(self) -> dict:
        """The method's settings; what the plan chose for its network is the default."""
        planned = {k: v for k, v in self.block.items() if k in self.trainer_class.network_settings}
        return {**self.trainer_class.known_settings(), **planned}

    def _check_cases(self) -> None:
        """Refuses an unknown fold, a broken split or missingness table before anything is written."""
        folder = self.preprocessed / self.configuration["data_identifier"]
        if not folder.is_dir():
            raise NnmissError(f"{folder} is not there: run nnmiss_plan_and_preprocess -c {self.arguments.configuration}")
        available = read_availability(self.preprocessed, self.modalities)
        if self.missing_path:
            apply_missing_table(available, read_missing_table(self.missing_path, self.modalities))
        cases = sorted(available)
        splits = load_or_make_splits(self.preprocessed, cases)
        fold_cases(splits, self.arguments.fold, without_test_cases(self.preprocessed, cases))

    def _share_epochs(self) -> None:
        """Shares `num_epochs` among the stages; what was given for a stage comes off the total."""
        layers = {**self.trainer_class.presets[self.arguments.preset], **self.arguments.assignments}
        total = int(layers.get("num_epochs", self.trainer_class.known_settings()["num_epochs"]))
        given = {name: self.settings[name]["num_epochs"] for name in self.stage_names if f"{name}.num_epochs" in layers}
        published = {stage.name: stage.epochs for stage in self.stages}
        for name, epochs in stage_epochs(total, published, given).items():
            self.settings[name]["num_epochs"] = epochs

    def _write_network_settings(self) -> None:
        """What the network is built from goes into this run's plans, where prediction finds it."""
        last = self.settings[self.stage_names[-1]]
        self.block.update({key: last[key] for key in self.trainer_class.network_settings})

    def make_trainer(self, stage: str):
        """A trainer for one stage of this run."""
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

    @property
    def missing_path(self) -> str | None:
        """The table of simulated missingness: missing/NAME.csv of the raw or preprocessed data set, or a path."""
        name = self.arguments.missing
        if name is None or name.endswith(".csv"):
            return name
        folders = [self.preprocessed, *([Path(str(nnUNet_raw)) / self.arguments.dataset_name] if nnUNet_raw else [])]
        files = [folder / "missing" / f"{name}.csv" for folder in folders]
        return str(next((file for file in files if file.is_file()), files[-1]))

    # ---- what is finished ---------------------------------------------------------------------------------------

    def stage_folder(self, stage: str) -> Path:
        """Where a stage's checkpoints are: stage_<name>, the last stage's in the fold folder itself."""
        last = stage == self.stage_names[-1]
        return self.fold_folder if last else self.fold_folder / f"stage_{stage}"

    def is_finished(self, stage: str) -> bool:
        """Whether a stage has its final checkpoint (written atomically, at its very end)."""
        return (self.stage_folder(stage) / "checkpoint_final.pth").is_file()

    def is_validated(self) -> bool:
        """Whether the final validation wrote its results."""
        return (self.fold_folder / "validation" / "summary.json").is_file()

    def discard_validation(self) -> None:
        """Forgets an earlier validation, whose results are of other weights."""
        (self.fold_folder / "validation" / "summary.json").unlink(missing_ok=True)

    def stages_to_run(self) -> list[str]:
        """Unfinished stages in order; with `--stage` only that one."""
        finished = [self.is_finished(name) for name in self.stage_names]
        if self.arguments.stage is None and sorted(finished, reverse=True) != finished:
            gap = self.stage_names[finished.index(False)]
            raise NnmissError(f"{self.fold_folder}: stage {gap} is not finished, but later ones that were trained from it "
                              f"are. Put back its checkpoint_final.pth, train it alone with --stage {gap}, or delete the "
                              "folder")
        names = self.stage_names if self.arguments.stage is None else (self.arguments.stage,)
        return [name for name in names if not self.is_finished(name)]

    def record(self) -> dict:
        """Everything this run was asked to do, for run.json."""
        splits = self.preprocessed / "splits_final.json"
        return {
            "method": self.arguments.method,
            "assignments": self.arguments.assignments,
            "trainer": self.trainer_class.__name__,
            "fold": self.arguments.fold,
            "preset": self.arguments.preset,
            "seed": self.arguments.seed,
            "missing": None if self.missing_path is None else {"table": self.arguments.missing,
                                                               "sha256": sha256(Path(self.missing_path))},
            "settings": self.settings,
            "planned_network": self.planned_block,
            "network": self.block,
            "configuration_sha256": digest({k: v for k, v in self.configuration.items() if k != "nnmiss"}),
            "data_sha256": digest([self.dataset_json, *[sha256(self.preprocessed / name) for name in
                                                        ("availability.json", "dataset_fingerprint.json")]]),
            "pretrained_weights": self.arguments.pretrained_weights,
            "splits_sha256": sha256(splits) if splits.is_file() else None,
        }

    def check_against_earlier(self) -> None:
        """Refuses to mix two runs in one folder.

        Raises NnmissError naming what differs, when this fold or another fold of the model was trained otherwise.
        """
        record = self.record()
        free = tuple(f"settings.{name}.{key}:" for name in self.stage_names for key in FREE_SETTINGS)
        for file in sorted(self.model_folder.glob("fold_*/run.json")):
            earlier, same_fold = read_json(file, "run record", ("settings",)), file.parent == self.fold_folder
            apart = {"assignments"} if same_fold else {"assignments", "fold", "seed", "pretrained_weights"}
            differing = [line for key in record.keys() - apart
                         for line in differences(key, earlier.get(key), record[key]) if not line.startswith(free)]
            if differing and any(file.parent.rglob("checkpoint_*.pth")):
                shown = "; ".join(differing[:5]) + (" ..." if len(differing) > 5 else "")
                raise NnmissError(f"{file.parent} was trained with other settings: {shown}. Add --tag NAME to keep "
                                  "this as a second run, use the same settings, or delete that folder")

    # ---- training -----------------------------------------------------------------------------------------------

    def train_stage(self, stage: str, quiet: bool = False) -> None:
        """Trains one stage from where it stopped, from the stage before, or from the start; notes unless `quiet`."""
        trainer = self.make_trainer(stage)
        trainer.initialize()
        checkpoint_of = partial(self.final_checkpoint, stage)
        latest = self.stage_folder(stage) / "checkpoint_latest.pth"
        notes = self._write_record(trainer)
        for note in () if quiet else [*self.notes, *notes]:
            print(f"note: {note}")
        if latest.is_file():
            trainer.load_checkpoint(str(latest))
            print(f"stage {stage}: resuming after epoch {trainer.current_epoch} of {trainer.num_epochs}")
        else:
            trainer.begin_stage(checkpoint_of)
            if self.arguments.pretrained_weights and trainer.starts_afresh:
                trainer.take_pretrained(self.arguments.pretrained_weights)
        trainer.recall(checkpoint_of)
        trainer.run_training()
        if trainer.is_ddp:
            dist.barrier()  # rank 0 writes the final checkpoint that all ranks look for next

    def final_checkpoint(self, wanted_by: str, stage: str) -> dict:
        """The final checkpoint of a stage that another needs. Raises NnmissError when it is not finished."""
        if not self.is_finished(stage):
            raise NnmissError(f"stage {wanted_by} starts from stage {stage}, which is not finished: run it first")
        return read_checkpoint(self.stage_folder(stage) / "checkpoint_final.pth")

    def _write_record(self, trainer) -> list[str]:
        """Writes run.json before anything is trained. Returns notes about the cases."""
        versions = {"nnmiss": __version__, "nnunetv2": version("nnunetv2"), "torch": torch.__version__,
                    "python": platform.python_version()}
        trainer.get_tr_and_val_datasets()
        if trainer.local_rank != 0:
            return []
        training, validation = trainer.do_split()
        write_json(self.fold_folder / "run.json", {
            **self.record(), "versions": versions, "device": str(trainer.device), "held_out_cases": trainer.held_out,
            "validation_cases": validation})
        return case_notes(trainer, training)
