"""nnmiss_demo: the main job end to end on generated data, or on three real patients, with the commands it runs."""
from __future__ import annotations

import argparse
import os
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nnmiss.atomic_files import writable_folder
from nnmiss.cli import convert_dataset, evaluate, phantom, plan_and_preprocess, predict, report, train
from nnmiss.errors import NnmissError, command

COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "nnmiss_phantom": phantom.run,
    "nnmiss_convert_dataset": convert_dataset.run,
    "nnmiss_plan_and_preprocess": plan_and_preprocess.run,
    "nnmiss_train": train.run,
    "nnmiss_predict": predict.run,
    "nnmiss_evaluate": evaluate.run,
    "nnmiss_report": report.run,
}
METHODS = ("modality_dropout", "metakd")
WIDTH = "width_factor=0.8125"  # the planned 0.625 is 5 of 8 features, which learn nothing in so few iterations


@dataclass(frozen=True)
class Job:
    """What differs between the two demonstrations.

    Attributes:
        dataset: id and name, as DatasetXXX_Name.
        make: the commands that make the raw data set.
        plan: further arguments of nnmiss_plan_and_preprocess.
        fold: the fold that is trained.
        train: method -> further arguments of nnmiss_train.
    """

    dataset: str
    make: list[list[str]]
    plan: list[str]
    fold: str
    train: dict[str, list[str]]

    @property
    def number(self) -> str:
        """The id as commands take it."""
        return self.dataset[7:10].lstrip("0")


def schedule(epochs: int, iterations: int, validation: int, *more: str) -> list[str]:
    """nnmiss_train's settings of a short run."""
    return ["--set", f"num_epochs={epochs}", f"num_iterations_per_epoch={iterations}",
            f"num_val_iterations_per_epoch={validation}", "validation_mirroring=false", *more]


def phantom_job(seed: int) -> Job:
    """Twenty generated training cases, some without all their files, and four complete test cases."""
    make = ["nnmiss_phantom", "-d", "800", "--name", "Phantom", "--num_training", "20", "--num_test", "4", "--size", "40",
            "--missing_rate", "0.4", "--difficulty", "0.2", "--seed", str(seed), "--overwrite"]
    return Job("Dataset800_Phantom", [make], [], "0", {
        "modality_dropout": schedule(6, 35, 15),
        "metakd": schedule(6, 35, 15, WIDTH),
    })


def open_ms_job(source: str) -> Job:
    """Three multiple-sclerosis patients at 2 mm: patient26 is the test case; three channel files are taken away.

    Lesions are one voxel in a hundred and there are two training cases, hence small patches that all hold lesions.
    Both patients train (fold 'all'); the shipped split leaves one out for whoever wants folds 0 and 1.
    """
    make = ["nnmiss_convert_dataset", "open_ms", "-i", source, "-d", "810", "--spacing", "2", "--test", "patient26",
            "--drop", "patient07:t1ce", "patient19:t1", "patient26:t2", "--demo_split", "--overwrite"]
    short = ["--no_val", *schedule(8, 110, 15, "oversample_foreground_percent=1.0")]
    return Job("Dataset810_OpenMS", [make], ["-gpu_memory_target", "2.5"], "all", {
        "modality_dropout": short,
        "metakd": [*short, WIDTH],
    })


def run_job(job: Job, folder: Path) -> None:
    """Makes, plans, trains both methods, predicts all subsets of the test cases, evaluates and reports them."""
    started = time.monotonic()
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        os.environ[variable] = str(writable_folder(folder / variable))
    print(f"folders: export nnUNet_raw={folder}/nnUNet_raw nnUNet_preprocessed={folder}/nnUNet_preprocessed "
          f"nnUNet_results={folder}/nnUNet_results")
    raw, plans = folder / "nnUNet_raw" / job.dataset, ["-p", "nnMissTinyPlans"]
    for command_line in job.make:
        call(*command_line)
    call("nnmiss_plan_and_preprocess", "-d", job.number, "-c", "3d_fullres", "-pl", "nnMissPlannerTiny", "-np", "1",
         *job.plan)
    for method in METHODS:
        call("nnmiss_train", job.number, method, job.fold, *plans, "-device", "cpu", *job.train[method])
        predictions = str(folder / "predictions" / method)
        call("nnmiss_predict", "-i", str(raw / "imagesTs"), "-o", predictions, "-d", job.number, "-m", method, *plans,
             "--all_subsets", "--disable_tta", "-device", "cpu")
        compare = ["--compare", str(folder / "predictions" / METHODS[0])] if method != METHODS[0] else []
        call("nnmiss_evaluate", "-gt", str(raw / "labelsTs"), "-pred", predictions, "-d", job.number, "--name", method,
             *compare)
    page = folder / "report.html"
    call("nnmiss_report", "-i", *(str(folder / "predictions" / method) for method in reversed(METHODS)), "-o", str(page))
    print(f"\nDone in {time.monotonic() - started:.0f} s. Look at:")
    last = folder / "predictions" / METHODS[-1]
    model = next((folder / "nnUNet_results" / job.dataset).glob(f"nnMissTrainerMetaKD__*/fold_{job.fold}"))
    for path, what in ((page, "everything on one page, with the images: open it in a browser"),
                       (last / "table.md", "Dice of every subset, metakd beside modality_dropout"),
                       (last / "heatmap.png", "the same as a picture; boxplots.png, dice_by_count.png beside it"),
                       (model / "progress.png", "losses and pseudo Dice"),
                       (folder / "nnUNet_preprocessed" / job.dataset / "subsets.png", "which files the cases lack")):
        print(f"  {path}  {what}")


def call(name: str, *arguments: str) -> None:
    """Prints a command as a user would type it and runs it. Raises NnmissError when it fails."""
    print(f"\n$ {shlex.join([name, *arguments])}", flush=True)
    if COMMANDS[name](list(arguments)):
        raise NnmissError(f"{name} failed; its messages stand above")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(prog="nnmiss_demo", description=__doc__)
    p.add_argument("-o", default="nnmiss_demo", metavar="FOLDER", help="where everything goes. Default: nnmiss_demo")
    p.add_argument("--data", metavar="FOLDER", help="patients of the open MS data (patientXX sub-folders) instead of "
                   "generated cases")
    p.add_argument("--seed", type=int, default=0, help="seed of the generated cases. Default: 0")
    return p


def run(arguments: list[str] | None = None) -> int:
    """Runs the demonstration. Returns the exit code."""
    args = parser().parse_args(arguments)
    folder = writable_folder(args.o).resolve()
    run_job(open_ms_job(str(Path(args.data).resolve())) if args.data else phantom_job(args.seed), folder)
    return 0


main = command(run)

if __name__ == "__main__":
    main()
