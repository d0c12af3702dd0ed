"""What an iteration, and an update of w, of each variant costs relative to the baseline's; the epochs that time buys.

Run by benchmarks/accuracy.py as a process of its own, because nnU-Net reads its folders once:
python benchmarks/accuracy_cost.py COST.json LINE [LINE ...] -- the arguments of nnmiss_benchmark
"""
from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path

ROUNDS, ITERATIONS = 7, 4
REFERENCE = "modality_dropout"


def measure(arguments: list[str], known: dict) -> dict:
    """Variant's line -> {stage: ratio}, added to `known`; the variants take turns, processor time counts."""
    from nnmiss.benchmark.variants import read_variants
    from nnmiss.cli.benchmark import parser, planned_jobs

    args = parser().parse_args(arguments)
    lines = {variant.name: line for variant, line in zip(read_variants(args.runs), args.runs)}
    jobs = {job.variant.name: job for job in planned_jobs(args)}
    timers = {(name, stage): Timer(job, stage) for name, job in jobs.items() for stage in stages_of(job)}
    rounds = {key: [] for key in timers}
    for _ in range(ROUNDS):
        for key, timer in timers.items():
            rounds[key].append(timer.iterations())
    reference = next(key for key, timer in timers.items() if key[0] == REFERENCE)
    for key, timer in timers.items():
        ratios = [own / other for own, other in zip(rounds[key], rounds[reference])]
        costs = statistics.median(ratios), timer.update / statistics.median(rounds[reference])
        known.setdefault(lines[key[0]], {})[key[1]] = [round(cost, 4) for cost in costs]
    known["seconds of the baseline's iteration"] = round(statistics.median(rounds[reference]), 4)
    return known


def arguments_of(job):
    """The run that a job is, under a tag of its own."""
    from nnmiss.trainers.run import RunArguments

    c = job.conditions
    return RunArguments(c.dataset_name, job.variant.method, job.fold, c.configuration, c.plans, job.seed, f"cost-{job.tag}",
                        job.missing, preset=job.variant.preset, assignments=job.assignments, show_progress=False)


def stages_of(job) -> tuple[str, ...]:
    """The stages that a job trains, in order."""
    from nnmiss.trainers.run import make_run

    return make_run(arguments_of(job)).stage_names


class Timer:
    """A trainer of one stage, with random weights, that is timed with its loading and augmentation."""

    def __init__(self, job, stage: str):
        from nnmiss.trainers.run import make_run

        self.trainer = make_run(arguments_of(job)).make_trainer(stage)
        self.trainer.initialize()
        self.trainer.on_train_start()
        self.trainer.on_train_epoch_start()
        self.number = 0
        self.iterations()
        self.trainer.iteration = 0
        start = time.process_time()
        self.trainer.before_iteration()
        self.update = time.process_time() - start

    def iterations(self) -> float:
        """Seconds of processor time per iteration."""
        start = time.process_time()
        for _ in range(ITERATIONS):
            self.trainer.iteration = 1 + self.number % max(1, getattr(self.trainer, "update_interval", 1) - 1)
            self.trainer.train_step(self.trainer.next_batch(self.trainer.dataloader_train, 0, self.number, "train"))
            self.number += 1
        return (time.process_time() - start) / ITERATIONS


def epochs_for(budget: float, run, costs: dict[str, list[float]], updates) -> int:
    """The most epochs, over all stages, that cost at most `budget` iterations of the baseline; at least one a stage.

    Args:
        run: number of epochs -> {stage: iterations}.
        costs: stage -> costs of an iteration and of an update, relative to the baseline's iteration.
        updates: number of iterations of a stage -> how many updates there are.
    """
    def cost(epochs: int) -> float:
        return sum(number * costs[stage][0] + updates(number) * costs[stage][1] for stage, number in run(epochs).items())

    epochs = len(costs)
    while cost(epochs + 1) <= budget * 1.001:
        epochs += 1
    return epochs


if __name__ == "__main__":
    file = Path(sys.argv[1])
    known = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps(measure(sys.argv[2:], known), indent=1))
