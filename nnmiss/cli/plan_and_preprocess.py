"""nnmiss_plan_and_preprocess: from raw data with holes to a plan and preprocessed cases."""
from __future__ import annotations

import argparse
import sys
from pathlib import Path

from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnmiss.classification.description import CONFIGURATION
from nnmiss.errors import NnmissError, command
from nnmiss.planners.prepare_dataset import DEFAULT_CONFIGURATIONS, Prepared, PrepareOptions, prepare_dataset
from nnmiss.planners.registry import ALIASES, PLANNERS, find_planner
from nnmiss.preprocessing.case_pool import usable_processes
from nnmiss.preprocessing.dataset_folders import CLASSIFICATION, dataset_kind, find_dataset_name, require_folder
from nnmiss.preprocessing.preprocess_dataset import CASCADE
from nnmiss.preprocessing.split_presets import PRESETS, list_presets
from nnmiss.preprocessing.splits_file import require_splits_source

SEGMENTATION_ONLY = {  # flag -> its value when it is not given
    "-pl": "nnMissPlanner", "-gpu_memory_target": None, "-overwrite_target_spacing": None, "-overwrite_plans_name": None,
    "-npfp": None, "--blank_is_missing": False}
READING_THREADS = 4


class _Splits(argparse.Action):
    """Takes the value; `help` prints the presets and ends the command, whatever else is given."""

    def __call__(self, parser, namespace, value, option_string=None):
        if value == "help":
            print(f"Presets for --splits:\n{list_presets()}")
            parser.exit()
        setattr(namespace, self.dest, value)


def parser() -> argparse.ArgumentParser:
    """The command's options, named as nnU-Net's."""
    p = argparse.ArgumentParser(
        description="Checks, plans and preprocesses data sets in which any channel file of a case may be absent, except "
                    "all of them. Without holes, plan and arrays are nnU-Net's own. Data sets of classification are known "
                    f"by their dataset.json; {', '.join(SEGMENTATION_ONLY)} are not for them.")
    p.add_argument("-d", nargs="+", required=True, metavar="ID",
                   help="[REQUIRED] List of dataset IDs or names. Example: 2 4 5")
    p.add_argument("--verify_dataset_integrity", action="store_true",
                   help="[RECOMMENDED] Read every image and label: label values, NaN, checksums of compressed files. "
                        "Names, channels, labels and headers are always checked. Classification: stop at samples that "
                        "cannot be read, instead of leaving them out")
    p.add_argument("-c", nargs="+", default=None, metavar="CONFIGURATION",
                   help="[OPTIONAL] Configurations to preprocess. Default: those of "
                        f"{' '.join(DEFAULT_CONFIGURATIONS)} that the plan has. The cascade is not supported.")
    p.add_argument("-pl", default="nnMissPlanner", metavar="PLANNER",
                   help=f"[OPTIONAL] Planner: {', '.join(PLANNERS)}; nnU-Net's names ({', '.join(ALIASES)}) work too. "
                        "Default: nnMissPlanner")
    p.add_argument("-gpu_memory_target", type=float, default=None, metavar="GB",
                   help="[OPTIONAL] GPU memory target in GB. Changes patch and batch size. Default: the planner's")
    p.add_argument("-overwrite_target_spacing", nargs=3, type=float, default=None, metavar="MM",
                   help="[OPTIONAL] Target spacing (three numbers, in nnU-Net's axis order) of 3d_fullres")
    p.add_argument("-overwrite_plans_name", default=None, metavar="NAME",
                   help="[OPTIONAL] Name of the plan; best practice together with the two options above. Training "
                        "needs it as -p")
    p.add_argument("-np", nargs="+", type=int, default=None, metavar="N",
                   help="[OPTIONAL] Processes for preprocessing: one number, or one per configuration. 1 works in this "
                        "process. Default: 8 for 2d, 4 for 3d_fullres, 8 for 3d_lowres, 4 for others; never more than "
                        "cores or cases. Use fewer if memory runs out")
    p.add_argument("-npfp", type=int, default=None, metavar="N",
                   help="[OPTIONAL] Processes for the fingerprint. Default: the first number of -np, or 8")
    p.add_argument("--no_pp", action="store_true", help="[OPTIONAL] Only fingerprint and plan, no preprocessing")
    p.add_argument("--clean", action="store_true",
                   help="[OPTIONAL] Extract the fingerprint and preprocess every case anew. Files that changed, appeared "
                        "or disappeared are noticed without it")
    p.add_argument("--blank_is_missing", action="store_true",
                   help="[OPTIONAL] Treat channel files that are all zero or constant as missing")
    p.add_argument("--splits", default=None, metavar="PRESET", action=_Splits,
                   help=f"[OPTIONAL] Splits: {', '.join(PRESETS)} (published, by case id, with their test cases), "
                        'or a file like splits_final.json, a list of {"train": [...], "val": [...]}. '
                        "`--splits help` lists the presets. Classification: NAME of the data set's splits/NAME.json, "
                        "or a file")
    p.add_argument("--no_pbar", action="store_true", help="[OPTIONAL] No progress bars")
    p.add_argument("--verbose", action="store_true", help="[OPTIONAL] Print a lot of stuff, also nnU-Net's own")
    return p


def _options(args: argparse.Namespace) -> PrepareOptions:
    if any("cascade" in c for c in args.c or []):
        raise NnmissError(CASCADE.format(name=next(c for c in args.c if "cascade" in c)))
    if any(n < 0 for n in (args.np or [])) or (args.npfp or 0) < 0:
        raise NnmissError("-np and -npfp take numbers of processes, 0 or more")
    if args.np and args.c and len(args.np) not in (1, len(args.c)):
        raise NnmissError(f"-np takes one number or one per configuration ({len(args.c)}), got {len(args.np)}")
    if any(s <= 0 for s in args.overwrite_target_spacing or []):
        raise NnmissError(f"-overwrite_target_spacing must be positive, got {args.overwrite_target_spacing}")
    fingerprint = args.npfp if args.npfp is not None else (args.np[0] if args.np else 8)
    return PrepareOptions(
        planner=find_planner(args.pl), configurations=args.c, num_processes=args.np,
        num_processes_fingerprint=fingerprint, verify=args.verify_dataset_integrity, clean=args.clean,
        preprocess=not args.no_pp, blank_is_missing=args.blank_is_missing, splits=args.splits,
        gpu_memory_target_gb=args.gpu_memory_target, target_spacing=args.overwrite_target_spacing,
        plans_name=args.overwrite_plans_name, show_progress_bar=not args.no_pbar, verbose=args.verbose)


def _prepare_samples(raw: Path, preprocessed: Path, args: argparse.Namespace) -> bool:
    """Prepares one classification data set. Returns whether samples failed; raises NnmissError, also for other flags."""
    from nnmiss.planners.prepare_samples import SampleOptions, prepare_samples  # readers that segmentation does without

    given = [flag for flag, default in SEGMENTATION_ONLY.items() if getattr(args, flag.lstrip("-")) != default]
    if given:
        raise NnmissError(f"{', '.join(given)} is for segmentation only: leave it out for a classification data set")
    if args.c not in (None, [CONFIGURATION]):
        raise NnmissError(f"-c {' '.join(args.c)}: a classification data set has the one configuration {CONFIGURATION}")
    threads = usable_processes(args.np[0] if args.np else READING_THREADS, sys.maxsize)
    options = SampleOptions(args.verify_dataset_integrity, not args.no_pp, args.splits, threads, not args.no_pbar)
    prepared = prepare_samples(raw, preprocessed, options)
    print(f"Plan: {prepared.folder / (prepared.plan['plans_name'] + '.json')}\n{prepared.plan_text}")
    if prepared.stored:
        print(f"Preprocessed: {prepared.folder / CONFIGURATION}")
    if prepared.errors:
        _print_errors(raw.name, prepared.errors, "sample")
    else:
        print(f"Next: nnmiss_train {_id(raw.name)} metakd 0" if prepared.stored else
              f"Next: nnmiss_plan_and_preprocess -d {_id(raw.name)}, without --no_pp")
    return bool(prepared.errors)


def _print_plan(prepared: Prepared) -> None:
    print(f"Plan: {prepared.folder / (prepared.plans['plans_name'] + '.json')}")
    manager = PlansManager(prepared.plans)
    for name in manager.available_configurations:
        configuration = manager.get_configuration(name)
        block = configuration.configuration.get("nnmiss", {})
        if configuration.previous_stage_name or not block:
            continue
        estimates = block["estimates"]
        memory = estimates["peak_mib"] / estimates["stock_peak_mib"]
        above = f", activation checkpointing above {block['whole_passes']} images"
        equal_memory = estimates["equal_memory_width_factor"]
        print(f"  {name}: patch {' x '.join(map(str, configuration.patch_size))}, batch {configuration.batch_size}, "
              f"width {block['width_factor']:g} (of nnU-Net's: cost {estimates['relative_cost']:.2f}, memory {memory:.2f})"
              + (above if block["activation_checkpointing"] else "")
              + (f", micro-batch {block['micro_batch']}" if block["micro_batch"] < configuration.batch_size else ""))
        print(f"    equal cost at width {estimates['equal_cost_width_factor']:g}, equal memory without checkpointing at "
              + ("none" if equal_memory is None else f"{equal_memory:g}"))


def _print_result(prepared: Prepared) -> None:
    _print_plan(prepared)
    manager = PlansManager(prepared.plans)
    for name in prepared.configurations:
        print(f"Preprocessed: {prepared.folder / manager.get_configuration(name).data_identifier}")
    if prepared.errors:
        _print_errors(prepared.dataset_name, prepared.errors, "case")
        return
    configuration = next((c for c in ("3d_fullres", *prepared.configurations) if c in prepared.configurations), None)
    if configuration is None:
        print(f"Next: nnmiss_plan_and_preprocess -d {_id(prepared.dataset_name)}, without --no_pp")
        return
    flags = "" if configuration == "3d_fullres" else f" -c {configuration}"
    flags += "" if prepared.plans["plans_name"] == "nnMissPlans" else f" -p {prepared.plans['plans_name']}"
    print(f"Next: nnmiss_train {_id(prepared.dataset_name)} metakd 0{flags}")


def _print_errors(dataset_name: str, errors: dict[str, str], noun: str) -> None:
    listed = "".join(f"\n  - {where}: {reason}" for where, reason in errors.items())
    print(f"error: {dataset_name}: {len(errors)} {noun}(s) failed, the others are done:{listed}", file=sys.stderr)


def _id(dataset_name: str) -> int:
    return int(dataset_name.split("_")[0].removeprefix("Dataset"))


def run(arguments: list[str] | None = None) -> int:
    """Prepares every data set; one that fails is named and the others finish. Returns 1 when anything failed."""
    args = parser().parse_args(arguments)
    options = _options(args)
    raw, preprocessed = require_folder("nnUNet_raw"), require_folder("nnUNet_preprocessed")
    failed = False
    for dataset in args.d:
        try:
            name = find_dataset_name(dataset)
            if (raw / name / "dataset.json").is_file() and dataset_kind(raw / name) == CLASSIFICATION:
                failed |= _prepare_samples(raw / name, preprocessed / name, args)
                continue
            if args.splits is not None:
                require_splits_source(args.splits)
            prepared = prepare_dataset(name, options)
        except NnmissError as error:
            print(f"error: {error}", file=sys.stderr)
            failed = True
            continue
        _print_result(prepared)
        failed = failed or bool(prepared.errors)
    return int(failed)


main = command(run)

if __name__ == "__main__":
    main()
