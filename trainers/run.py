"""Runs a method on one fold: unfinished stages in order, then the final validation."""
from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

from nnmiss.atomic_files import read_json, remove_leftovers
from nnmiss.errors import NnmissError
from nnmiss.folder_lock import only_one

from .classification_run import ClassificationRun
from .planned_run import Run
from .processes import agreed, first_alone, rank
from .run_arguments import RunArguments, run_folders
from .run_base import RunBase

__all__ = ["Run", "RunArguments", "as_started", "make_run", "run_folders", "train"]


def make_run(arguments: RunArguments) -> RunBase:
    """The run of these arguments, for the data set's kind. Raises NnmissError for whatever cannot be had."""
    return (ClassificationRun if arguments.classification else Run)(arguments)


def as_started(arguments: RunArguments) -> RunArguments:
    """The arguments a run was started with, for continuing or validating it without repeating them.

    Only where `arguments` sets nothing itself and the run is there; else they come back as they are.
    """
    file = run_folders(arguments)[1] / "run.json"
    if arguments.assignments or arguments.pretrained_weights or not file.is_file():
        return arguments
    earlier = read_json(file, "run record", ("assignments", "preset", "seed", "missing", "pretrained_weights"))
    table = earlier["missing"]
    return replace(arguments, assignments=earlier["assignments"], preset=earlier["preset"], seed=earlier["seed"],
                   missing=table and table["table"], pretrained_weights=earlier["pretrained_weights"])


def train(arguments: RunArguments, only_validate: bool = False, validate_best: bool = False,
          skip_validation: bool = False) -> None:
    """Runs every unfinished stage, then the final validation unless that is skipped or was done before.

    Raises:
        NnmissError: unknown names or settings, a fold that does not exist, a finished stage with other settings, or another
            process that is at work in this fold.
    """
    run = first_alone(lambda: make_run(arguments))
    run.check_against_earlier()
    with _alone_in(run.fold_folder, arguments):
        if rank() == 0:
            tidy(run)
        _train(run, arguments, only_validate, validate_best, skip_validation)


def tidy(run: RunBase) -> None:
    """Removes what a killed sitting left of no use: temporary files, and the latest checkpoint of a finished stage."""
    for folder in (run.model_folder, run.preprocessed):  # other trainings may write there now
        remove_leftovers(folder)
    for folder in (run.fold_folder, *run.fold_folder.glob("stage_*")):
        remove_leftovers(folder, nobody_writes=True)
        if (folder / "checkpoint_final.pth").is_file():
            (folder / "checkpoint_latest.pth").unlink(missing_ok=True)


def _alone_in(folder: Path, arguments: RunArguments) -> AbstractContextManager:
    """The fold's folder for this process, or those that train together, alone."""
    return only_one(folder, f"trains or validates fold {arguments.fold} of {arguments.method}") if rank() == 0 \
        else nullcontext()


def _train(run: RunBase, arguments: RunArguments, only_validate: bool, validate_best: bool, skip_validation: bool) -> None:
    last = run.stage_names[-1]
    if only_validate and not run.is_finished(last):
        raise NnmissError(f"--val needs a finished training, but {run.fold_folder} has no checkpoint_final.pth")
    for position, stage in enumerate(agreed(run.stages_to_run()) if not only_validate else ()):
        run.train_stage(stage, quiet=position > 0)
    if not agreed(run.is_finished(last)):
        return
    if not only_validate and (skip_validation or (agreed(run.is_validated()) and not validate_best)):
        print(f"training is finished: {run.fold_folder}")
        return
    trainer = run.make_trainer(last)
    checkpoint = "checkpoint_best.pth" if validate_best else "checkpoint_final.pth"
    print(f"validating {checkpoint}")
    trainer.load_checkpoint(str(run.fold_folder / checkpoint))
    trainer.perform_actual_validation(arguments.save_probabilities)


