"""The jobs of a benchmark: variants x missing tables x folds x seeds, each a run of nnmiss_train that can be repeated."""
from __future__ import annotations

import hashlib
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from nnmiss.benchmark.variants import FULL, Variant
from nnmiss.errors import NnmissError

LONGEST_TAG = 80  # folder names end at 255 characters, and the tag is one part


@dataclass(frozen=True)
class Conditions:
    """What all jobs share."""

    dataset_name: str
    output: Path
    configuration: str = "3d_fullres"
    """Of a classification data set: default."""
    plans: str = "nnMissPlans"
    prefix: str = ""
    """Put before every tag, to keep two benchmarks of one data set apart."""
    common: dict[str, str] = field(default_factory=dict)
    """Settings of every variant; a variant's own win."""
    device: str | None = None
    test: tuple[str, str] | None = None
    """Folders of images and labels; None: results are those of the final validation."""
    disable_tta: bool = False
    classification: bool = False
    """Whether the data set is one of classification."""


@dataclass(frozen=True)
class Job:
    """One training with its evaluation."""

    conditions: Conditions
    variant: Variant
    missing: str | None
    """Missingness table; None: every file there is."""
    fold: int | str
    seed: int
    fold_folder: Path
    """Where nnmiss_train puts this fold."""

    @property
    def table(self) -> str:
        """The missingness table's name in tables and tags."""
        return Path(self.missing).stem if self.missing else FULL

    @property
    def tag(self) -> str:
        return tag(self.conditions.prefix, self.variant, self.missing, self.seed)

    @property
    def name(self) -> str:
        """Folder of its log and times below OUTPUT/jobs."""
        return f"{self.tag}_fold_{self.fold}"

    @property
    def folder(self) -> Path:
        return self.conditions.output / "jobs" / self.name

    @property
    def log(self) -> Path:
        return self.folder / "log.txt"

    @property
    def assignments(self) -> dict[str, str]:
        """The settings of this job, as `--set` takes them."""
        return {**self.conditions.common, **self.variant.assignments}

    @property
    def subset(self) -> str:
        """The only subset of a dedicated network; "" for all others."""
        return self.assignments.get("subset", "")

    @property
    def results(self) -> Path:
        """results.csv of the final validation, or of the test set; in classification of the fold's test samples, if any."""
        if self.conditions.classification:
            of_test = self.fold_folder / "test" / "results.csv"
            return of_test if of_test.is_file() else self.fold_folder / "validation" / "results.csv"
        return (self.folder / "test" if self.conditions.test else self.fold_folder / "validation") / "results.csv"

    def is_trained(self) -> bool:
        """Whether training and final validation are done (summary.json is written after results.csv)."""
        return (self.fold_folder / "validation" / "summary.json").is_file()

    def is_finished(self) -> bool:
        """Whether its results are there; those of a test set must be newer than the weights."""
        summary, weights = self.results.with_name("summary.json"), self.fold_folder / "checkpoint_final.pth"
        done = self.is_trained() and summary.is_file() and self.results.is_file()
        stale = self.conditions.test and weights.is_file() and done and weights.stat().st_mtime > summary.stat().st_mtime
        return done and not stale

    def steps(self) -> list[list[str]]:
        """The commands of this job that are not done yet, as a user would type them."""
        steps = [] if self.is_trained() else [self.train_command()]
        return steps + (self._test_commands() if self.conditions.test else [])

    def train_command(self) -> list[str]:
        """nnmiss_train with everything that makes this job."""
        c = self.conditions
        command = ["nnmiss_train", c.dataset_name, self.variant.method, str(self.fold), "-c", c.configuration,
                   "-p", c.plans, "--seed", str(self.seed), "--tag", self.tag,
                   *(["--preset", self.variant.preset] if self.variant.preset else []),
                   *(["--missing", self.missing] if self.missing else []), *self._device(), "--disable_progress_bar"]
        return command + (["--set", *(f"{key}={value}" for key, value in self.assignments.items())]
                          if self.assignments else [])

    def _test_commands(self) -> list[list[str]]:
        c, predictions = self.conditions, str(self.folder / "predictions")
        images, labels = c.test
        return [["nnmiss_predict", "-i", images, "-o", predictions, "-d", c.dataset_name, "-m", self.variant.method, "-f",
                 str(self.fold), "-c", c.configuration, "-p", c.plans, "--tag", self.tag,
                 *(["--subsets", self.subset] if self.subset else ["--all_subsets"]),
                 *(["--disable_tta"] if c.disable_tta else []), *self._device(), "--disable_progress_bar"],
                ["nnmiss_evaluate", "-gt", labels, "-pred", predictions, "-d", c.dataset_name, "-o",
                 str(self.folder / "test"), "--name", self.variant.name]]

    def _device(self) -> list[str]:
        return ["-device", self.conditions.device] if self.conditions.device else []

    def __str__(self) -> str:
        return f"{self.variant.name} (missing {self.table}), fold {self.fold}, seed {self.seed}"


def tag(prefix: str, variant: Variant, missing: str | None, seed: int) -> str:
    """--tag of a job: the same for all folds, its own for each variant, missing table and seed."""
    parts = [prefix, variant.slug, Path(missing).stem if missing else "", f"s{seed}"]
    name = "-".join(part for part in parts if part)
    if len(name) <= LONGEST_TAG:
        return name
    return f"{name[:LONGEST_TAG - 20]}-{hashlib.sha256(name.encode()).hexdigest()[:10]}-s{seed}"


def make_jobs(conditions: Conditions, variants: list[Variant], tables: list[str | None], folds: list[int | str],
              seeds: list[int], fold_folder: Callable[[Variant, str, int | str], Path]) -> list[Job]:
    """All jobs in the order they are run: whole seeds first, so that an unfinished benchmark can be compared.

    Args:
        tables: missingness tables of the variants that name none themselves; None takes nothing away.
        fold_folder: (variant, tag, fold) -> where nnmiss_train puts it.

    Raises:
        NnmissError: two jobs would share a folder.
    """
    jobs = []
    for seed in seeds:
        for fold in folds:
            for variant in variants:
                own = [None if variant.missing == FULL else variant.missing] if variant.missing else tables
                jobs += [Job(conditions, variant, missing, fold, seed,
                             fold_folder(variant, tag(conditions.prefix, variant, missing, seed), fold))
                         for missing in own]
    seen: dict[str, Job] = {}
    for job in jobs:
        other = seen.setdefault(job.name.lower(), job)
        if other is not job:
            raise NnmissError(f"{other} and {job} would share the tag {job.tag!r}: name the variants differently, and list "
                              "folds, seeds and tables once")
    return jobs


def shown(command: list[str]) -> str:
    """A command as it is typed in a shell."""
    return shlex.join(command)
