"""The results that a report shows: read from folders of evaluations, final validations and portal imports."""
from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from nnmiss.atomic_files import read_json
from nnmiss.availability import subset_name
from nnmiss.errors import NnmissError
from nnmiss.evaluation.conventions import LOWER_IS_BETTER, TITLES, Conventions
from nnmiss.evaluation.predictions import subset_order
from nnmiss.evaluation.results import Method, read_method
from nnmiss.evaluation.tables import SUPPRESSED
from nnmiss.report.result_files import dataset_json_beside, modalities_of, predictions_folder

DATASET = re.compile(r"Dataset\d{3,}_.+")
FOLD = re.compile(r"fold_(\d+|all)")


@dataclass
class Source:
    """Results of one method and what its folder says of them."""

    name: str
    folder: Path
    results: pd.DataFrame
    """Columns case, subset, region, metric, value; subset names canonical."""
    modalities: list[str]
    regions: list[str]
    summary: dict[str, Any]
    """Content of summary.json; empty where there is none."""
    conventions: Conventions | None
    dataset_json: dict | None = None
    pred: Path | None = None
    """Folder of the evaluated segmentations, if known."""
    notes: list[str] = field(default_factory=list)

    @property
    def method(self) -> Method:
        """As the comparison takes it."""
        return Method(self.name, self.results, self.conventions)

    @property
    def imported(self) -> bool:
        """Whether the values are those of a challenge's portal."""
        sources = self.summary.get("sources")
        return isinstance(sources, dict) and bool(sources.get("portal"))

    @property
    def metrics(self) -> list[str]:
        """Metrics that have a value, those of tables first."""
        there = list(self.results.loc[self.results["value"].notna(), "metric"].unique())
        return [m for m in TITLES if m in there] + [m for m in there if m not in TITLES]

    @property
    def main_metric(self) -> str:
        """What cases are ranked by: Dice, else lesion-wise Dice, else the first metric of which more is better."""
        good = [m for m in self.metrics if m not in LOWER_IS_BETTER]
        return next((m for m in ("dice", "lesion_dice", *good, *self.metrics) if m in self.metrics), "dice")

    @property
    def first_metrics(self) -> list[str]:
        """What the main table shows; the others are folded."""
        return [m for m in ("dice", "hd95") if m in self.metrics] or self.metrics[:2]

    @property
    def counted(self) -> list[str]:
        """The regions that means over regions are of: without suppressed columns, whose region would count twice."""
        return [r for r in self.regions if not (r.endswith(SUPPRESSED) and r.removesuffix(SUPPRESSED) in self.regions)]

    @property
    def subsets(self) -> list[str]:
        """Subsets that have a row, in the order of tables."""
        there = set(self.results["subset"])
        return [s for s in subset_order(self.modalities) if s in there]

    @property
    def cases(self) -> list[str]:
        """All case names, sorted."""
        return sorted(self.results["case"].unique())


def read_sources(specifications: list[str]) -> tuple[list[Source], list[str]]:
    """Reads `PATH` or `NAME=PATH` each. Returns those that can be read, and a sentence for each that cannot.

    Raises NnmissError when none can.
    """
    sources, problems = [], []
    for specification in specifications:
        try:
            source = read_source(specification)
        except (NnmissError, OSError) as error:
            problems.append(f"{specification} is not in this report: {error}")
            continue
        taken = {s.name for s in sources}
        if source.name in taken:
            source.name = next(f"{source.name} ({i})" for i in range(2, 1000) if f"{source.name} ({i})" not in taken)
        sources.append(source)
    if not sources:
        raise NnmissError("none of the results can be read, no page was written:\n  " + "\n  ".join(problems))
    return sources, problems


def read_source(specification: str) -> Source:
    """Reads one; raises NnmissError, naming the file, for anything absent or damaged."""
    given, path = split_name(specification)
    folder = path.parent if path.name.endswith(".csv") else path
    csv = path if path.name.endswith(".csv") else path / "results.csv"
    if not csv.is_file():
        hint = ": its training or validation is not finished" if FOLD.fullmatch(folder.parent.name) else ""
        hint = f", but {folder / 'validation'} has one" if (folder / "validation" / "results.csv").is_file() else hint
        raise NnmissError(f"{csv} not found{hint}. Give a folder of nnmiss_evaluate, nnmiss_import_brats_scores or "
                          "fold_K/validation")
    if _is_of_classification(csv):
        raise NnmissError(f"{csv} holds results of a classification data set, nnmiss_report is for segmentation: see the "
                          "tables and figures beside that file")
    summary = read_json(folder / "summary.json", "summary") if (folder / "summary.json").is_file() else {}
    if not isinstance(summary, dict):
        raise NnmissError(f"{folder / 'summary.json'} must hold an object: evaluate again")
    pred = predictions_folder(folder, summary)
    dataset_json = dataset_json_beside(folder, pred)
    modalities = modalities_of(summary, dataset_json, csv)
    method = read_method(csv, modalities)
    if method.results["value"].isna().all():
        raise NnmissError(f"{csv} has no value that is defined: evaluate again")
    there = list(method.results["region"].unique())
    known = summary.get("regions")
    known = list(known) if isinstance(known, dict) else []
    regions = [r for r in known if r in there] + [r for r in there if r not in known]
    source = Source(given or default_name(folder, summary), folder, method.results, modalities, regions, summary,
                    method.conventions, dataset_json, pred)
    if not summary:
        source.notes.append(f"{source.name} has no summary.json: its conventions are not known")
    source.notes += [f"{source.name}: {text}" for key in ("errors", "notes") for text in _texts(summary, key)]
    return source


def _is_of_classification(csv: Path) -> bool:
    """Whether results.csv has the columns of nnmiss.evaluation.classification."""
    with open(csv, encoding="utf-8", errors="replace") as file:
        columns = file.readline().strip().split(",")
    return "label" in columns and "region" not in columns


def split_name(specification: str) -> tuple[str, Path]:
    """('', path) or (name, path) of PATH or NAME=PATH; a path that exists is never taken apart."""
    if "=" in specification and not Path(specification).exists():
        name, _, rest = specification.partition("=")
        return name, Path(rest).absolute()
    return "", Path(specification).absolute()


def default_name(folder: Path, summary: dict[str, Any]) -> str:
    """The name the evaluation had; for fold_K/validation, which is no name, method, tag and fold."""
    fold = folder.parent
    if not FOLD.fullmatch(fold.name):
        return str(summary.get("method") or folder.name)
    named, *rest = fold.parent.name.split("__")
    tag = rest[0].partition("-")[2] if rest else ""
    try:
        named = str(read_json(fold / "run.json", "run.json", ("method",))["method"])
    except NnmissError:
        named = named.removeprefix("nnMissTrainer")
    return " ".join([*([named] if named else []), *([tag] if tag else []), fold.name.replace("_", " ")])


def dataset_name_of(*paths: Path | None) -> str | None:
    """DatasetXXX_Name if one of the paths lies in such a folder."""
    return next((part for path in paths if path for part in reversed(path.parts) if DATASET.fullmatch(part)), None)


def _texts(summary: dict[str, Any], key: str) -> list[str]:
    content = summary.get(key)
    return [str(text) for text in content] if isinstance(content, list) else []


def full_subset(modalities: list[str]) -> str:
    """The name of the subset of all modalities."""
    return subset_name((True,) * len(modalities), modalities)
