"""nnmiss_evaluate on a data set of classification."""
from __future__ import annotations

import argparse
import sys
from pathlib import Path

from nnmiss.errors import NnmissError
from nnmiss.evaluation.classification.conventions import Conventions
from nnmiss.evaluation.classification.evaluate import evaluate_predictions
from nnmiss.evaluation.classification.figures import NAMES

SEGMENTATION_ONLY = {  # flag -> its value when it is not given
    "--hd95": "brats2020", "--hd95_unit": "mm", "--empty": "brats", "--lesionwise": None, "--et_min_voxels": None,
    "--et_replace": None, "--include_average": False, "-d": None, "-np": 1}
CLASSIFICATION_ONLY = {"--resamples": 1000, "--resample": "sample", "--seed": 0, "--with_incomplete": False}


def evaluate(args: argparse.Namespace) -> int:
    """Runs nnmiss_evaluate; returns 1 when something could not be evaluated. The rest is in the results."""
    refuse_flags(args, SEGMENTATION_ONLY, "segmentation only: leave it out for a classification data set")
    conventions = Conventions(args.resamples, args.seed, args.resample, ece_bins=args.ece_bins,
                              with_incomplete=args.with_incomplete)
    output = Path(args.o or args.pred)
    results = evaluate_predictions(args.gt, args.pred, output, conventions, args.compare, args.name)
    print(f"\n{results.attrs['table']}\n")
    if results.attrs["comparison"]:
        print(results.attrs["comparison"])
    for note in results.attrs["notes"]:
        print(f"note: {note}")
    drawn = ", ".join(name for name in NAMES if (output / name).is_file())
    print(f"Tables: {output / 'table.md'} and {output / 'table.tex'}. All values with intervals: {output / 'results.csv'}. "
          f"Conventions: {output / 'summary.json'}. Figures beside them: {drawn}")
    errors = results.attrs["errors"]
    for error in errors:
        print(f"error: {error}", file=sys.stderr)
    return 1 if errors else 0


def refuse_flags(args: argparse.Namespace, flags: dict[str, object], why: str) -> None:
    """Raises NnmissError, naming them, for flags that were given and do not apply."""
    given = [flag for flag, default in flags.items() if getattr(args, flag.lstrip("-")) != default]
    if given:
        raise NnmissError(f"{', '.join(given)} is for {why}")
