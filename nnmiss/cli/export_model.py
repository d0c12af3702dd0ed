"""nnmiss_export_model: a trained model as one zip, without anything that runs and without names of cases."""
from __future__ import annotations

import argparse
from pathlib import Path

from nnmiss.atomic_files import writable_folder
from nnmiss.cli.environment import parse_fold
from nnmiss.cli.predict import kind_of_model
from nnmiss.errors import NnmissError, command
from nnmiss.model_files.export import export_model
from nnmiss.preprocessing.dataset_folders import CLASSIFICATION, find_dataset_name, require_folder
from nnmiss.trainers import CLASSIFIERS, METHODS, classifier_class, method_class


def parser() -> argparse.ArgumentParser:
    """The command line; flags that nnUNetv2_export_model_to_zip has too are called as there."""
    p = argparse.ArgumentParser(prog="nnmiss_export_model", description=__doc__)
    p.add_argument("-d", required=True, metavar="DATASET", help="dataset name or id the model was trained on")
    p.add_argument("-m", required=True, metavar="METHOD", help=f"one of: {', '.join(METHODS)}; of classification: "
                   f"{', '.join(CLASSIFIERS)}")
    p.add_argument("-o", required=True, metavar="FILE.zip", help="the zip; one that is there is replaced")
    p.add_argument("-c", help="configuration. Default: 3d_fullres, of classification default")
    p.add_argument("-p", default="nnMissPlans", help="plans identifier. Default: nnMissPlans")
    p.add_argument("--tag", default="", help="the --tag of the training")
    p.add_argument("-f", nargs="+", default=None, metavar="FOLD", help="folds. Default: every trained one")
    p.add_argument("-chk", default="checkpoint_final.pth", help="checkpoint name. Default: checkpoint_final.pth")
    return p


def run(arguments: list[str] | None = None) -> int:
    """Runs the command with these arguments (default: the command line's). Returns the exit code."""
    args = parser().parse_args(arguments)
    output = Path(args.o)
    if output.suffix.lower() != ".zip" or output.is_dir():
        raise NnmissError(f"-o {output} must name a zip, such as model.zip")
    dataset, classification = find_dataset_name(args.d), kind_of_model(args.d) == CLASSIFICATION
    trainer = (classifier_class if classification else method_class)(args.m).__name__
    plans = f"{args.p}-{args.tag}" if args.tag else args.p
    folder = require_folder("nnUNet_results") / dataset / (
        f"{trainer}__{plans}__{args.c or ('default' if classification else '3d_fullres')}")
    writable_folder(output.parent)
    manifest = export_model(folder, output, [parse_fold(f) for f in args.f] if args.f else None, args.chk)
    print(f"{manifest.model} of {dataset}, {', '.join(manifest.folds)}: {len(manifest.files)} files\nwrote {output}, "
          f"{output.stat().st_size / 2**20:.1f} MB. nnmiss_install_model {output.name} installs it elsewhere. Names of "
          "cases are not in it; weights can still tell something of the images they were trained on")
    return 0


main = command(run)

if __name__ == "__main__":
    main()
