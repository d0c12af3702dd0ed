"""nnmiss_import_brats_scores: the CSV that a BraTS portal returned becomes results.csv, tables and figures."""
from __future__ import annotations

import argparse
import sys
from pathlib import Path

from nnmiss.availability import modality_names
from nnmiss.brats_years import find_challenge
from nnmiss.cli.evaluate import dataset_json_of
from nnmiss.errors import NnmissError, command
from nnmiss.evaluation.conventions import Conventions
from nnmiss.evaluation.markup import to_text
from nnmiss.evaluation.tables import build_table
from nnmiss.export.import_scores import import_portal_scores
from nnmiss.preprocessing.dataset_folders import find_dataset_name, require_segmentation


def parser() -> argparse.ArgumentParser:
    """The command line of nnmiss_import_brats_scores."""
    p = argparse.ArgumentParser(prog="nnmiss_import_brats_scores", description=(
        "Reads the score tables of the BraTS portals (IPP's Stats_Validation_final.csv, Synapse's all_scores.csv and "
        "all_legacy_scores.csv) and writes results.csv, summary.json, tables and figures as nnmiss_evaluate does."))
    p.add_argument("-i", required=True, nargs="+", metavar="SUBSET=CSV",
                   help="as flair+t1=scores.csv; a CSV without SUBSET= counts as all modalities")
    p.add_argument("-o", required=True, metavar="FOLDER", help="where results go")
    which = p.add_mutually_exclusive_group(required=True)
    which.add_argument("-d", metavar="DATASET", help="id or name of the data set: modalities, names of regions")
    which.add_argument("--modalities", nargs="+", metavar="NAME", help="modalities in channel order, as flair t1 t1ce t2")
    p.add_argument("--year", type=int, metavar="Y", help="of the challenge. Default: by the case ids, where they say")
    p.add_argument("--challenge", default="GLI", metavar="C", help="with --year (%(default)s)")
    p.add_argument("--name", help="name of this method in the tables. Default: the output folder's name")
    p.add_argument("--compare", nargs="+", default=[], metavar="RESULTS",
                   help="other methods on the same cases: results.csv, a folder holding one, or NAME=PATH")
    p.add_argument("--include_average", action="store_true",
                   help="count the average row as a sample of the t-test, as MetaKD's Table 1 did")
    return p


def run(arguments: list[str] | None = None) -> int:
    """Imports; returns 1 when any row could not be used. The others are in the results."""
    args = parser().parse_args(arguments)
    if args.d is None:
        dataset_json = None
        modalities = modality_names({"channel_names": {str(i): name for i, name in enumerate(args.modalities)}})
    else:
        dataset_json = dataset_json_of(args.d, args.o)
        require_segmentation(dataset_json, "nnmiss_import_brats_scores")
        modalities = modality_names(dataset_json)
    if args.year is None and args.challenge != "GLI":
        raise NnmissError("--challenge needs --year")
    challenge = None if args.year is None else find_challenge(args.year, args.challenge)
    done = import_portal_scores(args.i, args.o, modalities, dataset_json, challenge, args.name, args.compare,
                                args.include_average, find_dataset_name(args.d) if args.d else None)
    metric = "dice" if "dice" in set(done.results["metric"]) else "lesion_dice"
    conventions = Conventions.from_dict(done.summary["conventions"])
    table = build_table({done.summary["method"]: done.results}, modalities, list(done.summary["regions"]), metric,
                        conventions)
    print(f"\n{'Dice' if metric == 'dice' else 'Lesion-wise Dice'} (%)\n{to_text(table)}\n")
    for note in done.notes:
        print(f"note: {note}")
    output = Path(args.o)
    print(f"Tables: {output / 'table.md'} and {output / 'table.tex'}. All values: {output / 'results.csv'}. Means and "
          f"conventions: {output / 'summary.json'}")
    for error in done.errors:
        print(f"error: {error}", file=sys.stderr)
    if done.errors:
        count = "1 error: what it names" if len(done.errors) == 1 else f"{len(done.errors)} errors: what they name"
        print(f"{count} is not in the results", file=sys.stderr)
    return 1 if done.errors else 0


main = command(run)

if __name__ == "__main__":
    main()
