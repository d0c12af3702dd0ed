"""nnmiss_convert_dataset: brings a public data set, as downloaded, into nnU-Net's raw format."""
from __future__ import annotations

import argparse
import sys
from collections import Counter
from dataclasses import fields

from nnmiss.dataset_conversion import CONVERTERS
from nnmiss.dataset_conversion.raw_cases import ConversionSummary
from nnmiss.dataset_conversion.raw_folder import raw_root
from nnmiss.errors import NnmissError, command, nearest_names


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
        sub.add_argument("--overwrite", action="store_true", help="replace a data set of the same id and name")
        module.add_arguments(sub)
    return parser


def run(arguments: list[str] | None = None) -> int:
    """Converts what can be converted; returns 1 when some case could not be."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and not arguments[0].startswith("-") and arguments[0] not in CONVERTERS:
        raise NnmissError(f"no converter is called {arguments[0]!r}. {nearest_names(arguments[0], list(CONVERTERS))}")
    parser = build_parser()
    args = parser.parse_args(arguments)
    if args.list or args.converter is None:
        print("\n".join(f"{name:12s} {module.DESCRIPTION}" for name, module in CONVERTERS.items()))
        return 0 if args.list else parser.error("name the data set to convert (see the list above)")
    module = CONVERTERS[args.converter]
    options = module.Options(**{f.name: getattr(args, f.name) for f in fields(module.Options)})
    summary = module.convert(args.sources, raw_root(args.output), args.dataset_id, options)
    print_summary(summary)
    return 1 if summary.failed else 0


def print_summary(summary: ConversionSummary) -> None:
    """Which cases were written, what they lack, and, on stderr, which failed and why."""
    print(f"{summary.folder}")
    for part, cases in (("training", summary.training), ("test", summary.test)):
        if not cases:
            continue
        counts = Counter(m for kept in cases.values() for m in kept)
        print(f"{part} cases: {len(cases)}; " + ", ".join(f"{m} {counts[m]}" for m in summary.modalities))
        for case, kept in cases.items():
            lacks = [m for m in summary.modalities if m not in kept]
            if lacks:
                print(f"  {case} lacks {', '.join(lacks)}")
    for sentence in summary.untrained():
        print(f"note: {sentence}")
    for case, message in summary.failed.items():
        print(f"error: {case} was not converted: {message}", file=sys.stderr)


main = command(run)

if __name__ == "__main__":
    main()
