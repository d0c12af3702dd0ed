"""nnmiss_validate_brats: the official checks of a BraTS year on a submission, before it is uploaded."""
from __future__ import annotations

import argparse
from pathlib import Path

from nnmiss.atomic_files import write_json
from nnmiss.brats_years import YEARS, find_challenge
from nnmiss.case_lists import read_case_list
from nnmiss.errors import NnmissError, command
from nnmiss.export.reference_images import find_reference_images
from nnmiss.export.validation import validate_submission
from nnmiss.export.validation_text import report_text, summary_line


def parser() -> argparse.ArgumentParser:
    """The command line of nnmiss_validate_brats."""
    p = argparse.ArgumentParser(prog="nnmiss_validate_brats", description=(
        "Repeats the official checks of a BraTS year on a folder, zip or tar of segmentations, from any software, and "
        "says per case what would be rejected. Exit code 1 when anything would be, 0 with warnings only."))
    p.add_argument("-i", required=True, nargs="+", metavar="SUBMISSION", help="folders, zips or tars of CASE.nii.gz")
    p.add_argument("--year", required=True, type=int, metavar="Y", help=f"{YEARS[0]} to {YEARS[-1]}")
    p.add_argument("--challenge", default="GLI", metavar="C", help="GLI, SSA, MEN, MET, PED, MEN-RT (%(default)s)")
    p.add_argument("-r", metavar="IMAGES", help="folder of the cases' images, nnU-Net's or the official download: for "
                                                "known ids, missing cases and geometry")
    p.add_argument("--ids", metavar="FILE", help="the cases that the submission must have: text, one per line, or a "
                                                 "JSON list. Default: those of -r")
    p.add_argument("--json", metavar="FILE", help="write all findings there")
    p.add_argument("-np", type=int, default=1, metavar="N", help="images checked at once (%(default)s)")
    return p


def run(arguments: list[str] | None = None) -> int:
    """Validates each submission; returns 1 when any has an error."""
    args = parser().parse_args(arguments)
    if args.np < 1:
        raise NnmissError(f"-np is {args.np}, expected at least 1")
    challenge = find_challenge(args.year, args.challenge)
    if args.json and not Path(args.json).resolve().parent.is_dir():
        raise NnmissError(f"--json: folder {Path(args.json).resolve().parent} does not exist: make it")
    references = find_reference_images(args.r) if args.r else None
    ids = read_case_list(args.ids) if args.ids else None
    reports, failed = [], []
    for path in args.i:
        try:
            reports.append(validate_submission(path, challenge, references, ids, args.np, progress=True))
        except NnmissError as error:
            if len(args.i) == 1:
                raise
            failed.append(f"error: {error}")
            continue
        print(report_text(reports[-1]) + "\n")
    if len(args.i) > 1:
        print("\n".join(failed + [f"{report.path}: {summary_line(report)}" for report in reports]))
    if args.json:
        write_json(args.json, {"submissions": [report.as_dict() for report in reports]})
    return 1 if failed or any(report.errors for report in reports) else 0


main = command(run)

if __name__ == "__main__":
    main()
