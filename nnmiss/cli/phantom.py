"""nnmiss_phantom: writes the generated data set of the demo and the benchmarks."""
from __future__ import annotations

import argparse

from nnmiss.dataset_conversion.phantom import PRESETS, PhantomSettings, make_case, write_dataset
from nnmiss.dataset_conversion.phantom_contrast import CONTRASTS
from nnmiss.dataset_conversion.phantom_figure import draw_case
from nnmiss.dataset_conversion.phantom_settings import INGREDIENTS
from nnmiss.dataset_conversion.raw_folder import raw_root
from nnmiss.errors import NnmissError, command


def build_parser() -> argparse.ArgumentParser:
    """The flags of the command."""
    parser = argparse.ArgumentParser(prog="nnmiss_phantom", description=__doc__,
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("-o", dest="output", metavar="FOLDER", help="raw folder to write DatasetXXX_Name into; None: $nnUNet_raw")
    add("-d", dest="dataset_id", type=int, default=800, metavar="ID", help="id of the data set, 1 to 999")
    add("--name", default="Phantom", help="name of the data set")
    add("--num_training", type=int, default=12, metavar="N", help="training cases")
    add("--num_test", type=int, default=4, metavar="N", help="test cases, always complete")
    add("--size", type=int, nargs="+", default=[40], metavar="S", help="voxels per side, one or three, 24 to 160")
    add("--num_modalities", type=int, default=4, metavar="M", help="flair, t1, t1ce, t2, m5, m6, ...; 2 or more")
    add("--missing_rate", type=float, default=0.4, metavar="R", help="share of training cases that lack channel files")
    add("--difficulty", type=float, default=0.5, metavar="D", help="0 (plain) to 1 (hard to see)")
    add("--preset", choices=sorted(PRESETS), help="sets --difficulty and the six flags below; a flag given beside it wins")
    add("--contrasts", choices=sorted(CONTRASTS), default="standard", help="how bright each tissue is in each modality")
    add("--invisible", action=argparse.BooleanOptionalAction, default=False,
        help="some tissues have no contrast at all in some modalities")
    add("--lookalikes", type=int, default=0, metavar="N", help="unlabelled lesions of each modality alone, per case")
    add("--scanners", type=int, default=0, metavar="K", help="scanners the cases come from; 0: one ideal scanner")
    add("--registration_error", type=float, default=0.0, metavar="VOXELS", help="of each modality against the labels")
    add("--label_noise", type=float, default=0.0, metavar="VOXELS", help="of boundaries in training labels")
    add("--spacing", type=float, nargs="+", default=[1.0], metavar="MM", help="voxel size, one number or three")
    add("--seed", type=int, default=0, help="another seed is another population")
    add("--overwrite", action="store_true", help="replace a data set of the same id and name")
    add("--figure", metavar="PNG", help="draw the first training case to this file")
    return parser


def run(arguments: list[str] | None = None) -> int:
    """Writes the data set and says which subsets of modalities the training cases have."""
    parser = build_parser()
    args = parser.parse_args(arguments)
    if args.preset:
        parser.set_defaults(**PRESETS[args.preset])
        args = parser.parse_args(arguments)
    if args.figure and not args.figure.lower().endswith((".png", ".pdf", ".svg")):
        raise NnmissError(f"--figure must end in .png, .pdf or .svg, got {args.figure}")
    ingredients = {name: getattr(args, name) for name in ("difficulty", "seed", *INGREDIENTS)}
    settings = PhantomSettings(_one_or_three(args.size, "--size"), args.num_modalities,
                               spacing_mm=_one_or_three(args.spacing, "--spacing"), **ingredients)
    summary = write_dataset(raw_root(args.output), args.dataset_id, args.name, settings, args.num_training,
                            args.num_test, args.missing_rate, args.overwrite, progress=True)
    print(summary["folder"])
    print(f"{args.num_training} training cases, {args.num_test} complete test cases, {len(settings.names)} modalities: "
          + ", ".join(settings.names))
    print("training cases by the modalities they have:")
    for subset, count in summary["subsets"].items():
        print(f"  {count:4d}  {subset}")
    if args.figure:
        images, labels = make_case(settings, 0)
        draw_case(args.figure, images, labels, settings.names, f"{args.name}, case_000")
        print(f"figure: {args.figure}")
    return 0


def _one_or_three(values: list, flag: str):
    if len(values) not in (1, 3):
        raise NnmissError(f"{flag} takes one number or three, got {len(values)}")
    return values[0] if len(values) == 1 else tuple(values)


main = command(run)

if __name__ == "__main__":
    main()
