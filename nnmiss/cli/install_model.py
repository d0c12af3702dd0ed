"""nnmiss_install_model: checks a zip of nnmiss_export_model, whoever it is from, and installs the model."""
from __future__ import annotations

import argparse
from pathlib import Path

import torch

from nnmiss.cli.predict_classification import load_models
from nnmiss.errors import NnmissError, command
from nnmiss.inference.predictor import MissingModalityPredictor
from nnmiss.model_files.contents import Manifest
from nnmiss.model_files.install import KnownModels, install_model
from nnmiss.preprocessing.dataset_folders import CLASSIFICATION, SEGMENTATION, require_folder
from nnmiss.trainers import CLASSIFIERS, METHODS, method_of_trainer


def parser() -> argparse.ArgumentParser:
    """The command line of nnmiss_install_model."""
    p = argparse.ArgumentParser(prog="nnmiss_install_model", description=__doc__)
    p.add_argument("zip", metavar="FILE.zip", help="that nnmiss_export_model wrote")
    p.add_argument("--overwrite", action="store_true", help="replace a model of the same data set, method, plans and "
                   "configuration, with all its folds")
    p.add_argument("--max_gb", type=float, default=20, metavar="GB", help="most gigabytes to unpack. Default: 20")
    return p


def task_of(trainer: str) -> str:
    """"segmentation" or "classification". Raises NnmissError when no method of nnmiss has this trainer."""
    for task, table in ((SEGMENTATION, METHODS), (CLASSIFICATION, CLASSIFIERS)):
        if trainer in (cls.__name__ for cls in table.values()):
            return task
    raise NnmissError(f"trainer {trainer!r} is none of this nnmiss: install the version that has it")


def load(folder: Path, manifest: Manifest) -> None:
    """Loads a model as nnmiss_predict does. Raises NnmissError when that fails."""
    folds = [int(name) if name.isdigit() else name for name in (fold.removeprefix("fold_") for fold in manifest.folds)]
    if manifest.task == CLASSIFICATION:
        load_models(folder, folds, manifest.checkpoint, "cpu")
    else:
        predictor = MissingModalityPredictor(device=torch.device("cpu"), allow_tqdm=False)
        predictor.initialize_from_folder(folder, folds, manifest.checkpoint, method_of_trainer)


def run(arguments: list[str] | None = None) -> int:
    """Runs the command with these arguments (default: the command line's). Returns the exit code."""
    args = parser().parse_args(arguments)
    if not args.max_gb > 0:
        raise NnmissError(f"--max_gb must be above 0, got {args.max_gb}")
    results = require_folder("nnUNet_results")
    folder, manifest = install_model(args.zip, results, KnownModels(task_of, load), args.overwrite, args.max_gb)
    number = manifest.dataset[len("Dataset"):].partition("_")[0]
    others = sorted(path.name for path in results.glob(f"Dataset{number}_*") if path.name != manifest.dataset)
    print(f"installed {folder}: {', '.join(manifest.folds)}, trained with nnmiss {manifest.nnmiss_version}")
    other = "" if manifest.checkpoint == "checkpoint_final.pth" else f" -chk {manifest.checkpoint}"
    print(f"predict with: nnmiss_predict -i IN -o OUT -d {manifest.dataset} -m {manifest.method} -p {manifest.plans} "
          f"-c {manifest.configuration}{other}")
    if others:
        print(f"note: {', '.join(others)} has the same id: give -d the full name")
    return 0


main = command(run)

if __name__ == "__main__":
    main()
