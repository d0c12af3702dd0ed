"""A run on disk, whatever its task: where it lies, what was asked, what is finished, and whether that fits together."""
from __future__ import annotations

import platform
import re
from copy import deepcopy
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch
from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw

from nnmiss import __version__
from nnmiss.atomic_files import read_json
from nnmiss.errors import NnmissError
from nnmiss.inference.checkpoints import read_checkpoint

from .run_arguments import RunArguments, run_folders
from .run_record import differences, sha256
from .run_settings import RunSettings

# What may differ between two sittings of one run, because it does not change the weights.
FREE_SETTINGS = ("validation_mirroring", "save_every", "figures")


class RunBase(RunSettings):
    """A run on disk; sub-classes read the data set and make trainers."""

    def __init__(self, arguments: RunArguments):
        self.arguments = arguments
        self.trainer_class = arguments.trainer_class
        if not re.fullmatch(r"[\w.-]*", arguments.tag):
            raise NnmissError(f"--tag {arguments.tag!r} may hold letters, digits, '.', '_' and '-' only: it names a folder")
        self.preprocessed = Path(str(nnUNet_preprocessed)) / arguments.dataset_name
        self.read_dataset()
        self.plans = self.read_plans()
        self.resolve()
        self.model_folder, self.fold_folder = run_folders(arguments)
        self.write_network_settings()
        self.check_cases()
        self.notes = self._prepare_network()

    # ---- what sub-classes write ---------------------------------------------------------------------------------

    def read_dataset(self) -> None:
        """Sets `dataset_json` and `modalities`."""
        raise NotImplementedError

    def read_plans(self) -> dict:
        """The plans, of which `configuration` is this run's own copy of one. Raises NnmissError for unknown names."""
        raise NotImplementedError

    def write_network_settings(self) -> None:
        """Puts what the network is built from into this run's plans, where prediction finds it."""
        last = self.settings[self.stage_names[-1]]
        self.block.update({key: last[key] for key in self.trainer_class.network_settings})

    def check_cases(self) -> None:
        """Refuses an unknown fold, a broken split or missingness table before anything is written."""
        raise NotImplementedError

    def data_record(self) -> dict:
        """Hashes of the data that a second sitting must find unchanged, for run.json."""
        raise NotImplementedError

    def make_trainer(self, stage: str):
        """A trainer for one stage of this run."""
        raise NotImplementedError

    def start(self, trainer) -> list[str]:
        """Writes run.json before anything is trained. Returns notes about the cases."""
        raise NotImplementedError

    # ---- the network and the missing table ----------------------------------------------------------------------

    def _prepare_network(self) -> list[str]:
        """The method's own preparations; a model that was begun goes on with what they came to then. Returns notes."""
        self.planned_block = deepcopy(self.block)
        notes = []
        for file in sorted(self.model_folder.glob("fold_*/run.json")):
            earlier = self.read_record(file)
            same = isinstance(earlier.get("network"), dict) and earlier.get("planned_network") == self.planned_block
            if same and any(file.parent.rglob("checkpoint_*.pth")):
                self.block.update(earlier["network"])
                notes = [f"this model was begun with {key}={self.block[key]} instead of {value}, and goes on so"
                         for key, value in self.planned_block.items() if self.block[key] != value]
                break
        return [*self.trainer_class.notes(list(self.settings.values())), *notes,
                *self.trainer_class.prepare(self.block, self.modalities, self.preprocessed)]

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
        """Forgets earlier results, which are of other weights."""
        for part in ("validation", "test"):
            (self.fold_folder / part / "summary.json").unlink(missing_ok=True)

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

    # ---- records ------------------------------------------------------------------------------------------------

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
            **self.data_record(),
            "pretrained_weights": self.arguments.pretrained_weights,
            "splits_sha256": sha256(splits) if splits.is_file() else None,
        }

    @staticmethod
    def versions() -> dict[str, str]:
        """Of everything whose change may change results."""
        return {"nnmiss": __version__, "nnunetv2": version("nnunetv2"), "torch": torch.__version__,
                "python": platform.python_version()}

    def check_against_earlier(self) -> None:
        """Refuses to mix two runs in one folder.

        Raises NnmissError naming what differs, when this fold or another fold of the model was trained otherwise.
        """
        record = self.record()
        free = tuple(f"settings.{name}.{key}:" for name in self.stage_names for key in FREE_SETTINGS)
        for file in sorted(self.model_folder.glob("fold_*/run.json")):
            earlier, same_fold = self.read_record(file), file.parent == self.fold_folder
            apart = {"assignments"} if same_fold else {"assignments", "fold", "seed", "pretrained_weights"}
            differing = [line for key in sorted(record.keys() - apart, key=lambda key: (key != "preset", key))
                         for line in differences(key, earlier.get(key), record[key]) if not line.startswith(free)]
            if differing and any(file.parent.rglob("checkpoint_*.pth")):
                shown = "; ".join(differing[:5]) + (" ..." if len(differing) > 5 else "")
                was = earlier.get("preset")
                same = "use the same settings" if was == record["preset"] or was not in self.trainer_class.presets else \
                    f"continue it with --preset {was} and the settings of its run.json"
                raise NnmissError(f"{file.parent} was trained with other settings: {shown}. Add --tag NAME to keep "
                                  f"this as a second run, {same}, or delete that folder")

    def read_record(self, file: Path) -> dict:
        """run.json of an earlier run; settings that its nnmiss did not know yet are at their defaults, as they were then.

        So a new setting's default must be what was done before there was the setting.
        """
        earlier, known = read_json(file, "run record", ("settings",)), self.trainer_class.known_settings()
        network = {key: known[key] for key in self.trainer_class.network_settings if key in self.block}
        for key in ("planned_network", "network"):
            if isinstance(earlier.get(key), dict):
                earlier[key] = {**network, **earlier[key]}
        if isinstance(earlier["settings"], dict):
            earlier["settings"] = {stage: {**known, **values} if isinstance(values, dict) else values
                                   for stage, values in earlier["settings"].items()}
        return earlier

    # ---- training -----------------------------------------------------------------------------------------------

    def train_stage(self, stage: str, quiet: bool = False) -> None:
        """Trains one stage from where it stopped, from the stage before, or from the start; notes unless `quiet`."""
        trainer = self.make_trainer(stage)
        trainer.initialize()
        checkpoint_of = partial(self.final_checkpoint, stage)
        latest = self.stage_folder(stage) / "checkpoint_latest.pth"
        notes = self.start(trainer)
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
        self.discard_validation()  # before there are other weights: a run killed at their end would not know
        trainer.run_training()

    def final_checkpoint(self, wanted_by: str, stage: str) -> dict:
        """The final checkpoint of a stage that another needs. Raises NnmissError when it is not finished."""
        if not self.is_finished(stage):
            raise NnmissError(f"stage {wanted_by} starts from stage {stage}, which is not finished: run it first")
        return read_checkpoint(self.stage_folder(stage) / "checkpoint_final.pth")
