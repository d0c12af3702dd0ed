"""nnmiss_evaluate: a table of all modality subsets from predictions and ground truth."""
from __future__ import annotations

import argparse
import sys
from pathlib import Path

from nnmiss.atomic_files import read_json
from nnmiss.cli.evaluate_classification import CLASSIFICATION_ONLY, evaluate, refuse_flags
from nnmiss.errors import NnmissError, command
from nnmiss.evaluation.classification.conventions import RESAMPLE
from nnmiss.evaluation.comparison import comparison_markdown
from nnmiss.evaluation.conventions import CHOICES, Conventions
from nnmiss.evaluation.evaluate import evaluate_folder
from nnmiss.evaluation.lesion_rules import LESION_RULES
from nnmiss.preprocessing.dataset_folders import CLASSIFICATION, dataset_kind, find_dataset_name


def parser() -> argparse.ArgumentParser:
    """The command line of nnmiss_evaluate."""
    p = argparse.ArgumentParser(prog="nnmiss_evaluate", description=(
        "Compares predictions with ground truth for every modality subset: Dice, HD95, sensitivity and specificity per "
        "case and region, lesion by lesion if asked to, and where probabilities were saved the expected calibration "
        "error; writes results.csv, summary.json, table.md, table.tex and figures. Classification, known by -gt's "
        "dataset.json: accuracy, F1, AUROC, AUPRC and calibration error with bootstrap intervals."))
    p.add_argument("-gt", required=True, metavar="FOLDER", help="folder of ground truth segmentations; classification: the "
                   "data set's folder, with dataset.json and manifest.csv")
    p.add_argument("-pred", required=True, metavar="FOLDER",
                   help="output folder of nnmiss_predict: flat, or one folder per subset (flair+t1ce/CASE.nii.gz)")
    p.add_argument("-d", metavar="ID", help="dataset id or name, whose dataset.json is used. Default: the dataset.json "
                                            "in the prediction folder")
    p.add_argument("-o", metavar="FOLDER", help="where results go. Default: the prediction folder")
    p.add_argument("--compare", nargs="+", default=[], metavar="RESULTS",
                   help="results of other methods on the same cases: results.csv, a folder holding one, or NAME=PATH; "
                        "classification: folders of their predictions")
    p.add_argument("--name", help="name of this method in the tables. Default: the prediction folder's name")
    p.add_argument("--hd95", choices=CHOICES["hd95"], default="brats2020", help="definition of HD95 (%(default)s)")
    p.add_argument("--hd95_unit", choices=CHOICES["hd95_unit"], default="mm",
                   help="mm by the ground truth's spacing, or voxels as the BraTS 2020 tool (%(default)s)")
    p.add_argument("--empty", choices=CHOICES["empty"], default="brats",
                   help="empty regions: brats scores both empty Dice 1, HD95 0 and one empty Dice 0, HD95 = image "
                        "diagonal; nan leaves undefined values out (%(default)s)")
    p.add_argument("--lesionwise", metavar="YEAR[-CHALLENGE]",
                   help="also the lesion-wise Dice and HD95 of a BraTS challenge, as 2023 (of the gliomas), 2023-MET or "
                        f"2024-GLI; known: {', '.join(LESION_RULES)}")
    p.add_argument("--et_min_voxels", type=int, metavar="N",
                   help="also a column in which a predicted enhancing tumour of fewer than N voxels is suppressed")
    p.add_argument("--et_replace", choices=CHOICES["et_replace"],
                   help="what it becomes there: background changes the column of the enhancing tumour only, ncr also those "
                        "of labels that gain by it (background)")
    p.add_argument("--ece_bins", type=int, default=15, metavar="N",
                   help="equal bins of the confidence, 0.5 to 1, for the expected calibration error of predictions that "
                        "have probabilities; classification: 0 to 1 (%(default)s)")
    p.add_argument("--include_average", action="store_true",
                   help="count the average row as a sample of the t-test, as MetaKD's Table 1 did")
    p.add_argument("--resamples", type=int, default=CLASSIFICATION_ONLY["--resamples"], metavar="N",
                   help="classification: resamples of the bootstrap intervals (%(default)s)")
    p.add_argument("--resample", choices=RESAMPLE, default=CLASSIFICATION_ONLY["--resample"],
                   help="classification: draw samples, or subjects with all of theirs (%(default)s)")
    p.add_argument("--seed", type=int, default=CLASSIFICATION_ONLY["--seed"], metavar="S",
                   help="classification: of the resamples (%(default)s)")
    p.add_argument("--with_incomplete", action="store_true",
                   help="classification: also count samples that lack a part of a subset, predicted with the rest")
    p.add_argument("-np", type=int, default=1, metavar="N", help="cases evaluated at once (%(default)s)")
    return p


def run(arguments: list[str] | None = None) -> int:
    """Evaluates; returns 1 when any case or file failed. The others are in the results."""
    args = parser().parse_args(arguments)
    if args.np < 1:
        raise NnmissError(f"-np is {args.np}, expected at least 1 process")
    if (Path(args.gt) / "dataset.json").is_file() and dataset_kind(args.gt) == CLASSIFICATION:
        return evaluate(args)
    refuse_flags(args, CLASSIFICATION_ONLY, f"classification, whose -gt is the data set's folder; {args.gt} has no "
                                            "dataset.json of one")
    if args.et_replace and args.et_min_voxels is None:
        raise NnmissError("--et_replace says what a small enhancing tumour becomes: give --et_min_voxels too, as 500")
    conventions = Conventions(args.hd95, args.empty, args.hd95_unit, et_threshold=args.et_min_voxels,
                              ece_bins=args.ece_bins, et_replace=args.et_replace or "background",
                              lesionwise=args.lesionwise)
    output = Path(args.o or args.pred)
    results = evaluate_folder(
        args.gt, args.pred, dataset_json_of(args.d, args.pred), output, conventions, num_processes=args.np,
        compare=args.compare, name=args.name, include_average=args.include_average)
    print(f"\nDice (%)\n{results.attrs['table']}\n")
    if results.attrs["comparison"]:
        print(f"{comparison_markdown(results.attrs['comparison'], conventions)}\n")
    for note in results.attrs["notes"]:
        print(f"note: {note}")
    print(f"Tables: {output / 'table.md'} and {output / 'table.tex'}. All values: {output / 'results.csv'}. Means and "
          f"conventions: {output / 'summary.json'}. Figures: heatmap.png, dice_by_count.png, boxplots.png beside them.")
    if "ece" in set(results["metric"]):
        print(f"Calibration: {output / 'calibration.csv'} and {output / 'reliability.png'}")
    errors = results.attrs["errors"]
    for error in errors:
        print(f"error: {error}", file=sys.stderr)
    if errors:
        count = "1 error: what it names" if len(errors) == 1 else f"{len(errors)} errors: what they name"
        print(f"{count} is not in the results", file=sys.stderr)
    return 1 if errors else 0


def dataset_json_of(dataset: str | None, pred_folder: str | Path) -> dict:
    """dataset.json of a data set (id or name) in nnUNet_raw, else nnUNet_preprocessed; None: the predictions' own.

    Raises NnmissError when it is nowhere, the folder of predictions is absent, or the id is unknown or ambiguous.
    """
    if dataset is None:
        folder = Path(pred_folder)
        path = folder / "dataset.json"
        if not folder.is_dir():
            what = "is a file" if folder.exists() else "does not exist"
            raise NnmissError(f"prediction folder {folder} {what}: give the folder that nnmiss_predict wrote to (-o)")
        above = folder.resolve().parent / "dataset.json"
        if not path.is_file() and above.is_file():
            raise NnmissError(f"{path} not found, but there is one in the folder above, as if {folder.name} held a single "
                              f"subset: give {above.parent}, or name the data set with -d")
        if not path.is_file():
            raise NnmissError(f"{path} not found: name the data set with -d")
        return read_json(path, "dataset.json")
    from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw

    name = find_dataset_name(dataset)
    folders = [Path(root.get()) / name for root in (nnUNet_raw, nnUNet_preprocessed) if root.is_set()]
    for folder in folders:
        if (folder / "dataset.json").is_file():
            return read_json(folder / "dataset.json", "dataset.json")
    looked = " or ".join(map(str, folders)) or "anywhere: set nnUNet_raw or nnUNet_preprocessed"
    raise NnmissError(f"no dataset.json for {name} in {looked}. Check -d and the environment variables")


main = command(run)

if __name__ == "__main__":
    main()
