"""nnmiss_train: trains a method on one fold, stage by stage, and validates every subset of modalities.

The data set's dataset.json says whether it is one of segmentation or of classification.
"""
from __future__ import annotations

import argparse
import os
import socket
import sys
from dataclasses import replace
from datetime import timedelta

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.multiprocessing.spawn import ProcessException

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
from nnmiss.trainers.run import RunArguments, as_started, make_run, run_folders, train
from nnmiss.trainers.settings import parse_assignments


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
    p.add_argument("--preset", default="paper", help="paper (as published, the default), official (the authors' code) or "
                   "another that the method has")
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
    p.add_argument("-num_gpus", type=int, default=1, help="number of GPUs of this machine. Default: 1")
    p.add_argument("-device", choices=["cuda", "cpu", "mps"], help="Default: cuda where there is a GPU, else cpu")
    p.add_argument("--disable_progress_bar", action="store_true", help="no progress bars, for log files")
    return p


def print_settings(method: str, dataset: str) -> None:
    """Lists what --set knows for a method, with the values of its presets, and its stages on a data set."""
    modalities, table = ["MODALITY"], METHODS if method in METHODS else CLASSIFIERS  # help is there before the data are
    try:
        folder = require_folder("nnUNet_preprocessed") / find_dataset_name(dataset)
        modalities = modality_names(load_dataset_json(folder, (SEGMENTATION, CLASSIFICATION)))
        table = CLASSIFIERS if dataset_kind(folder) == CLASSIFICATION else METHODS
    except NnmissError:
        pass
    trainer = (classifier_class if table is CLASSIFIERS else method_class)(method)
    for key, value in trainer.known_settings().items():
        if key in trainer.unused:
            continue
        presets = [f"{name}: {given + ' ' if '.' in given else ''}{other!r}" for name, changed in trainer.presets.items()
                   for given, other in changed.items() if given.rpartition(".")[2] == key]
        print(f"{key} = {value!r}" + (f"   ({', '.join(presets)})" if presets else ""))
    stages = trainer.stages_of(modalities, trainer.known_settings())
    print("stages (for stage.key=value):", ", ".join(f"{stage.name} ({stage.epochs} epochs)" for stage in stages))


def run(arguments: list[str] | None = None) -> int:
    """Runs the command with these arguments (default: the command line's). Returns the exit code."""
    args = parser().parse_args(arguments)
    if args.assignments == ["help"]:
        print_settings(args.method, args.dataset)
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
    if len(runs) == 1:
        train_one(runs[0], args)
        return 0
    failed = [one.seed for number, one in enumerate(runs, 1) if not train_seed(one, args, f"{number} of {len(runs)}")]
    if failed:
        print(f"failed: seed {', '.join(map(str, failed))}; the same command tries again", file=sys.stderr)
    return 1 if failed else 0


def train_seed(one: RunArguments, args: argparse.Namespace, place: str) -> bool:
    """Trains one of several seeds; whether it went well. The others are trained all the same."""
    print(f"seed {one.seed} ({place}), tag {one.tag}")
    try:
        train_one(one, args)
    except NnmissError as error:
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
    if asked.classification and args.num_gpus > 1:
        raise NnmissError(f"{asked.dataset_name} is a classification data set, which trains on one device: leave out "
                          "-num_gpus")
    if asked.classification and args.npz:
        raise NnmissError(f"{asked.dataset_name} is a classification data set, whose predictions.csv hold probabilities: "
                          "leave out --npz")


def train_one(asked: RunArguments, args: argparse.Namespace) -> None:
    """Trains and validates one run, or only does what the flags say."""
    if args.continue_training or args.val or args.val_best:
        if args.continue_training and not (run_folders(asked)[1] / "run.json").is_file():
            print(f"note: {run_folders(asked)[1]} holds nothing to continue: a new training starts. Is --tag right?")
        asked = as_started(asked)
    if args.num_gpus > 1:
        train_on_gpus(asked, args.num_gpus, (args.val, args.val_best, args.no_val))
        return
    if asked.device == "cuda":
        torch.backends.cudnn.benchmark = not asked.classification  # its fastest algorithm differs from run to run
    train(asked, args.val, args.val_best, args.no_val)


def train_on_gpus(arguments: RunArguments, num_gpus: int, validation: tuple[bool, bool, bool]) -> None:
    """One process per GPU of this machine, as nnU-Net does; `validation` are the last arguments of `train`.

    Raises NnmissError when there are fewer GPUs, for whatever `train` refuses, and when a process fails.
    """
    have = torch.cuda.device_count()
    if arguments.device != "cuda" or have < num_gpus:
        raise NnmissError(f"-num_gpus {num_gpus} needs as many CUDA devices, this machine has {have}")
    os.environ.setdefault("MASTER_ADDR", "localhost")
    if "MASTER_PORT" not in os.environ:
        with socket.socket() as free:
            free.bind(("", 0))
            os.environ["MASTER_PORT"] = str(free.getsockname()[1])
    make_run(arguments).check_against_earlier()  # refuse here, with a message, before processes start
    try:
        mp.spawn(_one_gpu, (num_gpus, arguments, validation), nprocs=num_gpus, join=True)
    except ProcessException as error:
        raise NnmissError(f"a training process failed: {str(error).strip().splitlines()[-1]}") from error


def _one_gpu(rank: int, num_gpus: int, arguments: RunArguments, validation: tuple[bool, bool, bool]) -> None:
    # ranks wait for one another after validating unequally many cases, which can take hours
    dist.init_process_group("nccl", rank=rank, world_size=num_gpus, timeout=timedelta(hours=12))
    torch.cuda.set_device(rank)
    torch.backends.cudnn.benchmark = True
    train(arguments, *validation)
    dist.destroy_process_group()


main = command(run)

if __name__ == "__main__":
    main()
