"""nnmiss_predict: segments or classifies with whatever modalities there are, with named ones, or with every subset."""
from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch

from nnmiss.atomic_files import remove_leftovers, writable_folder, write_json
from nnmiss.availability import all_subsets, modality_names, parse_subset
from nnmiss.classification.manifest import SPLITS
from nnmiss.cli.environment import choose_device, parse_fold
from nnmiss.errors import NnmissError, command
from nnmiss.export.colour_tables import write_colour_tables
from nnmiss.folder_lock import only_one
from nnmiss.inference.predict_cases import Output, predict_cases
from nnmiss.inference.predictor import MissingModalityPredictor
from nnmiss.inference.reconstruction import Reconstructions, load_reconstructions
from nnmiss.inference.wanted import Wanted, wanted_cases
from nnmiss.preprocessing.dataset_folders import (
    CLASSIFICATION,
    SEGMENTATION,
    find_dataset_name,
    kind_of_dataset,
    require_folder,
)
from nnmiss.preprocessing.identical_files import describe_copies
from nnmiss.preprocessing.raw_dataset import RawCase, list_cases
from nnmiss.trainers import CLASSIFIERS, METHODS, method_class, method_of_trainer


def parser() -> argparse.ArgumentParser:
    """The command line; flags that nnU-Net has too are called as in nnU-Net."""
    p = argparse.ArgumentParser(prog="nnmiss_predict", description=__doc__)
    p.add_argument("-i", required=True, metavar="FOLDER", help="input folder with CASE_0000.nii.gz ...; any channel of a "
                   "case may be absent, but not all. Classification: with manifest.csv, labels are not needed")
    p.add_argument("-o", required=True, metavar="FOLDER", help="output folder; made if it is not there")
    p.add_argument("-d", required=True, metavar="DATASET", help="dataset name or id the model was trained on")
    p.add_argument("-m", required=True, metavar="METHOD", help=f"one of: {', '.join(METHODS)}; of classification: "
                   f"{', '.join(CLASSIFIERS)}")
    p.add_argument("-f", nargs="+", default=None, metavar="FOLD", help="folds to ensemble. Default: every trained one")
    p.add_argument("-c", help="configuration. Default: 3d_fullres, of classification default")
    p.add_argument("-p", default="nnMissPlans", help="plans identifier. Default: nnMissPlans")
    p.add_argument("--tag", default="", help="the --tag of the training")
    which = p.add_mutually_exclusive_group()
    which.add_argument("--modalities", nargs="+", metavar="NAME", help="show only these modalities")
    which.add_argument("--subsets", nargs="+", metavar="A+B", help="predict these subsets, each into its own sub-folder")
    which.add_argument("--all_subsets", action="store_true", help="predict all 2^M - 1 subsets")
    p.add_argument("--cases", nargs="+", metavar="CASE", help="predict only these cases of -i: names, or files that list "
                   "them (test_cases.json, a JSON list, text with one name a line)")
    p.add_argument("--split", choices=SPLITS, help="classification: predict only samples that the manifest's column split "
                   "says this of")
    p.add_argument("--save_probabilities", action="store_true", help="also write CASE.npz and CASE.pkl as nnU-Net does")
    p.add_argument("--save_uncertainty", action="store_true", help="also write the entropy map uncertainty/CASE, 0 to 1")
    p.add_argument("--save_reconstructions", nargs="?", const="", metavar="STAGE", help="also write what the method "
                   "reconstructs of the modalities that are not shown, and a figure: reconstructions/CASE_000X; by the "
                   "last stage's recovery module, or by that of an earlier STAGE, such as approximate of all_stage")
    p.add_argument("--continue_prediction", action="store_true", help="keep predictions that are already there")
    p.add_argument("-step_size", type=float, help="step of the sliding window. Default: 0.5")
    p.add_argument("--disable_tta", action="store_true", help="no mirroring: up to 8 times faster")
    p.add_argument("-chk", default="checkpoint_final.pth", help="checkpoint name. Default: checkpoint_final.pth")
    p.add_argument("-npp", type=int, default=1, help="threads that read and preprocess cases ahead. Default: 1")
    p.add_argument("-nps", type=int, default=1, help="threads that resample and write results. Default: 1")
    p.add_argument("-num_parts", type=int, default=1, help="split the cases over this many calls. Default: 1")
    p.add_argument("-part_id", type=int, default=0, help="which of the parts this call is, from 0")
    p.add_argument("-device", choices=["cuda", "cpu", "mps"], help="Default: cuda where there is a GPU, else cpu")
    p.add_argument("--disable_progress_bar", action="store_true", help="no progress bars, for log files")
    p.add_argument("--verbose", action="store_true", help="say more")
    return p


def kind_of_model(dataset: str) -> str:
    """"segmentation" or "classification": by dataset.json, and where only trained models are there by these."""
    try:
        return kind_of_dataset(dataset)
    except NnmissError:
        models = require_folder("nnUNet_results") / find_dataset_name(dataset)
        return CLASSIFICATION if any(models.glob("nnMissClassifier*__*/dataset.json")) else SEGMENTATION


def model_folder(args: argparse.Namespace) -> Path:
    """Where training put the model."""
    plans = f"{args.p}-{args.tag}" if args.tag else args.p
    trainer = method_class(args.m).__name__
    return require_folder("nnUNet_results") / find_dataset_name(args.d) / f"{trainer}__{plans}__{args.c}"


def wanted_subsets(args: argparse.Namespace, modalities: list[str], only: str = "") -> Wanted:
    """--modalities, --subsets and --all_subsets as one object.

    Raises NnmissError for unknown names, and for others than those of `only`, all that a dedicated network knows.
    """
    if only:
        own, asked = parse_subset(only, modalities), [args.modalities, *(args.subsets or [])]
        if args.all_subsets or any(names and parse_subset(names, modalities) != own for names in asked):
            raise NnmissError(f"this model was trained for {only} alone (subset={only}): leave out --modalities, --subsets "
                              "and --all_subsets")
        return Wanted(subsets=(own,)) if args.subsets else Wanted(shown=own)
    if args.all_subsets:
        return Wanted(subsets=tuple(all_subsets(len(modalities))))
    if args.subsets:
        return Wanted(subsets=tuple(dict.fromkeys(parse_subset(s, modalities) for s in args.subsets)))
    return Wanted(shown=parse_subset(args.modalities, modalities) if args.modalities else None)


def input_cases(args: argparse.Namespace, file_ending: str) -> tuple[list[RawCase], dict[str, str]]:
    """(cases of this call, what --cases names and -i lacks -> message).

    Raises NnmissError for an input folder that is absent or empty, a part out of range, or --cases with no known name.
    """
    if not Path(args.i).is_dir():
        raise NnmissError(f"input folder {args.i} not found")
    if not 0 <= args.part_id < args.num_parts:
        raise NnmissError(f"-part_id {args.part_id} must be from 0 to {args.num_parts - 1} (-num_parts {args.num_parts})")
    cases, unknown = {case.name: case for case in list_cases(args.i, file_ending, strict=False)}, {}
    if not cases:
        raise NnmissError(f"{args.i} has no files named CASE_0000{file_ending}, CASE_0001{file_ending}, ...")
    if args.cases:
        chosen, unknown = wanted_cases(args.cases, cases)
        cases = {name: cases[name] for name in chosen}
    return list(cases.values())[args.part_id :: args.num_parts], unknown


def predict_into(out: Path, predictor: MissingModalityPredictor, cases: list[RawCase], wanted: Wanted,
                 reconstructions: Reconstructions | None, args: argparse.Namespace) -> dict[str, str]:
    """Writes what prediction and its output need beside it, then predicts. Returns case -> message of those that failed."""
    for place in (out, *(p for p in out.iterdir() if p.is_dir())):
        remove_leftovers(place)
    write_json(out / "dataset.json", predictor.dataset_json)
    write_json(out / "plans.json", predictor.plans_manager.plans)
    write_json(out / "predict_from_raw_data_args.json", vars(args))
    write_colour_tables(out, predictor.dataset_json)
    if copies := describe_copies(cases, modality_names(predictor.dataset_json)):
        print(copies)
    print(f"{len(cases)} case(s), model {predictor.model_folder.name}, fold(s) {', '.join(map(str, predictor.folds))}")
    failures = predict_cases(
        predictor, cases, wanted,
        Output(out, args.save_probabilities, args.save_uncertainty, args.continue_prediction, reconstructions), args.nps,
        max(1, args.npp))
    print(f"{len(cases) - len(failures)} of {len(cases)} case(s) done, results in {out}")
    return failures


def run(arguments: list[str] | None = None) -> int:
    """Runs the command with these arguments (default: the command line's). Returns the exit code."""
    args = parser().parse_args(arguments)
    if kind_of_model(args.d) == CLASSIFICATION:
        from nnmiss.cli.predict_classification import predict  # readers that segmentation does without

        return predict(args)
    if args.split:
        raise NnmissError("--split is for classification, whose manifest.csv says which sample is of which")
    args.c = args.c or "3d_fullres"
    args.step_size = 0.5 if args.step_size is None else args.step_size
    if not 0 < args.step_size <= 1:
        raise NnmissError(f"-step_size must be above 0 and at most 1, got {args.step_size}")
    folder = model_folder(args)
    device = torch.device(choose_device(args.device))
    predictor = MissingModalityPredictor(args.step_size, use_mirroring=not args.disable_tta, device=device,
                                         perform_everything_on_device=device.type == "cuda", verbose=args.verbose,
                                         allow_tqdm=not args.disable_progress_bar)
    folds = [parse_fold(f) for f in args.f] if args.f else None
    predictor.initialize_from_folder(folder, folds, args.chk, method_of_trainer)
    block = predictor.configuration_manager.configuration.get("nnmiss", {})
    wanted = wanted_subsets(args, modality_names(predictor.dataset_json), block.get("subset", ""))
    cases, unknown = input_cases(args, predictor.dataset_json["file_ending"])
    reconstructions = None
    if args.save_reconstructions is not None:
        reconstructions = load_reconstructions(predictor, method_class(args.m), cases, args.save_reconstructions)
    out = writable_folder(args.o)
    if out.resolve() == Path(args.i).resolve():
        raise NnmissError(f"-i and -o are the same folder {args.o}: predictions would lie among the images")
    if unknown:
        print(f"error: --cases: {len(unknown)} case(s) are not in {args.i}, the others are predicted", file=sys.stderr)
    same = [str(folder.resolve()), predictor.folds, args.chk, args.step_size, args.disable_tta]
    with only_one(out, f"predicts with {folder.name}, {args.chk}", shared=json.dumps(same)):
        failures = predict_into(out, predictor, cases, wanted, reconstructions, args)
    failures |= unknown
    if failures:
        print(f"{len(failures)} failed:", *failures.values(), sep="\n  ", file=sys.stderr)
    return 1 if failures else 0


main = command(run)

if __name__ == "__main__":
    main()
