"""nnmiss_export_brats: predictions as the folders and zips that the portal of a BraTS year takes."""
from __future__ import annotations

import argparse
import sys
from pathlib import Path

from nnmiss.brats_years import YEARS, find_challenge
from nnmiss.cli.evaluate import dataset_json_of
from nnmiss.errors import NnmissError, command, shortened
from nnmiss.export.enhancing_rule import REPLACEMENTS, EnhancingRule
from nnmiss.export.export_folder import ExportOptions, export_predictions
from nnmiss.preprocessing.dataset_folders import require_segmentation


def parser() -> argparse.ArgumentParser:
    """The command line of nnmiss_export_brats."""
    p = argparse.ArgumentParser(prog="nnmiss_export_brats", description=(
        "Writes predictions as a BraTS year wants them: its labels, uint8, the header of the case's own image, official "
        "names; a flat folder and a zip per modality subset, and manifest.json."))
    p.add_argument("-i", required=True, metavar="PRED",
                   help="output folder of nnmiss_predict: flat, or one folder per subset (flair+t1ce/CASE.nii.gz)")
    p.add_argument("-r", required=True, metavar="IMAGES",
                   help="the cases' own images: the BraTS download, or the folder that was predicted from")
    p.add_argument("-o", required=True, metavar="FOLDER", help="where the submissions go")
    p.add_argument("--year", required=True, type=int, help=f"{YEARS[0]} to {YEARS[-1]}")
    p.add_argument("--challenge", default="GLI", metavar="NAME",
                   help="GLI, SSA, MEN, MET, PED or MEN-RT, as the year has them (%(default)s)")
    p.add_argument("-d", metavar="DATASET", help="dataset id or name whose dataset.json names the labels. Default: the "
                                                 "dataset.json in the prediction folder")
    p.add_argument("--et_min_voxels", type=int, metavar="N",
                   help="replace an enhancing tumour of fewer than N voxels. Default: none is replaced")
    p.add_argument("--et_replace", choices=REPLACEMENTS,
                   help="by what: ncr keeps the tumour core (the default), background takes it away")
    p.add_argument("--uncertainty", action="store_true",
                   help="2019 and 2020: also CASE_unc_whole, _unc_core, _unc_enhance from CASE.npz (--save_probabilities)")
    p.add_argument("--any_id", action="store_true",
                   help="let case names through that are no ids of the year, for a rehearsal")
    p.add_argument("--complete", action="store_true",
                   help="cases that have an image but no prediction, and subsets that are absent, are errors (exit code 1) "
                        "instead of notes")
    p.add_argument("--overwrite", action="store_true", help="replace an earlier export in the folder of -o")
    p.add_argument("-np", type=int, default=1, metavar="N", help="cases worked on at once (%(default)s)")
    p.add_argument("--disable_progress_bar", action="store_true", help="no progress bar, for log files")
    return p


def run(arguments: list[str] | None = None) -> int:
    """Exports; returns 1 when a case could not be exported, or with --complete when one or a subset is missing."""
    args = parser().parse_args(arguments)
    if args.et_replace and args.et_min_voxels is None:
        raise NnmissError("--et_replace says by what a small ET is replaced; say with --et_min_voxels N what is small")
    rule = None if args.et_min_voxels is None else EnhancingRule(args.et_min_voxels, args.et_replace or "ncr")
    options = ExportOptions(rule, args.uncertainty, args.any_id, args.overwrite, args.np, not args.disable_progress_bar)
    dataset_json = dataset_json_of(args.d, args.i)
    require_segmentation(dataset_json, "nnmiss_export_brats")
    manifest = export_predictions(args.i, args.r, args.o, find_challenge(args.year, args.challenge), dataset_json, options)
    return report(manifest, Path(args.o), args.complete)


def report(manifest: dict, output: Path, complete: bool) -> int:
    """Prints what was written and what was not. Returns the exit code."""
    subsets, failures = manifest["subsets"], manifest["failures"]
    for name, subset in subsets.items():
        suppressed = sum(case["et_suppressed"] for case in subset["cases"].values())
        print(f"{name}: {subset['n_cases']} case(s)" + (f", {output / subset['zip']}" if subset["zip"] else ", no zip")
              + (f", ET replaced in {suppressed}" if suppressed else ""))
    incomplete: dict[tuple, list[str]] = {}  # missing cases -> subsets that miss just these
    for name, subset in subsets.items():
        if subset["missing"]:
            incomplete.setdefault(tuple(subset["missing"]), []).append(name)
    lacking = [f"{shortened(names, 3)} lack{'s' if len(names) == 1 else ''} {len(missing)} case(s) that have an image "
               f"({shortened(missing, 3)}); from 2025 on a missing case is scored as the worst possible"
               for missing, names in incomplete.items()]
    if absent := manifest["absent_subsets"]:
        lacking.append(f"{len(absent)} of {len(absent) + len(subsets)} subsets have no prediction ({shortened(absent, 3)})"
                       "; nnmiss_predict --all_subsets makes all")
    for text in lacking:
        print(f"{'error' if complete else 'note'}: {text}", file=sys.stderr if complete else sys.stdout)
    for note in manifest["notes"]:
        print(f"note: {note}")
    for where, reason in _by_reason(failures):
        print(f"error: {where}{reason}", file=sys.stderr)
    if any(subset["n_cases"] for subset in subsets.values()):
        if failures:
            print("What the errors name is not in the zips.", file=sys.stderr)
        print(f"Details: {output / 'manifest.json'}. Check with nnmiss_validate_brats before uploading.")
    else:
        print(f"no case could be exported: nothing was written to {output}", file=sys.stderr)
    return 1 if failures or (complete and lacking) else 0


def _by_reason(failures: list[dict]) -> list[tuple[str, str]]:
    """('case A, B (flair, t1): ', reason): what failed alike in one line, so that a wrong -r is not said 1000 times."""
    together: dict[str, list[dict]] = {}
    for failure in failures:
        together.setdefault(failure["reason"], []).append(failure)
    return [(f"case {_different(alike, 'case')} ({_different(alike, 'subset')}): " if alike[0]["subset"] else "", reason)
            for reason, alike in together.items()]


def _different(failures: list[dict], key: str) -> str:
    return shortened(dict.fromkeys(failure[key] for failure in failures), 3)


main = command(run)

if __name__ == "__main__":
    main()
