"""The top of the page: what is shown, conventions, what is absent, and the first answers in figures."""
from __future__ import annotations

from html import escape

import numpy as np

from nnmiss.evaluation.conventions import LOWER_IS_BETTER, TABLE_METRICS
from nnmiss.evaluation.results import row_means
from nnmiss.evaluation.tables import nan_mean, ordered_regions
from nnmiss.report.case_choice import rank_cases
from nnmiss.report.dataset_files import Places
from nnmiss.report.html_text import DASH, bullets, case_link, count, folded, number, tag
from nnmiss.report.sources import Source, full_subset, metric_title, percent

NOTES_SHOWN = 12


def header(sources: list[Source], places: Places, title: str, problems: list[str], missing: list[str],
            contents: list[tuple[str, str]]) -> str:
    """Title, what is shown, conventions, what could not be read or is absent, contents."""
    first = sources[0]
    cases = {case for source in sources for case in source.cases}
    facts = [("Method" if len(sources) == 1 else "Methods", ", ".join(s.name for s in sources)),
             ("Data set", places.dataset or "not known"),
             ("Cases", f"{len(cases):,}"), ("Modalities", ", ".join(first.modalities)),
             ("Regions", ", ".join(name if title == name else f"{title} ({name.replace('_', ' ')})"
                                   for name, title in ordered_regions(first.regions).items()))]
    definitions = "".join(f"<div>{tag('dt', escape(k))}{tag('dd', escape(v))}</div>" for k, v in facts)
    broken = tag("div", f"<p><strong>{count(len(problems), 'result')} could not be read.</strong></p>{bullets(problems)}",
                 class_="alert", role="alert") if problems else ""
    absent = folded(f"{count(len(missing), 'thing')} that this page lacks, and why", bullets(missing)) if missing else ""
    links = "".join(f'<li><a href="#{anchor}">{escape(name)}</a></li>' for anchor, name in contents)
    return (f'<header>\n<h1>{escape(title)}</h1>\n<dl class="facts">{definitions}</dl>\n{broken}{_conventions(sources)}'
            f'{absent}<nav aria-label="Contents"><ol>{links}</ol></nav>\n</header>\n')


def _conventions(sources: list[Source]) -> str:
    """The conventions of the first method in a sentence, of others where they differ; notes folded."""
    said: dict[str, str] = {}
    for source in sources:
        said.setdefault(conventions_text(source), source.name)
    texts = [text if len(said) == 1 else f"{name}: {text}" for text, name in said.items()]
    notes = [note for source in sources for note in source.notes]
    more = [f"… and {len(notes) - NOTES_SHOWN} more, see summary.json"] if len(notes) > NOTES_SHOWN else []
    folded_notes = folded(f"{count(len(notes), 'note')} of the evaluation", bullets(notes[:NOTES_SHOWN] + more))
    return "".join(tag("p", f"<b>Conventions.</b> {escape(text)}", class_="conventions") + "\n" for text in texts) + (
        folded_notes if notes else "")


def conventions_text(source: Source) -> str:
    """How Dice, HD95 and the like were computed, as the tables of the evaluation say it."""
    if source.conventions is None:
        return "not known, as no summary.json lies beside the results."
    sentences = []
    for metric in TABLE_METRICS:
        if metric not in source.metrics:
            continue
        try:
            text = source.conventions.sentence(metric)
        except KeyError:  # a metric that these conventions say nothing of
            continue
        sentences.append(f"{metric_title(metric, source.conventions)}: {text}.")
    portal = source.summary.get("sources")
    if isinstance(portal, dict) and portal.get("portal"):
        sentences.append("Values are those of the challenge's portal.")
    version = source.summary.get("nnmiss_version")
    return " ".join([*sentences, f"Evaluated with nnmiss {version}." if version else ""]).strip()


def tiles_html(source: Source, embedded: set[str]) -> str:
    """The first answers in figures: mean, all modalities, hardest subset, worst case."""
    metric = source.main_metric
    means = row_means(source.results, metric).reindex(source.subsets) * percent(metric)
    if not np.isfinite(means.to_numpy(float)).any():
        return ""
    title, titles = metric_title(metric, source.conventions), ordered_regions(source.regions)
    means = means.reindex(columns=source.counted)
    rows = means.assign(mean=nan_mean(means.to_numpy(float).T))["mean"]
    average = means.apply(lambda column: nan_mean(column.to_numpy(float)[:, None])[0])
    regions = ", ".join(f"{t} {number(average[r])}" for r, t in titles.items() if r in average.index)
    tiles = [(f"Mean {title}", number(float(nan_mean(average.to_numpy(float)[:, None])[0])), escape(regions))]
    full = full_subset(source.modalities)
    if full in rows.index and len(rows) > 1:
        n = source.results.loc[source.results["subset"] == full, "case"].nunique()
        tiles.append(("With all modalities", number(rows[full]), count(n, "case")))
    worst = rows.idxmax() if metric in LOWER_IS_BETTER else rows.idxmin()
    if len(rows) > 1:
        tiles.append(("Hardest subset", number(rows[worst]), escape(worst)))
    case = rank_cases(source, metric)[0]
    where = f"{titles[case.worst_region]} {number(case.worst * percent(metric))} with {case.worst_subset}"
    tiles.append(("Worst case", number(case.mean * percent(metric)), f"{case_link(case.name, embedded)}: {escape(where)}"))
    return '<div class="tiles">' + "".join(
        f'<div class="tile"><span class="label">{escape(label)}</span><span class="value">{value}</span>'
        f'<span class="detail">{detail or DASH}</span></div>' for label, value, detail in tiles) + "</div>\n"
