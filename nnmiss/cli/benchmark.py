"""nnmiss_benchmark: trains and evaluates many variants, folds, seeds and missing tables; one table with statistics."""
from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch

from nnmiss.atomic_files import read_json, replacing, writable_folder, write_text
from nnmiss.availability import modality_names
from nnmiss.benchmark import figure, page, report
from nnmiss.benchmark.classification_page import write_classification_tables
from nnmiss.benchmark.collect import collect_results, jobs_table, write_long
from nnmiss.benchmark.comparison import choose_reference, compare
from nnmiss.benchmark.jobs import Conditions, Job, make_jobs
from nnmiss.benchmark.plan_text import print_plan
from nnmiss.benchmark.run_jobs import run_jobs
from nnmiss.benchmark.slurm import slurm_script, without_slurm
from nnmiss.benchmark.variants import FULL, GRAMMAR, Variant, read_variants
from nnmiss.classification.description import CONFIGURATION
from nnmiss.cli.environment import parse_fold
from nnmiss.errors import NnmissError, command
from nnmiss.evaluation.label_maps import regions_of
from nnmiss.preprocessing.dataset_folders import CLASSIFICATION, find_dataset_name, kind_of_dataset, require_folder
from nnmiss.trainers.run import RunArguments, make_run, run_folders
from nnmiss.trainers.settings import parse_assignments


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(prog="nnmiss_benchmark", description=__doc__, allow_abbrev=False)
    p.add_argument("-d", dest="dataset", required=True, metavar="DATASET", help="dataset name or id, preprocessed")
    p.add_argument("-o", dest="output", required=True, metavar="FOLDER", help="tables, logs and times; models go where "
                   "nnmiss_train puts them")
    p.add_argument("--runs", nargs="+", action="extend", default=[], metavar="VARIANT", help=f'each quoted: "{GRAMMAR}"')
    p.add_argument("--runs_file", metavar="FILE", help="the same, one variant a line (text), or a list in .json")
    p.add_argument("--folds", nargs="+", default=["0"], metavar="FOLD", help="Default: 0")
    p.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="S", help="Default: 0 1 2")
    p.add_argument("--missing", nargs="+", default=[FULL], metavar="TABLE", help="missing/TABLE.csv for every variant that "
                   f"names none; '{FULL}': every file there is. Default: {FULL}")
    p.add_argument("--set", dest="assignments", nargs="+", action="extend", default=[], metavar="KEY=VALUE",
                   help="settings of all variants; a variant's own win")
    p.add_argument("--reference", metavar="NAME", help="variant the others are compared with. Default: the first "
                   "modality_dropout, else the first")
    p.add_argument("-c", dest="configuration", help="configuration. Default: 3d_fullres, of a "
                   "classification data set default")
    p.add_argument("-p", dest="plans", default="nnMissPlans", help="plans identifier. Default: nnMissPlans")
    p.add_argument("--tag", default="", help="put before every job's tag, to keep two benchmarks of one data set apart")
    p.add_argument("--test", nargs=2, metavar=("IMAGES", "LABELS"), help="predict and evaluate this test set with every "
                   "job and compare these results instead of the validation's")
    p.add_argument("--disable_tta", action="store_true", help="no mirroring in predictions of --test")
    p.add_argument("-device", choices=["cuda", "cpu", "mps"], help="Default: cuda where there is a GPU, else cpu")
    p.add_argument("--parallel", type=int, default=1, metavar="N", help="jobs at once; several GPUs are shared out. "
                   "Default: 1")
    what = p.add_mutually_exclusive_group()
    what.add_argument("--dry_run", action="store_true", help="list the jobs, their state and commands; run nothing")
    what.add_argument("--collect", action="store_true", help="run nothing, write the tables from what is finished")
    what.add_argument("--job", type=int, metavar="K", help="run the job with this number in --dry_run's list, no tables")
    what.add_argument("--slurm", nargs="?", const="-", metavar="FILE", help="write FILE, or print: a script that submits "
                      "all jobs as a SLURM array, a task each, and then the tables")
    return p


def run(arguments: list[str] | None = None) -> int:
    """Runs the command with these arguments (default: the command line's). Returns the exit code."""
    args = parser().parse_args(arguments)
    typed = list(sys.argv[1:] if arguments is None else arguments)
    if args.parallel < 1:
        raise NnmissError(f"--parallel is {args.parallel}, expected at least 1")
    jobs = planned_jobs(args)
    reference = choose_reference(args.reference, jobs, jobs[0].conditions.classification)
    check(jobs)
    output = jobs[0].conditions.output
    if args.slurm:
        write_slurm(args.slurm, without_slurm(typed), len(jobs), output)
        return 0
    if args.dry_run:
        print_plan(jobs)
        return 0
    writable_folder(output)
    failed: list[Job] = []
    if args.job is not None:
        if not 0 <= args.job < len(jobs):
            raise NnmissError(f"--job {args.job} does not exist: the jobs are 0 to {len(jobs) - 1}")
        return 1 if run_jobs([jobs[args.job]], 1, environments(args.device, 1)) else 0
    if not args.collect:
        print(f"{sum(job.is_finished() for job in jobs)} of {len(jobs)} jobs are finished", flush=True)
        failed = run_jobs(jobs, args.parallel, environments(args.device, args.parallel))
    if any(job.is_finished() for job in jobs):
        (write_classification_tables if jobs[0].conditions.classification else write_tables)(jobs, reference)
    elif args.collect:
        raise NnmissError(f"none of the {len(jobs)} jobs is finished: there is nothing to collect yet")
    if failed:
        print(f"{len(failed)} of {len(jobs)} jobs failed; the same command tries them again:",
              *(f"{job}: {job.log}" for job in failed), sep="\n  ", file=sys.stderr)
    return 1 if failed else 0


def write_slurm(file: str, typed: list[str], count: int, output: Path) -> None:
    """Writes the SLURM script of a benchmark, or prints it where `file` is "-"."""
    script = slurm_script(typed, count, writable_folder(output / "slurm"), Path("bench.sh" if file == "-" else file).name)
    if file == "-":
        print(script, end="")
        return
    write_text(file, script)
    print(f"{count} jobs: look at the first lines of {file}, then submit them with: bash {file}")


def planned_jobs(args: argparse.Namespace) -> list[Job]:
    """All jobs of a command line. Raises NnmissError for what is malformed; `check` looks at methods and settings."""
    for variable in ("nnUNet_preprocessed", "nnUNet_results"):
        require_folder(variable)
    classification = kind_of_dataset(args.dataset) == CLASSIFICATION
    given = [flag for flag, value in (("--test", args.test), ("--disable_tta", args.disable_tta)) if value]
    if classification and given:
        raise NnmissError(f"{', '.join(given)} is for segmentation: test samples of a classification data set are those "
                          "that its manifest or its splits say")
    configuration = args.configuration or (CONFIGURATION if classification else "3d_fullres")
    for folder in args.test or ():
        if not Path(folder).is_dir():
            raise NnmissError(f"--test: folder {folder} not found")
    conditions = Conditions(find_dataset_name(args.dataset), Path(args.output).resolve(), configuration, args.plans,
                            args.tag, parse_assignments(args.assignments), args.device,
                            tuple(str(Path(f).resolve()) for f in args.test) if args.test else None, args.disable_tta,
                            classification)

    def fold_folder(variant: Variant, tag: str, fold: int | str) -> Path:
        return run_folders(RunArguments(conditions.dataset_name, variant.method, fold, conditions.configuration,
                                        conditions.plans, tag=tag))[1]

    def with_preset(variant: Variant) -> Variant:  # by its name, as another version may have another default
        asked = RunArguments(conditions.dataset_name, variant.method, 0, preset=variant.preset)
        return replace(variant, preset=asked.preset)

    variants = [with_preset(variant) for variant in read_variants(args.runs, args.runs_file)]
    return make_jobs(conditions, variants, [None if t == FULL else t for t in args.missing],
                     [parse_fold(fold) for fold in args.folds], args.seeds, fold_folder)


def check(jobs: list[Job]) -> None:
    """Refuses unknown presets, settings, tables and folds, and jobs whose folder holds a run with other settings.

    All at once and before anything is trained, because a benchmark runs for days. Raises NnmissError naming each.
    """
    wrong: dict[str, None] = {}
    notes: dict[str, None] = {}
    seen: set[tuple] = set()
    for job in jobs:
        kinds = {("variant", job.variant.name, job.missing), ("fold", job.fold)}
        if kinds <= seen and not (job.fold_folder / "run.json").is_file():
            continue
        seen |= kinds
        c = job.conditions
        try:
            run = make_run(RunArguments(
                c.dataset_name, job.variant.method, job.fold, c.configuration, c.plans, job.seed, job.tag, job.missing,
                preset=job.variant.preset, assignments=job.assignments))
            run.check_against_earlier()
            notes.update(dict.fromkeys(f"{job.variant.name}: {note}" for note in run.notes))
        except NnmissError as error:
            wrong[f"{job.variant.name}: {error}"] = None
    for note in notes:
        print(f"note: {note}")
    if wrong:
        raise NnmissError("nothing was run, because\n  " + "\n  ".join(wrong))


def environments(device: str | None, parallel: int) -> list[dict[str, str]]:
    """Variables for each of the jobs that run at once: shares of the cores on the CPU, of the GPUs on CUDA."""
    if (device or ("cuda" if torch.cuda.is_available() else "cpu")) == "cuda":
        asked = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        gpus = asked.split(",") if asked else [str(i) for i in range(torch.cuda.device_count())]
        return [{"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} if len(gpus) > 1 else {} for i in range(parallel)]
    if "OMP_NUM_THREADS" in os.environ:
        return [{}] * parallel
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return [{"OMP_NUM_THREADS": str(max(1, cores // parallel))}] * parallel


def write_tables(jobs: list[Job], reference: str) -> None:
    """Writes everything below the output folder from the jobs that are finished, and prints the main table."""
    conditions = jobs[0].conditions
    dataset_json = read_json(require_folder("nnUNet_preprocessed") / conditions.dataset_name / "dataset.json",
                             "preprocessed dataset.json", ("channel_names", "labels"))
    modalities, regions = modality_names(dataset_json), list(regions_of(dataset_json).members)
    results, conventions, notes = collect_results(jobs, modalities)
    states = jobs_table(jobs)
    comparison = compare(results, jobs, states, reference, modalities, regions)
    made = report.tables(comparison)
    notes += page.few_seeds(comparison)
    out = conditions.output
    write_long(results, out / "benchmark.csv")
    for name, table in (("jobs.csv", states), ("differences.csv", pd.DataFrame(report.difference_rows(comparison)))):
        with replacing(out / name) as temporary:
            table.to_csv(temporary, index=False, lineterminator="\n")
    figure.write_figure(comparison, out / "benchmark.png")
    write_text(out / "table.tex", page.to_latex(made))
    write_text(out / "table.md", page.to_markdown(
        f"Benchmark: {conditions.dataset_name}", page.conditions_text(jobs, states["state"], comparison, conventions),
        made, notes, "benchmark.png"))
    print("\n" + "\n".join(page.to_markdown("", "", made[:1], [], "").splitlines()[3:-2]))
    for note in notes:
        print(f"note: {note}")
    print(f"tables: {out / 'table.md'}, figure: {out / 'benchmark.png'}, all values: {out / 'benchmark.csv'}, times: "
          f"{out / 'jobs.csv'}")


main = command(run)

if __name__ == "__main__":
    main()
