"""Writes what an evaluation leaves in its folder: results.csv, summary.json, table.md, table.tex, figures, calibration."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from nnmiss.atomic_files import replacing, writable_folder, write_json, write_text
from nnmiss.evaluation import figures, markup
from nnmiss.evaluation.calibration import BinSums, calibration_table
from nnmiss.evaluation.comparison import compare_methods, comparison_markdown
from nnmiss.evaluation.conventions import TABLE_METRICS, Conventions
from nnmiss.evaluation.label_maps import Regions
from nnmiss.evaluation.results import Method, common_results, results_with, write_results
from nnmiss.evaluation.summary import summarise, without_nan
from nnmiss.evaluation.tables import build_table


def publish(output_folder: str | Path, results: pd.DataFrame, one_empty: list[tuple[str, str, str]], name: str,
            modalities: list[str], regions: Regions, conventions: Conventions, others: Sequence[Method] = (),
            include_average: bool = False, notes: Sequence[str] = (), errors: Sequence[str] = (),
            sources: dict | None = None, calibration: dict[tuple[str, str], BinSums] | None = None) -> dict[str, Any]:
    """Writes results.csv, summary.json, table.md, table.tex and figures; what an earlier evaluation left is replaced.

    Figures are of Dice: without any they are not written.

    Args:
        output_folder: made if absent.
        results: long results in the order in which they are to stand, columns `results.COLUMNS`.
        one_empty: (case, subset, region) that is empty in exactly one of ground truth and prediction.
        name: this method's name in the tables.
        others: methods to compare with, already checked by `results.check_comparable`.
        notes, errors: for summary.json; the notes also stand below the tables.
        sources: where the values are from: {"gt": folder, "pred": folder}, absolute, or {"portal": [files]}.
        calibration: (subset, region) -> `calibration.bin_sums` of all cases; empty where no probabilities were saved.

    Returns:
        the content of summary.json. Raises NnmissError, before anything is written, when no case is common to all
        methods.
    """
    output_folder = writable_folder(output_folder)
    names = list(regions.members)
    summary = summarise(results, one_empty, name, modalities, regions, conventions)
    # everything that can refuse comes before the first file, so that files of two evaluations never lie side by side
    methods, more_notes = common_results([Method(name, results, conventions), *others])
    shown, with_dice = {}, _with_values(names, "dice", methods)
    for metric in TABLE_METRICS:
        of_metric, about = results_with(metric, methods)
        shown |= {metric: of_metric} if of_metric else {}
        more_notes += about
    write_results(results, output_folder / "results.csv")
    summary.update(sources=sources or {}, notes=[*notes, *more_notes], errors=list(errors))
    _write_tables(output_folder, shown, summary, conventions, include_average)
    write_json(output_folder / "summary.json", without_nan(summary))
    if with_dice:
        figures.write_figures(output_folder, shown["dice"], modalities, with_dice)
    else:
        for figure in figures.NAMES:
            (output_folder / figure).unlink(missing_ok=True)
    _write_calibration(output_folder, calibration or {}, modalities, name)
    return summary


def _write_tables(folder: Path, shown: dict[str, dict[str, pd.DataFrame]], summary: dict[str, Any],
                  conventions: Conventions, include_average: bool) -> None:
    """Writes table.md and table.tex and adds the comparison to `summary`. `shown` is metric -> method -> results."""
    regions, modalities = list(summary["regions"]), summary["modalities"]
    tables = [build_table(of, modalities, regions, m, conventions, include_average) for m, of in shown.items()]
    markdown = [markup.to_markdown(table) for table in tables]
    comparison = [entry for metric, of in shown.items() if len(of) > 1
                  for entry in compare_methods(of, _with_values(regions, metric, of), [metric], include_average)]
    if comparison:
        summary["comparison"] = comparison
        markdown.append(comparison_markdown(comparison, conventions))
    if summary["notes"]:
        markdown.append("Notes:\n\n" + "".join(f"- {note}\n" for note in summary["notes"]))
    write_text(folder / "table.md", "\n".join(markdown))
    write_text(folder / "table.tex", "\n".join(map(markup.to_latex, tables)))


def _with_values(regions: list[str], metric: str, methods: dict[str, pd.DataFrame]) -> list[str]:
    """The regions that have values of a metric: suppressed columns have no ECE."""
    ours = next(iter(methods.values()))
    there = set(ours.loc[ours["metric"] == metric, "region"])
    return [region for region in regions if region in there]


def _write_calibration(folder: Path, pooled: dict[tuple[str, str], BinSums], modalities: list[str], name: str) -> None:
    """Writes calibration.csv and reliability.png; without probabilities removes those of an earlier evaluation."""
    table, figure = folder / "calibration.csv", folder / "reliability.png"
    if not pooled:
        table.unlink(missing_ok=True)
        figure.unlink(missing_ok=True)
        return
    with replacing(table) as temporary:
        calibration_table(pooled).to_csv(temporary, index=False, lineterminator="\n")
    figures.save(figures.reliability(pooled, modalities, name), figure)
