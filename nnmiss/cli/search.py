"""nnmiss_search: random search over settings of a classification method, ranked on validation samples only.

Every trial is a run of nnmiss_train with a tag of its own; an interrupted search goes on with the same command. Test
samples are predicted for the best trial alone, after the ranking.
"""
from __future__ import annotations

import argparse
import math
import shlex
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from nnmiss.atomic_files import read_json, replacing, writable_folder, write_json
from nnmiss.benchmark.search_space import GRAMMAR, draw_trial, parse_space
from nnmiss.cli.environment import choose_device, parse_fold
from nnmiss.errors import NnmissError, command
from nnmiss.inference.checkpoints import read_checkpoint
from nnmiss.preprocessing.dataset_folders import find_dataset_name, require_folder
from nnmiss.trainers.run import RunArguments, make_run, run_folders, train
from nnmiss.trainers.settings import parse_assignments


def parser() -> argparse.ArgumentParser:
    """The command line; flags mean what they mean for nnmiss_train."""
    p = argparse.ArgumentParser(prog="nnmiss_search", description=__doc__)
    p.add_argument("dataset", help="name or id of a classification data set")
    p.add_argument("method", help="as for nnmiss_train")
    p.add_argument("fold", help="fold of the cross-validation, usually 0 to 4")
    p.add_argument("--trials", type=int, default=50, help="how many, with the first, which draws nothing. Default: 50")
    p.add_argument("--over", nargs="+", action="extend", default=[], metavar="KEY=RANGE",
                   help=f"what is drawn: {GRAMMAR}. Ranges above zero have a uniform logarithm. Default: the method's own")
    p.add_argument("--set", dest="assignments", nargs="+", action="extend", default=[], metavar="KEY=VALUE",
                   help="settings of every trial")
    p.add_argument("--seed", type=int, default=0, help="seed of what is drawn, and of every trial's training. Default: 0")
    p.add_argument("--tag", default="search", help="name of this search; trial 3 has the tag TAG-t003. Default: search")
    p.add_argument("--missing", metavar="NAME", help="table missing/NAME.csv of simulated missingness")
    p.add_argument("--preset", default="", help="as for nnmiss_train")
    p.add_argument("-device", choices=["cuda", "cpu", "mps"], help="Default: cuda where there is a GPU, else cpu")
    return p


@dataclass
class Trial:
    """One run of a search."""

    number: int
    drawn: dict[str, str]
    arguments: RunArguments
    state: str = "waiting"
    score: float = math.nan
    epoch: int | None = None

    def read(self) -> None:
        """Takes the result of a finished training. Raises NnmissError when its checkpoint cannot be read."""
        file = run_folders(self.arguments)[1] / "checkpoint_final.pth"
        if file.is_file():
            kept = read_checkpoint(file)["kept"]
            self.state, self.score, self.epoch = "finished", kept["score"], kept["epoch"] + 1

    def command(self) -> str:
        """What a user would type to repeat it."""
        a = self.arguments
        return shlex.join(["nnmiss_train", a.dataset_name, a.method, str(a.fold), "--seed", str(a.seed), "--tag", a.tag,
                           "--preset", a.preset, *(["--missing", a.missing] if a.missing else []),
                           *(["--set", *(f"{key}={value}" for key, value in a.assignments.items())]
                             if a.assignments else [])])


def run(arguments: list[str] | None = None) -> int:
    """Runs the command with these arguments (default: the command line's). Returns the exit code."""
    args = parser().parse_args(arguments)
    for variable in ("nnUNet_preprocessed", "nnUNet_results"):
        require_folder(variable)
    asked = RunArguments(find_dataset_name(args.dataset), args.method, parse_fold(args.fold), seed=args.seed, tag=args.tag,
                         missing=args.missing, preset=args.preset, assignments=parse_assignments(args.assignments),
                         show_progress=False)
    if not asked.classification:
        raise NnmissError(f"{asked.dataset_name} is a segmentation data set: nnmiss_search is for classification")
    if args.trials < 1:
        raise NnmissError(f"--trials {args.trials}: expected 1 or more")
    over = parse_assignments(args.over) or getattr(asked.trainer_class, "search", {})
    if not over:
        raise NnmissError(f"{args.method} has no ranges of its own: say what to draw with --over {GRAMMAR}")
    both = sorted(set(over) & set(asked.assignments))
    if both:
        raise NnmissError(f"{both[0]} is given by --set and drawn by --over: leave one out")
    asked = replace(asked, device=choose_device(args.device))
    trials = planned_trials(asked, over, args.trials)
    folder = open_search(asked, over)
    for trial in trials:
        run_trial(trial, folder)
        write_table(trials, folder)
    return finish(trials, folder)


def planned_trials(asked: RunArguments, over: dict[str, str], count: int) -> list[Trial]:
    """All trials; the first has nothing drawn. Raises NnmissError for what a run would refuse, before any is trained."""
    modalities, space = make_run(asked).modalities, parse_space(over)
    drawn = [{}, *(draw_trial(space, modalities, asked.seed, number) for number in range(1, count))]
    trials = [Trial(number, settings, replace(asked, tag=f"{asked.tag}-t{number:03d}",
                                              assignments={**asked.assignments, **settings}))
              for number, settings in enumerate(drawn)]
    for trial in trials[:2]:
        make_run(trial.arguments)
    return trials


def open_search(asked: RunArguments, over: dict[str, str]) -> Path:
    """The folder of a search. Raises NnmissError when it holds one that draws or sets something else."""
    model, fold = run_folders(asked)
    folder = writable_folder(model.parent / "search" / model.name / fold.name)
    record = {"over": over, "set": asked.assignments, "preset": asked.preset, "seed": asked.seed, "missing": asked.missing}
    file = folder / "search.json"
    if file.is_file() and read_json(file, "record of a search") != record:
        raise NnmissError(f"{folder} holds a search with other settings ({file.name} has them): give this one another "
                          "--tag, or use the same settings. More --trials go on with it")
    write_json(file, record)
    return folder


def run_trial(trial: Trial, folder: Path) -> None:
    """Trains one trial, unless that was done before; its output goes to logs/."""
    trial.read()
    if trial.state != "finished":
        log = writable_folder(folder / "logs") / f"{trial.arguments.tag}.txt"
        try:
            with open(log, "a", encoding="utf-8") as file, redirect_stdout(file):
                train(trial.arguments, skip_validation=True)
            trial.read()
        except NnmissError as error:
            trial.state = f"failed: {error}"
    shown = " ".join(f"{key}={value}" for key, value in trial.drawn.items()) or "nothing drawn"
    result = f"{trial.score:.4f} at epoch {trial.epoch}" if trial.state == "finished" else trial.state
    print(f"trial {trial.number}: {shown}: {result}", flush=True)


def ranked(trials: list[Trial]) -> list[Trial]:
    """The best validation score first; those without one last, in their order."""
    return sorted(trials, key=lambda t: -t.score if math.isfinite(t.score) else math.inf)


def write_table(trials: list[Trial], folder: Path) -> None:
    """search.csv: a row per trial, the best on validation samples first."""
    drawn = list(dict.fromkeys(key for trial in trials for key in trial.drawn))
    rows = [[rank if math.isfinite(t.score) else None, t.number, t.arguments.tag, t.state, t.score, t.epoch,
             *(t.drawn.get(key, "") for key in drawn), t.command()] for rank, t in enumerate(ranked(trials), 1)]
    columns = ["rank", "trial", "tag", "state", "validation_score", "epoch", *drawn, "command"]
    table = pd.DataFrame(rows, columns=columns).astype({"rank": "Int64", "epoch": "Int64"})
    with replacing(folder / "search.csv") as temporary:
        table.to_csv(temporary, index=False)


def finish(trials: list[Trial], folder: Path) -> int:
    """Validates the best trial, says which it is. Returns the exit code."""
    best = ranked(trials)[0]
    if math.isfinite(best.score):
        print(f"best of {len(trials)}: trial {best.number}, validation score {best.score:.4f}\n{best.command()}")
        train(best.arguments)
    failed = [trial for trial in trials if trial.state != "finished"]
    if failed:
        print(f"{len(failed)} of {len(trials)} trials failed; the same command tries them again")
    print(f"all trials: {folder / 'search.csv'}")
    return 1 if failed or not math.isfinite(best.score) else 0


main = command(run)

if __name__ == "__main__":
    main()
