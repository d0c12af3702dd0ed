"""nnmiss_convert_dataset: brings a public data set, as downloaded, into nnU-Net's or the classification raw format."""
from __future__ import annotations

import argparse
import sys
from collections import Counter
from dataclasses import fields

from nnmiss.dataset_conversion import CONVERTERS
from nnmiss.dataset_conversion.raw_cases import NUM_THREADS
from nnmiss.dataset_conversion.raw_folder import raw_root
from nnmiss.dataset_conversion.raw_types import ConversionSummary
from nnmiss.dataset_conversion.sample_summary import LEFT_OUT, SampleSummary
from nnmiss.errors import NnmissError, command, nearest_names

MAX_LINES = 20  # cases printed one by one
MAX_FAILED = 100  # samples whose failure is printed; a data set can have a hundred thousand


def build_parser() -> argparse.ArgumentParser:
    """One sub-command a converter, each with its own flags after the common ones."""
    parser = argparse.ArgumentParser(prog="nnmiss_convert_dataset", description=__doc__)
    parser.add_argument("--list", action="store_true", help="say which data sets can be converted, and stop")
    converters = parser.add_subparsers(dest="converter", metavar="NAME", title="data sets")
    for name, module in CONVERTERS.items():
        sub = converters.add_parser(name, help=module.DESCRIPTION, description=module.DESCRIPTION)
        sub.add_argument("-i", dest="sources", nargs="+", required=True, metavar="SOURCE",
                         help="the folder or folders as downloaded")
        sub.add_argument("-d", dest="dataset_id", type=int, default=module.DEFAULT_ID, metavar="ID",
                         help="id of the data set, 1 to 999 (default %(default)s)")
        sub.add_argument("-o", dest="output", metavar="FOLDER",
                         help="raw folder to write DatasetXXX_Name into (default: environment variable nnUNet_raw)")
        sub.add_argument("-np", dest="num_threads", type=int, default=NUM_THREADS, metavar="N",
                         help="cases read and written at once (default %(default)s)")
        sub.add_argument("--overwrite", action="store_true", help="replace a data set of the same id and name")
        sub.add_argument("--disable_progress_bar", action="store_true", help="no progress bar, for log files")
        sub.set_defaults(parser=sub)
        module.add_arguments(sub)
    return parser


def run(arguments: list[str] | None = None) -> int:
    """Converts what can be converted; returns 1 when something could not be."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["brats2022"]:
        raise NnmissError("BraTS 2022 used the data and the labels of 2021: convert with brats2021")
    if arguments and not arguments[0].startswith("-") and arguments[0] not in CONVERTERS:
        raise NnmissError(f"no converter is called {arguments[0]!r}. {nearest_names(arguments[0], list(CONVERTERS))}")
    parser = build_parser()
    args, unknown = parser.parse_known_args(arguments)
    if unknown:  # argparse itself would show the usage of the command, not that of the converter
        getattr(args, "parser", parser).error(f"unrecognized arguments: {' '.join(unknown)}")
    if args.list or args.converter is None:
        print("\n".join(f"{name:12s} {module.DESCRIPTION}" for name, module in CONVERTERS.items()))
        return 0 if args.list else parser.error("name the data set to convert (see the list above)")
    module = CONVERTERS[args.converter]
    options = module.Options(**{f.name: getattr(args, f.name) for f in fields(module.Options)})
    summary = module.convert(args.sources, raw_root(args.output), args.dataset_id, options)
    print_summary(summary)
    return 1 if summary.failed or summary.errors else 0


def print_summary(summary: ConversionSummary) -> None:
    """Which cases were written, what they lack, and, on stderr, what failed and why."""
    print(f"{summary.folder}")
    if isinstance(summary, SampleSummary):
        print("\n".join(summary.lines()))
    else:
        print_cases(summary)
    for sentence in [*summary.notes, *summary.untrained()]:
        print(f"note: {sentence}")
    failed = list(summary.failed.items())
    printed = failed[:MAX_FAILED] if isinstance(summary, SampleSummary) else failed
    for case, message in printed:
        print(f"error: {case} was not converted: {message}", file=sys.stderr)
    if len(failed) > len(printed):
        print(f"error: and {len(failed) - len(printed)} more samples were not converted, see {summary.folder / LEFT_OUT}",
              file=sys.stderr)
    for sentence in summary.errors:
        print(f"error: {sentence}", file=sys.stderr)


def print_cases(summary: ConversionSummary) -> None:
    """Cases of a segmentation data set by part, and what each of the first ones lacks."""
    for part, cases in (("training", summary.training), ("test", summary.test)):
        if not cases:
            continue
        counts = Counter(m for kept in cases.values() for m in kept)
        print(f"{part} cases: {len(cases)}; " + ", ".join(f"{m} {counts[m]}" for m in summary.modalities))
        print_gaps({case: [m for m in summary.modalities if m not in kept] for case, kept in cases.items()})


def print_gaps(lacking: dict[str, list[str]]) -> None:
    """A line for each of the first cases that lack a modality; the number of the others."""
    lacking = {case: modalities for case, modalities in lacking.items() if modalities}
    for case, modalities in list(lacking.items())[:MAX_LINES]:
        print(f"  {case} lacks {', '.join(modalities)}")
    if len(lacking) > MAX_LINES:
        print(f"  and {len(lacking) - MAX_LINES} more cases lack something")


main = command(run)

if __name__ == "__main__":
    main()
