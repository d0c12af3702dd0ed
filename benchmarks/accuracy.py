"""Methods and variants at equal training time on phantoms, over paired seeds: which segments incomplete cases better?

python benchmarks/accuracy.py FOLDER --regimes few incomplete --variants VARIANTS.txt --seeds 0 1 2 [--data search]
python benchmarks/accuracy.py FOLDER --regimes few --variants FINAL.txt --seeds 0 1 2 3 4 5 6 7 --data final
python benchmarks/accuracy.py FOLDER --regimes patients --variants FINAL.txt --data open_ms --source open_ms_mni

FOLDER keeps everything; stop it and call it again as often as you like. VARIANTS.txt has a line "NAME: METHOD ..." per
variant as nnmiss_benchmark takes them, without num_epochs. One is named modality_dropout: the baseline, with the settings
that the others share, such as ema_decay.

1. Equal cost: an iteration of every variant and stage is timed in turns with the baseline's (processor time of one thread,
   with loading and augmentation), and each gets the epochs that fit into the baseline's time (REGIME/cost.json; a
   variant's ratio is measured once, so that a later sitting trains as long).
2. Training: nnmiss_benchmark, whole seeds first. Runs of one seed share the cases, and a method's runs start from the
   same weights wherever their networks are alike.
3. Stopping rule, fixed beforehand: with --drop, after three and more seeds a variant whose difference to the best other
   variant lies wholly below 0 (95 %) gets no further seed. A claim is made only over at least eight seeds, on --data final.
4. results.csv (every Dice), differences_to_baseline.csv and accuracy.md: differences to the baseline over all subsets and
   regions, where a region's best modality is missing, and with all modalities; bootstrap over seeds, then cases.
"""
from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path

from accuracy_cost import REFERENCE, epochs_for
from accuracy_regimes import DATASETS, REGIMES, command

PLANS = "nnMissTinyPlans"
COMMON = ["num_iterations_per_epoch=32", "batch_size=2", "num_val_iterations_per_epoch=1", "validation_mirroring=false",
          "save_every=8"]
HERE = Path(__file__).parent


def main() -> None:
    """Data, cost, trainings, table, regime by regime."""
    args = build_parser().parse_args()
    if any((name == "patients") != (args.data == "open_ms") for name in args.regimes):
        sys.exit("--regimes patients and --data open_ms go together, and with nothing else")
    folder = args.folder.resolve()
    for part in ("raw", "preprocessed", "results"):
        (folder / part).mkdir(parents=True, exist_ok=True)
        os.environ[f"nnUNet_{part}"] = str(folder / part)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("nnUNet_n_proc_DA", "0")  # loading counts as a part of an iteration, and runs can be repeated
    lines = read_lines(args.variants)
    for name in args.regimes:
        regime, dataset = REGIMES[name], DATASETS[args.data]
        dataset.prepare(folder, regime, args.source)
        tag = name if args.length == 1 else f"{name}-{args.length:g}"  # runs of another length are other runs
        output = folder / f"{dataset.name.lower()}_{tag}"
        output.mkdir(exist_ok=True)
        conditions = ["-d", str(dataset.number), "--folds", *dataset.folds(regime), "-p", PLANS,
                      "-c", dataset.configuration, "-device", "cpu", "--tag", tag,
                      *(["--missing", regime.missing] if regime.missing else [])]
        common = [*COMMON, *dataset.settings]
        runs = with_epochs(lines, regime.iterations * args.length, output, conditions, common)
        for count in range(1, len(args.seeds) + 1) if args.drop else [len(args.seeds)]:
            kept = [run for run in runs if run.split(": ")[0] not in dropped(output, args)]
            command("benchmark", *conditions, "-o", str(output), "--runs", *kept, "--seeds", *map(str, args.seeds[:count]),
                    "--parallel", str(args.parallel), "--reference", REFERENCE, "--set", *common)
        from accuracy_table import write_table

        print(write_table(output, args.seeds))


def build_parser() -> argparse.ArgumentParser:
    """The flags of the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--regimes", nargs="+", choices=REGIMES, default=["few", "incomplete"])
    parser.add_argument("--variants", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--data", choices=DATASETS, default="search")
    parser.add_argument("--source", type=Path, help="of --data open_ms: the folder of the patientXX folders")
    parser.add_argument("--length", type=float, default=1.0, help="factor of the regime's number of iterations")
    parser.add_argument("--parallel", type=int, default=2)
    parser.add_argument("--drop", action="store_true", help="the stopping rule above")
    return parser


def read_lines(file: Path) -> list[str]:
    """The variants, without comments, each with a name; stops the program where one has none, or no baseline is there."""
    if not file.is_file():
        sys.exit(f"--variants {file}: no such file, expected one with a line \"NAME: METHOD ...\" per variant")
    lines = [line for line in (line.split("#")[0].strip() for line in file.read_text().splitlines()) if line]
    for line in lines:
        if not re.match(r"[^=]+: ", line):
            sys.exit(f"{file}: {line!r} has no name, expected \"NAME: {line}\"")
    if not any(line.startswith(f"{REFERENCE}: ") for line in lines):
        sys.exit(f"{file} lacks \"{REFERENCE}: {REFERENCE} ...\", the baseline with the settings that the others share")
    return lines


def with_epochs(lines: list[str], budget: float, output: Path, conditions: list[str], common: list[str]) -> list[str]:
    """Each line with the num_epochs that cost what `budget` iterations of the baseline do."""
    cost = output / "cost.json"
    known = json.loads(cost.read_text()) if cost.is_file() else {}
    new = [line for line in lines if line not in known]
    if new:
        reference = next(line for line in lines if line.startswith(f"{REFERENCE}: "))
        timed = list(dict.fromkeys([reference, *new]))
        run = [sys.executable, str(HERE / "accuracy_cost.py"), str(cost), *conditions, "-o", str(output), "--runs", *timed,
               "--seeds", "0", "--set", *common]
        if subprocess.run(run, env={**os.environ, "nnUNet_results": str(output / "cost")}).returncode:
            sys.exit("timing failed")
        known = json.loads(cost.read_text())
    return [f"{line} num_epochs={epochs_of(line, budget, known[line])}" for line in lines]


def epochs_of(line: str, budget: float, costs: dict[str, list[float]]) -> int:
    """How many epochs of all stages together a variant may have. (LCKD's elections are not counted.)"""
    from nnmiss.benchmark.variants import parse_variant
    from nnmiss.trainers import method_class
    from nnmiss.trainers.modality_importance import interval_of_updates
    from nnmiss.trainers.settings import parse_assignments, stage_epochs

    variant = parse_variant(line)
    cls = method_class(variant.method)
    layers = {**cls.known_settings(), **cls.presets[variant.preset or cls.default_preset], **variant.assignments}
    published = {stage.name: stage.epochs for stage in cls.stages if stage.name in costs}
    given = {name: int(layers[f"{name}.num_epochs"]) for name in published if f"{name}.num_epochs" in layers}
    length = int(parse_assignments(COMMON)["num_iterations_per_epoch"])

    def run(total: int) -> dict[str, int]:
        return {name: number * length for name, number in stage_epochs(total, published, given).items()}

    def updates(iterations: int) -> int:
        if variant.method != "metakd":
            return 0
        interval = interval_of_updates(iterations, int(layers["meta_interval"]), int(layers["fewest_updates"]))
        return -(-iterations // interval)

    return epochs_for(budget, run, costs, updates)


def dropped(output: Path, args: argparse.Namespace) -> set[str]:
    """Variants that the stopping rule gives no further seed."""
    from accuracy_table import losers

    return losers(output, args.seeds) if args.drop and (output / "benchmark.csv").is_file() else set()


if __name__ == "__main__":
    main()
