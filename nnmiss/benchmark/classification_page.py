"""Writes what a classification's benchmark found: benchmark.csv, jobs.csv, differences.csv, table.md, table.tex, figure."""
from __future__ import annotations

import pandas as pd

from nnmiss.atomic_files import read_json, replacing, write_text
from nnmiss.availability import modality_names
from nnmiss.benchmark import classification_tables as made_of
from nnmiss.benchmark import page
from nnmiss.benchmark.classification import compare
from nnmiss.benchmark.classification_figure import write_figure
from nnmiss.benchmark.classification_results import collect_results
from nnmiss.benchmark.collect import jobs_table, write_long
from nnmiss.benchmark.jobs import Job
from nnmiss.preprocessing.dataset_folders import require_folder


def write_classification_tables(jobs: list[Job], reference: str) -> None:
    """Writes everything below the output folder from the jobs that are finished, and prints the main table."""
    conditions = jobs[0].conditions
    dataset_json = read_json(require_folder("nnUNet_preprocessed") / conditions.dataset_name / "dataset.json",
                             "preprocessed dataset.json", ("task", "modalities"))
    results, conventions, notes = collect_results(jobs)
    states = jobs_table(jobs)
    comparison = compare(results, jobs, states, reference, dataset_json["task"], modality_names(dataset_json))
    tables = made_of.tables(comparison)
    notes += made_of.remarks(comparison)
    where = {"test": "the fold's test samples", "validation": "the fold's validation samples"}
    parts = dict.fromkeys(where[job.results.parent.name] for job in jobs if job.is_finished())
    counted = conventions.get("subset", "samples that were predicted with the whole subset")
    evaluated = f"Results are those of {' and '.join(parts)}; of a subset count {counted}."
    out = conditions.output
    write_long(results, out / "benchmark.csv")
    for name, table in (("jobs.csv", states), ("differences.csv", pd.DataFrame(made_of.difference_rows(comparison)))):
        with replacing(out / name) as temporary:
            table.to_csv(temporary, index=False, lineterminator="\n")
    write_figure(comparison, out / "benchmark.png")
    write_text(out / "table.tex", page.to_latex(tables))
    described = page.described_jobs(jobs, states["state"], reference, evaluated)
    write_text(out / "table.md", page.to_markdown(f"Benchmark: {conditions.dataset_name}", described, tables, notes,
                                                  "benchmark.png"))
    print("\n" + "\n".join(page.to_markdown("", "", tables[:1], [], "").splitlines()[3:-2]))
    for note in notes:
        print(f"note: {note}")
    print(f"tables: {out / 'table.md'}, figure: {out / 'benchmark.png'}, all values: {out / 'benchmark.csv'}, times: "
          f"{out / 'jobs.csv'}")
