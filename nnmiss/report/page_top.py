"""The top of the page: what is shown, conventions, what is absent, and the first answers in figures."""
from __future__ import annotations

from collections.abc import Callable
from html import escape

from nnmiss.evaluation.conventions import LOWER_IS_BETTER, TABLE_METRICS, metric_title, scale_of
from nnmiss.evaluation.results import count_text
from nnmiss.evaluation.tables import ordered_regions
from nnmiss.report.case_choice import rank_cases
from nnmiss.report.dataset_files import Places
from nnmiss.report.html_text import DASH, bullets, case_link, count, folded, number, paragraph, tag
from nnmiss.report.means import MEAN, averages, mean_of_regions, subset_counts, subset_means
from nnmiss.report.sources import Source, full_subset

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
    """The conventions of the main metrics in a sentence, where methods differ one for each; the rest and notes folded."""
    shown, rest = _by_method(sources, conventions_text), _by_method(sources, further_conventions)
    notes = [note for source in sources for note in source.notes]
    more = [f"… and {len(notes) - NOTES_SHOWN} more, see summary.json"] if len(notes) > NOTES_SHOWN else []
    parts = [tag("p", f"<b>Conventions.</b> {escape(text)}", class_="conventions") + "\n" for text in shown]
    if rest:
        parts.append(folded("Conventions of the other metrics", "".join(paragraph(text, "note") for text in rest)))
    if notes:
        parts.append(folded(f"{count(len(notes), 'note')} of the evaluation", bullets(notes[:NOTES_SHOWN] + more)))
    return "".join(parts)


def _by_method(sources: list[Source], text_of: Callable[[Source], str]) -> list[str]:
    """The texts that differ, with the names of their methods where there are several."""
    names: dict[str, list[str]] = {}
    for source in sources:
        names.setdefault(text_of(source), []).append(source.name)
    return [text if len(names) == 1 else f"{', '.join(of)}: {text}" for text, of in names.items() if text]


def conventions_text(source: Source) -> str:
    """How Dice and HD95, or what the main table shows, were computed; what holds for every metric is said once."""
    if source.conventions is None:
        return "not known, as no summary.json lies beside the results."
    suppression = source.conventions.suppression()
    sentences = [*_definitions(source, source.first_metrics), f"{suppression[0].upper()}{suppression[1:]}."]
    if source.imported:
        sentences.append("Values are those of the challenge's portal.")
    version = source.summary.get("nnmiss_version")
    return " ".join([*sentences, *([f"Evaluated with nnmiss {version}."] if version else [])])


def further_conventions(source: Source) -> str:
    """How what the main table does not show was computed."""
    further = [m for m in source.metrics if m not in source.first_metrics]
    return " ".join(_definitions(source, further)) if source.conventions else ""


def _definitions(source: Source, metrics: list[str]) -> list[str]:
    return [f"{metric_title(m, source.conventions)}: {source.conventions.definition(m)}."
            for m in metrics if m in TABLE_METRICS]


def tiles_html(source: Source, embedded: set[str]) -> str:
    """The first answers in figures: mean, all modalities, hardest subset, worst case."""
    metric = source.main_metric
    means = subset_means(source, metric).dropna(axis="columns", how="all")
    means = means[[region for region in means.columns if region in source.counted]]
    if means.empty:
        return ""
    title, titles = metric_title(metric, source.conventions), ordered_regions(source.regions)
    counts, rows, of = subset_counts(source, metric), mean_of_regions(means, source), averages(means, source)

    def n(subset: str) -> str:
        text = count_text(counts.loc[subset, means.columns])
        return f"{text} case{'' if text == '1' else 's'}"

    tiles = [(f"Mean {title}", number(of[MEAN]), escape(", ".join(f"{titles[r]} {number(of[r])}" for r in means.columns)))]
    full = full_subset(source.modalities)
    if full in rows.index and len(rows) > 1:
        tiles.append(("With all modalities", number(rows[full]), n(full)))
    worst = rows.idxmax() if metric in LOWER_IS_BETTER else rows.idxmin()
    if len(rows) > 1:
        tiles.append(("Hardest subset", number(rows[worst]), f"{escape(worst)}, {n(worst)}"))
    case = rank_cases(source, metric)[0]
    where = f"{titles[case.worst_region]} {number(case.worst * scale_of(metric))} with {case.worst_subset}"
    tiles.append(("Worst case", number(case.mean * scale_of(metric)), f"{case_link(case.name, embedded)}: {escape(where)}"))
    return '<div class="tiles">' + "".join(
        f'<div class="tile"><span class="label">{escape(label)}</span><span class="value">{value}</span>'
        f'<span class="detail">{detail or DASH}</span></div>' for label, value, detail in tiles) + "</div>\n"
