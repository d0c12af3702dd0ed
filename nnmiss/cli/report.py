"""nnmiss_report: one self-contained HTML page about results, with a viewer of chosen cases."""
from __future__ import annotations

import argparse
import sys
from pathlib import Path

from nnmiss.atomic_files import replacing, writable_folder
from nnmiss.errors import NnmissError, command
from nnmiss.report.html_text import size_text


def parser() -> argparse.ArgumentParser:
    """The command line of nnmiss_report."""
    p = argparse.ArgumentParser(prog="nnmiss_report", allow_abbrev=False, description=(
        "Writes one HTML file that shows results: the table of subsets, figures, every case, images of a few cases with "
        "truth and predictions, training and data. It needs no network and no other file."))
    p.add_argument("-i", dest="results", nargs="+", required=True, metavar="RESULTS",
                   help="folders of nnmiss_evaluate or nnmiss_import_brats_scores, or fold_K/validation; NAME=PATH gives a "
                        "name. The first is shown in full, others are compared with it")
    p.add_argument("-o", dest="output", required=True, metavar="FILE", help="the page, as report.html")
    p.add_argument("--images", metavar="FOLDER", help="images CASE_0000.nii.gz. Default: where the prediction read them, "
                                                      "else nnUNet_raw of the data set")
    p.add_argument("--gt", metavar="FOLDER", help="ground truth. Default: where the evaluation read it")
    p.add_argument("--cases", nargs="+", default=[], metavar="CASE", help="cases whose images are shown, by name, or their "
                   "number. Default: 3, which are the worst, the median and the best")
    p.add_argument("--max_mb", type=float, default=60, metavar="MB", help="largest size of the page (%(default)g)")
    p.add_argument("--model", nargs="+", default=[], dest="models", metavar="FOLDER",
                   help="trained models (or fold_K) to show the training of. Default: those that predicted, where found")
    p.add_argument("--no_viewer", action="store_true", help="leave images out")
    p.add_argument("--title", help="of the page")
    return p


def run(arguments: list[str] | None = None) -> int:
    """Writes the page; returns 1 when any of the results could not be read. The others are in the page."""
    args = parser().parse_args(arguments)
    output = Path(args.output)
    if output.suffix.lower() not in (".html", ".htm"):
        raise NnmissError(f"-o is {output}, expected the name of a page that ends in .html")
    if output.is_dir():
        raise NnmissError(f"-o {output} is a folder, expected the name of a file in it, as {output / 'report.html'}")
    if not 0 < args.max_mb < 1e9:  # infinity and NaN are neither
        raise NnmissError(f"--max_mb is {args.max_mb:g}, expected a number of megabytes above 0, as 60")
    from nnmiss.report.page import Options, build_page  # matplotlib and torch take seconds; wrong flags should not

    writable_folder(output.absolute().parent)
    page = build_page(Options(args.results, args.images, args.gt, args.cases, args.max_mb, args.models,
                              not args.no_viewer, args.title))
    content = page.html.encode("utf-8", "replace")
    with replacing(output) as temporary:
        temporary.write_bytes(content)
    for text in page.missing:
        print(f"note: {text}")
    print(f"{output}: {size_text(len(content))}, images of {page.embedded} case{'' if page.embedded == 1 else 's'}")
    for problem in page.problems:
        print(f"error: {problem}", file=sys.stderr)
    return 1 if page.problems else 0


main = command(run)

if __name__ == "__main__":
    main()
