"""nnmiss_predict on a data set of classification: predictions.csv of a folder with manifest.csv."""
from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from nnmiss.atomic_files import writable_folder
from nnmiss.availability import AVAILABLE, Present, all_subsets, parse_subset, subset_name
from nnmiss.classification.description import CONFIGURATION
from nnmiss.classification.manifest import SPLITS, read_manifest
from nnmiss.cli.environment import choose_device, parse_fold
from nnmiss.cli.evaluate_classification import refuse_flags
from nnmiss.errors import NnmissError, shortened
from nnmiss.inference.checkpoints import trained_models
from nnmiss.inference.predict_samples import predict_samples, readable, write_record
from nnmiss.inference.prediction_files import FILE, RECORD
from nnmiss.inference.wanted import wanted_cases
from nnmiss.preprocessing.dataset_folders import find_dataset_name, require_folder
from nnmiss.trainers import classifier_class
from nnmiss.trainers.load_classifier import LoadedClassifier, load_classifier

SEGMENTATION_ONLY = {  # flag -> its value when it is not given
    "--save_probabilities": False, "--save_uncertainty": False, "--save_reconstructions": None,
    "--continue_prediction": False, "-step_size": None, "--disable_tta": False, "-nps": 1, "-num_parts": 1, "-part_id": 0}

SHOWN = 20  # failed samples that are printed


def predict(args: argparse.Namespace) -> int:
    """Runs nnmiss_predict. Returns the exit code: 1 when samples failed."""
    refuse_flags(args, SEGMENTATION_ONLY, "segmentation only: leave it out for a classification data set")
    plans = f"{args.p}-{args.tag}" if args.tag else args.p
    folder = require_folder("nnUNet_results") / find_dataset_name(args.d) / (
        f"{classifier_class(args.m).__name__}__{plans}__{args.c or CONFIGURATION}")
    device = torch.device(choose_device(args.device))
    models = load_models(folder, [parse_fold(f) for f in args.f] if args.f else None, args.chk, device)
    first = next(iter(models.values()))
    subsets = asked_subsets(args, first.modalities, readable(first.network).tolist())
    ids, unknown = asked_samples(args, first.description)
    output = usable_output(args, subsets)
    print(f"{'all' if ids is None else len(ids)} sample(s) of {args.i}, model {folder.name}, fold(s) "
          f"{', '.join(map(str, models))}")
    outcome = predict_samples(models, args.i, output, subsets, ids, device, max(1, args.npp), not args.disable_progress_bar)
    outcome.failures |= unknown
    write_record(output, models, folder, args.i, subsets, outcome)
    for note in outcome.notes:
        print(note if note.startswith("warning") else f"note: {note}")
    files = [str(output / name / FILE) for name, n in outcome.written.items() if n]
    print(f"results: {files[0] if len(files) == 1 else f'{len(files)} files {output}/SUBSET/{FILE}'}" if files
          else "no sample could be predicted")
    if outcome.failures:
        lines = [f"sample {name}: {text}" for name, text in outcome.failures.items()]
        more = [f"and {len(lines) - SHOWN} more, in {output / RECORD}"] if len(lines) > SHOWN else []
        print(f"{len(lines)} failed:", *lines[:SHOWN], *more, sep="\n  ", file=sys.stderr)
    return 1 if outcome.failures else 0


def load_models(model_folder: Path, folds: list[int | str] | None, checkpoint: str,
                device: torch.device | str) -> dict[int | str, LoadedClassifier]:
    """The models of some folds (None: all that were trained) of a run.

    Raises NnmissError when there is none, or folds that are of different classes or modalities.
    """
    if folds is None:
        folds = sorted((int(name) if name.isdigit() else name for name in (
            path.parent.name.removeprefix("fold_") for path in model_folder.glob(f"fold_*/{checkpoint}"))), key=str)
    if not model_folder.is_dir() or not folds:
        raise NnmissError(f"no trained model in {model_folder}: {trained_models(model_folder.parent)}")
    models = {fold: load_classifier(model_folder / f"fold_{fold}", checkpoint, device) for fold in folds}
    first = models[folds[0]]
    apart = [fold for fold, m in models.items() if (m.classes, m.modalities) != (first.classes, first.modalities)]
    if apart:
        raise NnmissError(f"folds {folds[0]} and {apart[0]} of {model_folder} are of different classes or modalities: "
                          "train one of them again, or choose with -f")
    return models


def asked_subsets(args: argparse.Namespace, modalities: list[str], used: list[bool]) -> dict[str, Present]:
    """Sub-folder ("": the output folder itself) -> modalities shown, of --modalities, --subsets and --all_subsets.

    Raises NnmissError for unknown names, and for others than those of a model that uses only some (`used`).
    """
    everything = tuple([True] * len(modalities))
    if args.all_subsets:
        subsets = {subset_name(s, modalities): s for s in all_subsets(len(modalities))} | {AVAILABLE: everything}
    elif args.subsets:
        named = [(AVAILABLE, everything) if s.strip().lower() == AVAILABLE else ("", parse_subset(s, modalities))
                 for s in args.subsets]
        subsets = {name or subset_name(shown, modalities): shown for name, shown in named}
    else:
        subsets = {"": parse_subset(args.modalities, modalities) if args.modalities else everything}
    own = tuple(used)
    if all(own):
        return subsets
    if args.all_subsets or any(shown != own for name, shown in subsets.items() if shown != everything):
        raise NnmissError(f"this model was trained for {subset_name(own, modalities)} alone: leave out --modalities, "
                          "--subsets and --all_subsets")
    return dict.fromkeys(subsets, own)


def asked_samples(args: argparse.Namespace, description) -> tuple[list[str] | None, dict[str, str]]:
    """(ids that --cases and --split leave, None for all; what --cases names and the manifest lacks -> message).

    Raises NnmissError for an input folder that is absent or without manifest.csv, and where nothing is left.
    """
    if not Path(args.i).is_dir():
        raise NnmissError(f"input folder {args.i} not found")
    if not args.cases and not args.split:
        return None, {}
    manifest, unknown = read_manifest(args.i, description), {}
    ids, of_split = manifest.ids, f" (split {args.split})" if args.split else ""
    if args.split:
        ids = [name for name, side in zip(ids, manifest.split) if side == args.split]
        if not ids:
            there = [side for side in SPLITS if side in manifest.split]
            raise NnmissError(f"--split {args.split}: {manifest.path} has no sample of it; its column split names "
                              f"{shortened(there) or 'none'}")
    if args.cases:
        ids, unknown = wanted_cases(args.cases, ids)
        unknown = dict.fromkeys(unknown, f"--cases names it, {manifest.path}{of_split} does not")
    return list(ids), unknown


def usable_output(args: argparse.Namespace, subsets: dict[str, Present]) -> Path:
    """The output folder. Raises NnmissError when it is the input, or has predictions that would be taken for new ones."""
    output = writable_folder(args.o)
    if output.resolve() == Path(args.i).resolve():
        raise NnmissError(f"-i and -o are the same folder {args.o}: predictions would lie among the data")
    flat, nested = output / FILE, sorted(output.glob(f"*/{FILE}"))
    other = nested if "" in subsets else [flat] * flat.is_file() + [p for p in nested if p.parent.name not in subsets]
    if other:
        raise NnmissError(f"{args.o} holds {other[0].relative_to(output)} of another prediction, which would be taken for "
                          "a part of this one: remove it, or choose another -o")
    return output
