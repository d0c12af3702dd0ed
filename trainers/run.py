"""One run: a method's stages in order on one fold, each resumable, with every setting recorded in run.json."""
from __future__ import annotations

import hashlib
import json
import platform
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import torch
import torch.distributed as dist
from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw
from nnunetv2.utilities.file_path_utilities import get_output_folder

from nnmiss import __version__
from nnmiss.atomic_files import read_json, writable_folder, write_json
from nnmiss.availability import apply_missing_table, modality_names, read_availability, read_missing_table
from nnmiss.errors import NnmissError
from nnmiss.inference.checkpoints import read_checkpoint

from . import method_class
from .settings import resolve_settings, split_epochs
from .splits import fold_cases, load_or_make_splits
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


def train(arguments: RunArguments, only_validate: bool = False, validate_best: bool = False,
          skip_validation: bool = False) -> None:
    """Runs every unfinished stage, then the final validation unless that is skipped or was done before.

    Raises:
        NnmissError: unknown names or settings, a fold that does not exist, or a finished stage with other settings.
    """
    run = Run(arguments)
    run.check_against_earlier()
    writable_folder(run.fold_folder)
    last = run.trainer_class.stages[-1].name
    if only_validate and not run.is_finished(last):
        raise NnmissError(f"--val needs a finished training, but {run.fold_folder} has no checkpoint_final.pth")
    for stage in run.stages_to_run() if not only_validate else ():
        run.train_stage(stage)
        run.discard_validation()
    if not run.is_finished(last):
        return
    if not only_validate and (skip_validation or run.is_validated()):
        print(f"training is finished: {run.fold_folder}")
        return
    trainer = run.make_trainer(last)
    trainer.load_checkpoint(str(run.fold_folder / ("checkpoint_best.pth" if validate_best else "checkpoint_final.pth")))
    trainer.perform_actual_validation(arguments.save_probabilities)


class Run:
    """A run on disk: where it is, what was asked, what is finished."""

    def __init__(self, arguments: RunArguments):
        self.arguments = arguments
        self.trainer_class = method_class(arguments.method)
        self.preprocessed = Path(str(nnUNet_preprocessed)) / arguments.dataset_name
        self.dataset_json = read_json(self.preprocessed / "dataset.json", "preprocessed dataset.json")
        self.plans = self._plans()
        names = tuple(stage.name for stage in self.trainer_class.stages)
        if arguments.stage is not None:
            find_stage(self.trainer_class.stages, arguments.stage)
        self.settings = resolve_settings(self._known_settings(), self.trainer_class.presets, arguments.preset,
                                         arguments.assignments, names)
        self._share_epochs(names)
        self._write_network_settings()
        model = get_output_folder(arguments.dataset_name, self.trainer_class.__name__, self.plans["plans_name"],
                                  arguments.configuration)
        self.model_folder, self.fold_folder = Path(model), Path(model) / f"fold_{arguments.fold}"
        self._check_cases()

    def _plans(self) -> dict:
        arguments = self.arguments
        plans = read_json(self.preprocessed / f"{arguments.plans_name}.json", "plans file (nnmiss_plan_and_preprocess "
                          "writes it)")
        known = plans["configurations"]
        if arguments.configuration not in known:
            raise NnmissError(f"configuration {arguments.configuration!r} is not in {arguments.plans_name}.json, which "
                              f"has {', '.join(known)}")
        if "previous_stage" in known[arguments.configuration]:
            raise NnmissError(f"configuration {arguments.configuration} is a cascade, which nnmiss does not train: use "
                              "3d_fullres or 3d_lowres")
        if arguments.tag:
            plans["plans_name"] = f"{plans['plans_name']}-{arguments.tag}"
        return plans

    @property
    def block(self) -> dict:
        """The configuration's own "nnmiss" block in the plans of this run."""
        return self.plans["configurations"][self.arguments.configuration].setdefault("nnmiss", {})

    def _known_settings(self) -> dict:
        """The method's settings; what the plan chose for its network is the default."""
        planned = {k: v for k, v in self.block.items() if k in self.trainer_class.network_settings}
        return {**self.trainer_class.known_settings(), **planned}

    def _check_cases(self) -> None:
        """Refuses an unknown fold, a broken split or missingness table before anything is written."""
        modalities = modality_names(self.dataset_json)
        available = read_availability(self.preprocessed, modalities)
        if self.missing_path:
            apply_missing_table(available, read_missing_table(self.missing_path, modalities))
        cases = sorted(available)
        fold_cases(load_or_make_splits(self.preprocessed, cases), self.arguments.fold, cases)

    def _share_epochs(self, names: tuple[str, ...]) -> None:
        """Shares `num_epochs` among the stages, unless the user or the preset gave it for a stage."""
        given = {**self.trainer_class.presets[self.arguments.preset], **self.arguments.assignments}
        shares = None
        if not any(f"{name}.num_epochs" in given for name in names):
            parts = tuple(stage.share for stage in self.trainer_class.stages)
            shares = split_epochs(self.settings[names[-1]]["num_epochs"], parts)
        for position, name in enumerate(names):
            if shares is not None:
                self.settings[name]["num_epochs"] = shares[position]
            for key in ("num_epochs", "num_iterations_per_epoch", "num_val_iterations_per_epoch"):
                if self.settings[name][key] < 1:
                    raise NnmissError(f"{name}.{key} must be at least 1, got {self.settings[name][key]}")

    def _write_network_settings(self) -> None:
        """What the network is built from goes into this run's plans, where prediction finds it."""
        last = self.settings[self.trainer_class.stages[-1].name]
        self.block.update({key: last[key] for key in self.trainer_class.network_settings})

    def make_trainer(self, stage: str):
        """A trainer for one stage of this run."""
        names = [s.name for s in self.trainer_class.stages]
        epochs = [self.settings[name]["num_epochs"] for name in names]
        plans = json.loads(json.dumps(self.plans))  # nnU-Net changes what it is given
        plans["continue_training"] = False
        plans["nnmiss_run"] = {
            "stage": stage, "settings": self.settings[stage], "seed": self.arguments.seed,
            "missing": self.missing_path, "first_epoch": sum(epochs[: names.index(stage)]), "total_epochs": sum(epochs),
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
        last = stage == self.trainer_class.stages[-1].name
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
        names = [s.name for s in self.trainer_class.stages]
        if self.arguments.stage is not None:
            names = [self.arguments.stage]
        return [name for name in names if not self.is_finished(name)]

    def record(self) -> dict:
        """Everything this run was asked to do, for run.json."""
        splits = self.preprocessed / "splits_final.json"
        return {
            "method": self.arguments.method,
            "trainer": self.trainer_class.__name__,
            "fold": self.arguments.fold,
            "preset": self.arguments.preset,
            "seed": self.arguments.seed,
            "missing": None if self.missing_path is None else {"table": self.arguments.missing,
                                                               "sha256": sha256(Path(self.missing_path))},
            "settings": self.settings,
            "network": self.block,
            "pretrained_weights": self.arguments.pretrained_weights,
            "splits_sha256": sha256(splits) if splits.is_file() else None,
        }

    def check_against_earlier(self) -> None:
        """Refuses to mix two runs in one folder.

        Raises NnmissError naming what differs, when this fold or another fold of the model was trained otherwise.
        """
        record = self.record()
        for file in sorted(self.model_folder.glob("fold_*/run.json")):
            earlier, same_fold = read_json(file, "run record"), file.parent == self.fold_folder
            keys = record if same_fold else ("method", "network")
            differing = [line for key in keys for line in differences(key, earlier.get(key), record[key])]
            if differing and any(file.parent.rglob("checkpoint_*.pth")):
                shown = "; ".join(differing[:5]) + (" ..." if len(differing) > 5 else "")
                raise NnmissError(f"{file.parent} was trained with other settings: {shown}. Add --tag NAME to keep "
                                  "this as a second run, use the same settings, or delete that folder")

    # ---- training -----------------------------------------------------------------------------------------------

    def train_stage(self, stage: str) -> None:
        """Trains one stage from where it stopped, from the stage before, or from the start."""
        trainer = self.make_trainer(stage)
        trainer.initialize()
        names = [s.name for s in self.trainer_class.stages]
        before = names[names.index(stage) - 1] if names.index(stage) else None
        latest = self.stage_folder(stage) / "checkpoint_latest.pth"
        self._write_record(trainer)
        if latest.is_file():
            trainer.load_checkpoint(str(latest))
            print(f"stage {stage}: resuming after epoch {trainer.current_epoch} of {trainer.num_epochs}")
        elif before is not None:
            if not self.is_finished(before):
                raise NnmissError(f"stage {stage} starts from stage {before}, which is not finished: run it first")
            trainer.start_from(str(self.stage_folder(before) / "checkpoint_final.pth"))
        elif self.arguments.pretrained_weights:
            load_pretrained(trainer, self.arguments.pretrained_weights)
        trainer.run_training()
        if trainer.is_ddp:
            dist.barrier()  # rank 0 writes the final checkpoint that all ranks look for next

    def _write_record(self, trainer) -> None:
        versions = {"nnmiss": __version__, "nnunetv2": version("nnunetv2"), "torch": torch.__version__,
                    "python": platform.python_version()}
        trainer.get_tr_and_val_datasets()
        if trainer.local_rank != 0:
            return
        write_json(self.fold_folder / "run.json", {
            **self.record(), "versions": versions, "device": str(trainer.device), "held_out_cases": trainer.held_out,
            "validation_cases": trainer.do_split()[1]})


def load_pretrained(trainer, file: str) -> None:
    """Takes every tensor of a checkpoint that fits the network by name and shape, but the segmentation heads.

    Raises NnmissError when the file is refused or nothing fits.
    """
    weights, own = read_checkpoint(file)["network_weights"], trainer.bare_network.state_dict()
    fitting = {name: value for name, value in weights.items()
               if ".seg_layers." not in name and name in own and own[name].shape == value.shape}
    if not fitting:
        raise NnmissError(f"{file}: no tensor fits this network by name and shape")
    trainer.bare_network.load_state_dict({**own, **fitting})
    print(f"pretrained weights: {len(fitting)} of {len(own)} tensors taken from {file}")


def differences(name: str, earlier, now) -> list[str]:
    """Lines 'name: a, now b' for every value that differs, going into dictionaries."""
    if isinstance(earlier, dict) and isinstance(now, dict):
        return [line for key in sorted({*earlier, *now})
                for line in differences(f"{name}.{key}", earlier.get(key), now.get(key))]
    return [] if earlier == now else [f"{name}: {earlier}, now {now}"]


def sha256(file: Path) -> str | None:
    """Hash of a file's content; None if it is not there."""
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None

