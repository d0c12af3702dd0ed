"""nnmiss_train: trains a method on one fold, stage by stage, and validates every subset of modalities.

The data set's dataset.json says whether it is one of segmentation or of classification.
"""
from __future__ import annotations

import argparse
import sys
from contextlib import nullcontext
from dataclasses import replace

import torch

from nnmiss.availability import modality_names
from nnmiss.cli.environment import choose_device, parse_fold
from nnmiss.errors import NnmissError, command
from nnmiss.preprocessing.dataset_folders import (
    CLASSIFICATION,
    SEGMENTATION,
    dataset_kind,
    find_dataset_name,
    load_dataset_json,
    require_folder,
)
from nnmiss.trainers import CLASSIFIERS, METHODS, classifier_class, method_class
from nnmiss.trainers.processes import joined, launched, rank, start_here
from nnmiss.trainers.run import RunArguments, as_started, make_run, run_folders, train
from nnmiss.trainers.settings import common_settings, parse_assignments, stage_epochs


def parser() -> argparse.ArgumentParser:
    """The command line; flags that nnU-Net has too are called as in nnU-Net."""
    p = argparse.ArgumentParser(prog="nnmiss_train", description=__doc__)
    p.add_argument("dataset", help="dataset name or id")
    p.add_argument("method", help=f"segmentation: {', '.join(METHODS)}. Classification: {', '.join(CLASSIFIERS)}")
    p.add_argument("fold", help="fold of the cross-validation, usually 0 to 4, or 'all'")
    p.add_argument("-c", dest="configuration", default="",
                   help="configuration. Default: 3d_fullres; classification data sets have one, default")
    p.add_argument("-p", dest="plans", default="nnMissPlans", help="plans identifier. Default: nnMissPlans")
    p.add_argument("--seed", type=int, help="seed of everything random. Default: 0")
    p.add_argument("--seeds", type=int, nargs="+", metavar="N",
                   help="several seeds, one run each, one after the other; seed N has the tag [TAG-]sN")
    p.add_argument("--tag", default="", help="name of this run, to keep several of one method side by side")
    p.add_argument("--missing", metavar="NAME", help="table missing/NAME.csv of simulated missingness, for training cases")
    p.add_argument("--stage", metavar="NAME", help="train this stage only. Default: all of the method's, in order")
    p.add_argument("--preset", default="", help="paper (as published), official (the authors' code), best or another that "
                   "the method has. Default: the method's own choice; '--set help' names it")
    p.add_argument("--set", dest="assignments", nargs="+", action="extend", default=[], metavar="KEY=VALUE",
                   help="settings, such as num_epochs=100 alpha=0.05 missing.num_epochs=20; '--set help' lists them")
    p.add_argument("--c", dest="continue_training", action="store_true",
                   help="continue from the last whole checkpoint, with the settings the run was started with. (The "
                        "same command without --c continues too; delete the folder or give a --tag to start anew)")
    p.add_argument("--val", action="store_true", help="only run the final validation of a finished training")
    p.add_argument("--val_best", action="store_true", help="validate checkpoint_best instead of checkpoint_final")
    p.add_argument("--no_val", action="store_true", help="no final validation; --val does it later")
    p.add_argument("--npz", action="store_true", help="save probabilities of the final validation as npz")
    p.add_argument("-pretrained_weights", metavar="FILE", help="checkpoint to start from (nnU-Net's or ours)")
    p.add_argument("-num_gpus", type=int, default=1, help="number of GPUs of this machine to share each batch; "
                   "with -device cpu processes. On several machines start it with torchrun instead. Default: 1")
    p.add_argument("-device", choices=["cuda", "cpu", "mps"], help="Default: cuda where there is a GPU, else cpu")
    p.add_argument("--disable_progress_bar", action="store_true", help="no progress bars, for log files")
    return p


def print_settings(method: str, dataset: str, preset: str) -> None:
    """Lists what --set knows for a method, with the values of its presets, and a preset's stages on a data set."""
    modalities, table = ["MODALITY"], METHODS if method in METHODS else CLASSIFIERS  # help is there before the data are
    try:
        folder = require_folder("nnUNet_preprocessed") / find_dataset_name(dataset)
        modalities = modality_names(load_dataset_json(folder, (SEGMENTATION, CLASSIFICATION)))
        table = CLASSIFIERS if dataset_kind(folder) == CLASSIFICATION else METHODS
    except NnmissError:
        pass
    trainer = (classifier_class if table is CLASSIFIERS else method_class)(method)
    preset = preset or trainer.default_preset
    settings = common_settings(trainer.known_settings(), trainer.presets, preset, {}, trainer.all_limits(),
                               trainer.all_choices())
    for key in (key for key in settings if key not in trainer.unused):
        others = [f"{name}: {layer.get(key, trainer.known_settings()[key])!r}" for name, layer in trainer.presets.items()
                  if layer.get(key, trainer.known_settings()[key]) != settings[key]]
        staged = [f"{name}: {given} {value!r}" for name, layer in trainer.presets.items()
                  for given, value in layer.items() if given.rpartition(".")[0] and given.rpartition(".")[2] == key]
        print(f"{key} = {settings[key]!r}" + (f"   ({', '.join(others + staged)})" if others + staged else ""))
    print(f"values of preset {preset}, in brackets those of the others; presets: {', '.join(trainer.presets)}, without "
          f"--preset it is {trainer.default_preset}")
    published = {stage.name: stage.epochs for stage in trainer.stages_of(modalities, settings)}
    stages = stage_epochs(settings["num_epochs"], published, {})
    print(f"stages of {preset} (for stage.key=value):", ", ".join(f"{name} ({n} epochs)" for name, n in stages.items()))


def run(arguments: list[str] | None = None) -> int:
    """Runs the command with these arguments (default: the command line's). Returns the exit code."""
    args = parser().parse_args(arguments)
    if args.assignments == ["help"]:
        print_settings(args.method, args.dataset, args.preset)
        return 0
    for variable in ("nnUNet_preprocessed", "nnUNet_results"):
        require_folder(variable)
    asked = RunArguments(
        dataset_name=find_dataset_name(args.dataset), method=args.method, fold=parse_fold(args.fold),
        configuration=args.configuration, plans_name=args.plans, seed=args.seed or 0, tag=args.tag, missing=args.missing,
        stage=args.stage, preset=args.preset, assignments=parse_assignments(args.assignments),
        pretrained_weights=args.pretrained_weights, device="", show_progress=not args.disable_progress_bar,
        save_probabilities=args.npz)
    refuse_contradictions(args, asked)
    asked = replace(asked, device=choose_device(args.device))
    runs = [asked]
    if args.seeds:
        runs = [replace(asked, seed=seed, tag=f"{args.tag}-s{seed}" if args.tag else f"s{seed}") for seed in args.seeds]
    with joined(asked.device) if launched() else nullcontext():
        return train_all(runs, args)


def train_all(runs: list[RunArguments], args: argparse.Namespace) -> int:
    """Trains one run, or those of several seeds one after the other. Returns the exit code."""
    if len(runs) == 1:
        train_one(runs[0], args)
        return 0
    failed = [one.seed for number, one in enumerate(runs, 1) if not train_seed(one, args, f"{number} of {len(runs)}")]
    if failed:
        print(f"failed: seed {', '.join(map(str, failed))}; the same command tries again", file=sys.stderr)
    return 1 if failed else 0


def train_seed(one: RunArguments, args: argparse.Namespace, place: str) -> bool:
    """Trains one of several seeds; whether it went well. The others are trained all the same (but under torchrun)."""
    print(f"seed {one.seed} ({place}), tag {one.tag}")
    try:
        train_one(one, args)
    except NnmissError as error:
        if launched():  # the other processes may not know of it: they would wait in one seed for this one in the next
            raise
        print(f"error: seed {one.seed}: {error}", file=sys.stderr)
        return False
    return True


def refuse_contradictions(args: argparse.Namespace, asked: RunArguments) -> None:
    """Raises NnmissError for an unknown method, and for flags that exclude one another or are not for this data set."""
    _ = asked.trainer_class  # raises for an unknown method
    if args.continue_training and args.pretrained_weights:
        raise NnmissError("--c continues a training and -pretrained_weights starts one: give only one of them")
    if args.seeds and args.seed is not None:
        raise NnmissError("--seed is for one run and --seeds for several: give only one of them")
    if args.seeds and len(set(args.seeds)) < len(args.seeds):
        raise NnmissError(f"--seeds {' '.join(map(str, args.seeds))} names a seed twice")
    if args.num_gpus < 1:
        raise NnmissError(f"-num_gpus is {args.num_gpus}, expected at least 1")
    if args.num_gpus > 1 and launched():
        raise NnmissError(f"-num_gpus {args.num_gpus} starts processes, and torchrun has started some: give only one of "
                          "them")
    if asked.classification and (args.num_gpus > 1 or launched()):
        raise NnmissError(f"{asked.dataset_name} is a classification data set, which trains on one device: leave out "
                          "-num_gpus and torchrun")
    if asked.classification and args.npz:
        raise NnmissError(f"{asked.dataset_name} is a classification data set, whose predictions.csv hold probabilities: "
                          "leave out --npz")


def train_one(asked: RunArguments, args: argparse.Namespace) -> None:
    """Trains and validates one run, or only does what the flags say."""
    if args.continue_training or args.val or args.val_best:
        if args.continue_training and not (run_folders(asked)[1] / "run.json").is_file():
            print(f"note: {run_folders(asked)[1]} holds nothing to continue: a new training starts. Is --tag right?")
        asked = as_started(asked)
    validation = args.val, args.val_best, args.no_val
    if args.num_gpus > 1:
        device = "cpu" if args.device == "cpu" else "cuda"  # CPUs only where asked for
        make_run(asked).check_against_earlier()  # refuse here, with a message, before processes start
        start_here(train_quietly, (replace(asked, device=device), *validation), args.num_gpus, device)
        return
    train_quietly(asked, *validation)


def train_quietly(asked: RunArguments, *validation: bool) -> None:
    """`train`, in a process of its own or as the only one; of several the first one shows progress."""
    if asked.device == "cuda":
        torch.backends.cudnn.benchmark = not asked.classification  # its fastest algorithm differs from run to run
    train(replace(asked, show_progress=asked.show_progress and rank() == 0), *validation)


main = command(run)

if __name__ == "__main__":
    main()
