"""nnmiss_simulate_missing: writes a table that takes files away from training cases, for nnmiss_train --missing."""
from __future__ import annotations

import argparse
import hashlib
import os
import re
from pathlib import Path

from nnmiss import __version__
from nnmiss.atomic_files import writable_folder, write_json, write_text
from nnmiss.availability import modality_names
from nnmiss.classification.description import CONFIGURATION
from nnmiss.errors import NnmissError, command
from nnmiss.preprocessing.dataset_folders import (
    CLASSIFICATION,
    dataset_kind,
    find_dataset_name,
    load_dataset_json,
    require_folder,
)
from nnmiss.preprocessing.integrity import find_problems, raise_problems
from nnmiss.preprocessing.raw_dataset import list_training_cases
from nnmiss.preprocessing.simulate_missing import (
    Table,
    brasyn,
    check_every_modality_left,
    full_ratio,
    missing_rates,
    parse_rates,
    summary_text,
    table_text,
)
from nnmiss.trainers.splits import fold_cases, load_or_make_splits

PROTOCOLS = {
    "full_ratio": "a share --ratio of the cases stays complete, every other case lacks 1 to M-1 of M modalities",
    "rates": "each modality is MISSING in the share of cases that --rates says",
    "brasyn": "each case lacks exactly one modality (segmentation only)",
}


def build_parser() -> argparse.ArgumentParser:
    """The flags of the command."""
    parser = argparse.ArgumentParser(
        prog="nnmiss_simulate_missing", formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__,
        epilog="protocols:\n" + "\n".join(f"  {name:10s}  {what}" for name, what in PROTOCOLS.items())
               + "\n\nNo file is touched. Files that really are absent stay absent, and a case keeps at least one file.")
    add = parser.add_argument
    add("-d", dest="dataset", required=True, metavar="ID", help="data set, id or name; only its raw folder is needed")
    add("-n", dest="name", required=True, metavar="NAME", help="name of the table: missing/NAME.csv of the raw data set")
    add("--protocol", required=True, choices=list(PROTOCOLS), help="how files are taken away, see below")
    add("--ratio", type=float, metavar="R", help="full_ratio: share of cases that STAY COMPLETE, 0 to 1 (0.01 for 1 %%); "
                                                 "at least one case if above 0")
    add("--rates", nargs="+", metavar="MODALITY=RATE",
        help="rates: share of cases that LACK the modality, 0 to below 1; a modality that is not named is never taken away")
    add("--fold", type=int, metavar="K", help="draw for the training cases of this fold only, as a paper with one fixed "
        "split does; needs a preprocessed data set. Default: all training cases")
    add("--seed", type=int, default=0, help="another seed is another draw. Default: 0")
    add("--overwrite", action="store_true", help="replace a table of this name")
    return parser


def run(arguments: list[str] | None = None) -> int:
    """Draws and writes the table, and says what it came to. Returns the exit code."""
    parser = build_parser()
    args = parser.parse_args(arguments)
    for option, protocol in (("ratio", "full_ratio"), ("rates", "rates")):
        if (getattr(args, option) is not None) != (args.protocol == protocol):
            parser.error(f"--protocol {protocol} needs --{option}, and no other protocol takes it")
    raw = require_folder("nnUNet_raw")
    dataset = find_dataset_name(args.dataset)
    file = _table_path(raw / dataset, args.name, args.overwrite)
    classification = (raw / dataset / "dataset.json").is_file() and dataset_kind(raw / dataset) == CLASSIFICATION
    if classification and args.protocol == "brasyn":
        raise NnmissError("--protocol brasyn is the rule of a segmentation challenge: use rates or full_ratio for a "
                          "classification data set")
    available, modalities = (_samples_there_are if classification else _files_there_are)(raw / dataset)
    if args.fold is not None:
        available = _of_fold(available, dataset, args.fold, classification)
    kept, parameters = _draw(args, available, modalities)
    check_every_modality_left(available, kept, modalities)
    text = table_text(kept, modalities)
    writable_folder(file.parent)
    write_json(file.with_name(f"{args.name}.json"), {
        "protocol": args.protocol, **parameters, "fold": args.fold, "seed": args.seed, "cases": len(kept),
        "sha256": hashlib.sha256(text.encode()).hexdigest(), "nnmiss_version": __version__})
    write_text(file, text)
    print(file)
    asked = {"ratio": f" {args.ratio}", "rates": f" (missing) {' '.join(args.rates or [])}"}.get(args.protocol, "")
    noun = "samples" if classification else "cases"
    print(f"protocol {args.protocol}{asked}, seed {args.seed}, {len(kept)} training {noun}")
    print(summary_text(available, kept, modalities))
    print(f"To train with it: nnmiss_train {args.dataset} METHOD FOLD --missing {args.name} --tag {args.name}")
    return 0


def _table_path(folder: Path, name: str, overwrite: bool) -> Path:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) or name.lower().endswith((".csv", ".json")):
        raise NnmissError(f"-n is a name without folder or ending, of letters, digits, '.', '_' and '-', got {name!r}")
    if not folder.is_dir():
        raise NnmissError(f"{folder.name} has no raw data: {folder} is not a folder")
    file = folder / "missing" / f"{name}.csv"
    if not overwrite:
        for existing in (file, file.with_name(f"{name}.json")):
            if existing.exists():
                raise NnmissError(f"{existing} exists already: choose another name with -n, or replace it with --overwrite "
                                  "(a run that was started with the old table then refuses to go on)")
    preprocessed = os.environ.get("nnUNet_preprocessed")  # noqa: SIM112 (nnU-Net's own name)
    nearer = Path(preprocessed or folder) / folder.name / "missing" / file.name
    if preprocessed and nearer.exists():
        raise NnmissError(f"training would read {nearer} instead: choose another name with -n, or remove that table")
    return file


def _files_there_are(folder: Path) -> tuple[Table, list[str]]:
    """(training case -> files it has, modalities). Raises NnmissError for a raw folder that planning would refuse."""
    dataset_json = load_dataset_json(folder)
    modalities = modality_names(dataset_json)
    cases = list_training_cases(folder, dataset_json)
    raise_problems(find_problems(cases, dataset_json), folder.name)
    return {case.name: tuple(i in case.files for i in range(len(modalities))) for case in cases}, modalities


def _samples_there_are(folder: Path) -> tuple[Table, list[str]]:
    """The same of a classification data set's samples that are not for testing."""
    from nnmiss.classification.integrity import samples_there_are  # readers that segmentation does without

    return samples_there_are(folder)


def _of_fold(available: Table, dataset: str, fold: int, classification: bool) -> Table:
    """The training cases of a fold. Raises NnmissError for a fold that does not exist."""
    folder = require_folder("nnUNet_preprocessed") / dataset
    if not folder.is_dir():
        raise NnmissError(f"--fold needs the folds of {folder}: run nnmiss_plan_and_preprocess first")
    if classification:
        from nnmiss.classification.cache import load_raw_samples
        from nnmiss.classification.splits import fold_rows

        training = fold_rows(folder, load_raw_samples(folder / CONFIGURATION), fold)[0]
        return {sample: available[sample] for sample in training}
    cases = sorted(available)
    return {case: available[case] for case in fold_cases(load_or_make_splits(folder, cases), fold, cases)[0]}


def _draw(args: argparse.Namespace, available: Table, modalities: list[str]) -> tuple[Table, dict]:
    """(what each case keeps, the protocol's parameters)."""
    if args.protocol == "full_ratio":
        return full_ratio(available, args.ratio, args.seed), {"ratio": args.ratio}
    if args.protocol == "brasyn":
        return brasyn(available, args.seed), {}
    rates = parse_rates(args.rates, modalities)
    return missing_rates(available, rates, args.seed), {"missing_rates": dict(zip(modalities, rates))}


main = command(run)

if __name__ == "__main__":
    main()
