"""The whole page: what was evaluated and how, then results, cases, images, training, data; one file without references."""
from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import matplotlib

from nnmiss import __version__
from nnmiss.report.calibration_section import calibration_section
from nnmiss.report.case_choice import choose_cases, rank_cases
from nnmiss.report.case_plot import cases_body
from nnmiss.report.comparison_section import comparison_body, overview_table
from nnmiss.report.data_section import data_section
from nnmiss.report.dataset_files import Places, find_places, find_trainings
from nnmiss.report.html_text import Section, bullets, size_text
from nnmiss.report.page_top import header, tiles_html
from nnmiss.report.shared_results import shared_results
from nnmiss.report.sources import Source, read_sources
from nnmiss.report.subset_table import subset_body
from nnmiss.report.training_section import training_section
from nnmiss.report.viewer_part import ViewerPart, empty_viewer, viewer_part

ASSETS = Path(__file__).parent / "assets"
MEGABYTE = 1_000_000
SPARE = 20_000  # bytes kept free for what the viewer's notes add to the page's top


@dataclass
class Options:
    """What the command line asks for."""

    results: list[str]
    images: str | None = None
    gt: str | None = None
    cases: list[str] = field(default_factory=list)
    """Names, or one number; empty: worst, median and best."""
    max_mb: float = 60
    models: list[str] = field(default_factory=list)
    viewer: bool = True
    title: str | None = None


@dataclass
class Page:
    """The page and what its maker should know: results that could not be read, and what is absent from the page."""

    html: str
    problems: list[str]
    missing: list[str]
    embedded: int
    """Cases with images."""


def build_page(options: Options) -> Page:
    """Makes the page. Raises NnmissError when no results can be read, or a folder or case that was named is unknown."""
    sources, problems = read_sources(options.results)
    places = find_places(sources, options.images, options.gt)
    ranked = rank_cases(sources[0], sources[0].main_metric)
    everyone = {case for source in sources for case in source.cases}
    chosen = choose_cases(ranked, options.cases, everyone)
    with matplotlib.rc_context({"text.parse_math": False}), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of glyphs that matplotlib's font lacks: the reader's browser draws them
        trainings, missing = find_trainings(sources, options.models, places)
        rest = _sections_after(sources, trainings, missing, places)
        before = _sections_before(sources)
        hoped = set(chosen) if options.viewer else set()
        cases = Section("cases", "Case by case", cases_body(sources[0], hoped))

        def assembled(viewer: ViewerPart, missing: list[str]) -> str:
            title = options.title or f"Results of {', '.join(s.name for s in sources)}"
            contents = [(s.anchor, s.title) for s in (*before, cases, Section("viewer", "Images", ""), *rest)]
            body = [header(sources, places, title, problems, missing, contents), tiles_html(sources[0], viewer.embedded),
                    *(s.html() for s in (*before, cases)), viewer.html or empty_viewer(viewer.missing),
                    *(s.html() for s in rest), _footer(sources)]
            return _document(title, "".join(body), len(sources))

        lacking = [text for section in rest for text in section.missing]
        room = options.max_mb * MEGABYTE - SPARE - _size(assembled(ViewerPart(embedded=hoped), lacking))
        viewer = _viewer(sources, places, chosen, int(room), options.viewer)
        if viewer.embedded != hoped:  # other cases have links
            cases = Section("cases", "Case by case", cases_body(sources[0], viewer.embedded))
    missing = [*viewer.missing, *lacking]
    html = assembled(viewer, missing)
    if _size(html) > options.max_mb * MEGABYTE:
        missing.insert(0, f"The page takes {size_text(_size(html))}, above --max_mb {options.max_mb:g}: nothing but images "
                          "and their viewer is left out for its size.")
        html = assembled(viewer, missing)
    return Page(html, problems, missing, len(viewer.embedded))


def _sections_before(sources: list[Source]) -> list[Section]:
    """How good: by subset, and against other methods."""
    sections = []
    shared, notes = shared_results(sources)
    if len(sources) > 1:
        sections.append(Section("methods", "Methods", overview_table(sources)))
    sections.append(Section("subsets", "By available modalities", subset_body(sources, shared)))
    if len(sources) > 1:
        sections.append(Section("comparison", "Comparison", comparison_body(shared, notes)))
    return sections


def _sections_after(sources: list[Source], trainings: dict[str, list[Path]], missing: list[str],
                    places: Places) -> list[Section]:
    """With what: calibration, training, data."""
    return [calibration_section(sources), training_section(trainings, missing),
            data_section(sources[0], places.preprocessed)]


def _viewer(sources: list[Source], places: Places, chosen: list[str], max_bytes: int, wanted: bool) -> ViewerPart:
    if not wanted:
        return ViewerPart(missing=["Images were left out (--no_viewer)."])
    if not chosen:
        return ViewerPart(missing=["No case was chosen to show images of."])
    if max_bytes <= MEGABYTE:
        return ViewerPart(missing=["The page has no room for images: allow more with --max_mb."])
    return viewer_part(sources, places, chosen, max_bytes)


def _size(html: str) -> int:
    return len(html.encode("utf-8", "replace"))


def _footer(sources: list[Source]) -> str:
    folders = bullets(f"{s.name}: {s.folder}" for s in sources)
    return f"<footer><p>Made with nnmiss {escape(__version__)} from</p>{folders}</footer>\n"


def _document(title: str, body: str, methods: int) -> str:
    style = (ASSETS / "report.css").read_text(encoding="utf-8")
    style += "".join(f".methods:has(#choose-{i}:checked) #method-{i} {{ display: block; }}\n" for i in range(methods))
    return ('<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n{body}</main>\n</body>\n</html>\n")
