"""Hands the chosen cases' files to the viewer, and says what could not be shown."""
from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING

from nnmiss.errors import NnmissError
from nnmiss.evaluation.conventions import metric_title, scale_of
from nnmiss.evaluation.tables import ordered_regions
from nnmiss.report.dataset_files import Places, predictions_of
from nnmiss.report.html_text import bullets, count, number, paragraph, size_text
from nnmiss.report.sources import Source

if TYPE_CHECKING:
    from nnmiss.report.viewer_images import ViewerCase

VIEWABLE = (".nii.gz", ".nii")


@dataclass
class ViewerPart:
    """HTML of the viewer with its heading, the cases it holds, and what the page says is absent."""

    html: str = ""
    embedded: set[str] = field(default_factory=set)
    missing: list[str] = field(default_factory=list)
    bytes: int = 0


def viewer_part(sources: list[Source], places: Places, cases: list[str], max_bytes: int) -> ViewerPart:
    """Makes the viewer of the cases whose images are found.

    Args:
        cases: names in the order in which the viewer lists them.
        max_bytes: what the viewer may take.

    Never raises for files that are absent or damaged: a report is useful without images.
    """
    if not places.file_ending.endswith(VIEWABLE):
        return ViewerPart(missing=[f"Images are not shown: the viewer reads NIfTI, these are {places.file_ending}."])
    found, missing = collect_cases(sources, places, cases)
    if not found:
        return ViewerPart(missing=missing)
    try:
        made = _make(found, max_bytes, _colours(sources), sources[0].modalities)
    except (NnmissError, OSError) as error:
        return ViewerPart(missing=[*missing, f"Images are not shown: {error}"])
    if not made.cases:
        return ViewerPart(made.html, missing=[*missing, *made.notes], bytes=made.bytes)
    everyone = {case for source in sources for case in source.cases}
    said = f"Images of {len(made.cases):,} of {count(len(everyone), 'case')} are here, {size_text(made.bytes)} with the "
    said += "viewer; others by name with --cases." if len(made.cases) < len(everyone) else "viewer."
    about = paragraph(said, "note") + (bullets(missing) if missing else "")
    return ViewerPart(made.html.replace("</h2>", f"</h2>\n{about}", 1), set(made.cases), [*missing, *made.notes],
                      made.bytes)


def collect_cases(sources: list[Source], places: Places, cases: list[str]) -> tuple[list[ViewerCase], list[str]]:
    """The files of each case that has any image, and a sentence for each that has none."""
    from nnmiss.report.viewer_images import ViewerCase

    missing, predicted = [], {}
    for source in sources:
        predicted[source.name], reason = predictions_of(source, places.file_ending)
        missing += [f"No segmentations are shown of {reason}."] if reason else []
    found, without = [], []
    for case in cases:
        images = places.images_of(case, sources[0].modalities)
        of_case = {name: by_case[case] for name, by_case in predicted.items() if case in by_case}
        if images:
            found.append(ViewerCase(case, images, places.gt_of(case), of_case, scores_of(sources, case)))
        else:
            without.append(case)
    if without:
        missing.append(f"No images of {', '.join(without)} were found: set nnUNet_raw, or say where they are with --images "
                       f"FOLDER (nnU-Net's CASE_0000{places.file_ending}).")
    lacking = [case.name for case in found if case.gt is None]
    if lacking:
        missing.append(f"No ground truth of {', '.join(lacking)} was found: say where it is with --gt FOLDER.")
    return found, missing


def scores_of(sources: list[Source], case: str) -> dict[str, dict[str, str]]:
    """Method -> subset -> 'Dice (%): WT 85.1, TC 70.2', which the viewer shows beside a prediction."""
    said: dict[str, dict[str, str]] = {}
    for source in sources:
        metric, titles = source.main_metric, ordered_regions(source.regions)
        rows = source.results[(source.results["case"] == case) & (source.results["metric"] == metric)]
        for subset, of_subset in rows.groupby("subset"):
            values = of_subset.set_index("region")["value"] * scale_of(metric)
            texts = [f"{title} {number(values[region])}" for region, title in titles.items() if region in values.index]
            said.setdefault(source.name, {})[subset] = f"{metric_title(metric, source.conventions)}: {', '.join(texts)}"
    return said


def _colours(sources: list[Source]) -> dict[int, tuple[str, tuple[int, int, int]]]:
    """Label -> name and colour; the viewer chooses where no dataset.json is found."""
    from nnmiss.export.colour_tables import label_colours

    content = next((source.dataset_json for source in sources if source.dataset_json), None)
    return label_colours(content) if content else {}


def _make(cases: list[ViewerCase], max_bytes: int, colours: dict, modalities: list[str]):
    """The one call of the viewer; it is imported where it is needed, as it brings its scripts along."""
    from nnmiss.report.viewer import viewer_section

    return viewer_section(cases, max_bytes, colours, modalities)


def empty_viewer(missing: list[str]) -> str:
    """The section without a viewer, so that links and readers find out why."""
    return ('<section id="viewer" aria-labelledby="viewer-title">\n<h2 id="viewer-title">Images</h2>\n'
            + "".join(f"<p class=\"note\">{escape(text)}</p>\n" for text in missing) + "</section>\n")
