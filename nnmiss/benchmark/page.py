"""table.md and table.tex of a benchmark: its conditions, tables and notes."""
from __future__ import annotations

import pandas as pd

from nnmiss import __version__
from nnmiss.benchmark.comparison import Comparison
from nnmiss.benchmark.jobs import Job
from nnmiss.benchmark.report import Table
from nnmiss.benchmark.seed_statistics import FEWEST_SEEDS
from nnmiss.evaluation.conventions import Conventions
from nnmiss.evaluation.markup import latex_text


def conditions_text(jobs: list[Job], states: pd.Series, comparison: Comparison, conventions: Conventions) -> str:
    """The paragraph above the tables of a segmentation: what was trained and evaluated under which conditions."""
    test = jobs[0].conditions.test
    where = f"the test set {test[0]}" if test else "the final validation of each fold"
    return described_jobs(jobs, states, comparison.reference, f"Results are those of {where}. Conventions: "
                                                              f"{conventions.sentence('dice')}.")


def described_jobs(jobs: list[Job], states: pd.Series, reference: str, evaluated: str) -> str:
    """What was trained under which conditions; `evaluated` says how it was evaluated."""
    c = jobs[0].conditions
    counted = ", ".join(f"{n} {state}" for state, n in states.value_counts().items())
    common = " ".join(f"{key}={value}" for key, value in c.common.items()) or "none"
    lines = [f"Data set {c.dataset_name}, configuration {c.configuration}, plans {c.plans}.",
             f"Jobs: {len(jobs)} ({counted}): folds {_list(job.fold for job in jobs)}, "
             f"seeds {_list(job.seed for job in jobs)}, missing tables {_list(job.table for job in jobs)}.",
             f"Settings of all variants: {common}. Reference: {reference}.",
             f"{evaluated} nnmiss {__version__}."]
    variants = {job.variant.name: job.variant for job in jobs}
    own = [f"- {v.name}: `{v.method}`" + (f", preset {v.preset}" if v.preset else "")
           + "".join(f" `{key}={value}`" for key, value in v.assignments.items()) for v in variants.values()]
    return "\n".join(lines) + "\n\n" + "\n".join(own) + "\n"


def _list(values) -> str:
    return ", ".join(map(str, dict.fromkeys(values)))


def few_seeds(comparison: Comparison) -> list[str]:
    """Notes on what the seeds allow to be said."""
    notes = []
    fewest = min(len(entry.seeds) for entry in comparison.entries)
    if fewest < FEWEST_SEEDS:
        notes.append(f"a variant has only {fewest} seed(s): fewer than {FEWEST_SEEDS} allow no test over seeds. "
                     "Differences between single trainings can be the seeds' alone")
    apart = [f"{entry.label} with {entry.against.label}" for entry in comparison.entries
             if entry.against is not None and entry.against.missing != entry.missing]
    if apart:
        notes.append(f"the reference was not trained under the same missing table: compared are {'; '.join(apart)}")
    folds = {entry.label: tuple(sorted({*zip(entry.rows["seed"], entry.rows["fold"])})) for entry in comparison.entries}
    if len(set(folds.values())) > 1:
        notes.append("variants have different finished seeds and folds: compare them by the differences, which are paired, "
                     "not by the means")
    if any("all" in entry.rows["fold"].unique() for entry in comparison.entries):
        notes.append("fold 'all' is validated on its training cases: give a test set with --test")
    undefined = sum(int(entry.rows["value"].isna().sum()) for entry in comparison.entries)
    return notes + ([f"{undefined} Dice values are undefined and left out"] if undefined else [])


def to_markdown(title: str, conditions: str, made: list[Table], notes: list[str], figure: str) -> str:
    """The whole page."""
    parts = [f"# {title}\n", conditions]
    for table in made:
        rule = [":--"] * table.left + ["--:"] * (len(table.header) - table.left)
        cells = [[cell.replace("|", r"\|") for cell in line] for line in [table.header, rule, *table.lines]]
        parts.append(f"## {table.title}\n\n{table.caption}\n\n"
                     + "\n".join("| " + " | ".join(line) + " |" for line in cells) + "\n")
    parts.append(f"![means of seeds and differences]({figure})\n")
    parts += ["## Notes\n\n" + "".join(f"- {note}\n" for note in notes)] if notes else []
    return "\n".join(parts)


def to_latex(made: list[Table]) -> str:
    """The tables with booktabs and graphicx."""
    def line(cells: list[str]) -> str:
        text = " & ".join({"●": r"$\bullet$", "○": r"$\circ$"}.get(c, latex_text(c).replace("±", r"$\pm$")) for c in cells)
        return text + r" \\"

    parts = []
    for table in made:
        columns = "l" * table.left + "r" * (len(table.header) - table.left)
        parts.append("\n".join([
            r"\begin{table}", r"\centering", rf"\caption{{{latex_text(table.caption)}}}", r"\resizebox{\linewidth}{!}{%",
            rf"\begin{{tabular}}{{{columns}}}", r"\toprule", line(table.header), r"\midrule", *map(line, table.lines),
            r"\bottomrule", r"\end{tabular}}", r"\end{table}"]))
    return "\n\n".join(parts) + "\n"
