"""Matplotlib figures as SVG inside the page: own ids, colours that follow light and dark, links to cases."""
from __future__ import annotations

import io
import re
from html import escape

import matplotlib
from matplotlib.figure import Figure

COLOURS = {"#000000": "var(--ink)", "#222222": "var(--ink)", "#ffffff": "var(--surface)", "#d0d0d0": "var(--line)",
           "#0072b2": "var(--blue)"}
NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))
LINK = "#case:"  # what `set_urls` gets in front of a case's number, see `inline_svg`


def inline_svg(figure: Figure, prefix: str, alt: str, cases: list[tuple[str, str, str | None]] = ()) -> str:
    """The figure as an <svg> element for the middle of an HTML page, nothing of it referring to anything outside.

    Args:
        prefix: put before every id, so that no two figures of a page share one.
        alt: what the figure shows, for those who do not see it.
        cases: (case, tooltip, target) by number: an element with url LINK + number links to it. The target is "viewer",
            an anchor of the page without '#', or None for a tooltip alone.

    Texts and lines in the figures' ink follow the page's, so that they are legible in light and dark mode.
    """
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": prefix}):
        figure.savefig(buffer, format="svg", transparent=True, metadata=NO_METADATA)
    text = buffer.getvalue()
    text = text[text.index("<svg"):]
    text = re.sub(r"<style.*?</style>|<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' (xmlns(:\w+)?|version|target)="[^"]*"', "", text).replace("xlink:href", "href")
    text = re.sub(r'(?<= )(d|x|y|transform)="[^"]*"', lambda m: _rounded(m[0]), text)
    text = re.sub(r"font-family: [^;\"]*;? ?", "", text)
    text = _own_ids(text, prefix)
    text = re.sub(r"<(?!text)[^>]*>", lambda m: _page_colours(m[0]), text)
    text = re.sub(rf'<a href="{LINK}(\d+)">\s*(.*?)\s*</a>', lambda m: _linked(m[2], *cases[int(m[1])]), text,
                  flags=re.DOTALL)
    width = float(re.search(r'viewBox="0 0 (\S+)', text)[1])
    return re.sub(r'<svg width="\S+" height="\S+"', '<svg class="drawing" role="img" '
                  f'style="--width:{width / 72 * 96:.0f}px" aria-label="{escape(alt)}"', text, count=1).strip()


def figure_html(figure: Figure, prefix: str, alt: str, caption: str,
                cases: list[tuple[str, str, str | None]] = ()) -> str:
    """The SVG in a <figure> with its caption (plain text)."""
    return (f'<figure id="{prefix}"><div class="scroll" tabindex="0" role="region" aria-label="{escape(alt[:80])}">'
            f"{inline_svg(figure, prefix, alt, cases)}</div>"
            f"<figcaption>{escape(caption)}</figcaption></figure>\n")


def _rounded(attribute: str) -> str:
    """Two decimals are a fiftieth of a pixel; matplotlib writes six."""
    return re.sub(r"(\d+\.\d\d)\d+", r"\1", attribute).replace("\n", "")


def _own_ids(text: str, prefix: str) -> str:
    """Drops ids that nothing refers to and puts the prefix before the others, in references too."""
    used = set(re.findall(r'url\(#([^)]+)\)', text)) | set(re.findall(r'href="#([^":]+)"', text))
    text = re.sub(r' id="([^"]*)"', lambda m: f' id="{prefix}-{m[1]}"' if m[1] in used else "", text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", text)
    return re.sub(r'href="#([^":]+)"', rf'href="#{prefix}-\1"', text)


def _page_colours(element: str) -> str:
    for colour, variable in COLOURS.items():
        element = element.replace(f": {colour}", f": {variable}")
    return element


def _linked(content: str, case: str, tooltip: str, target: str | None) -> str:
    """Points are too many to be stepped through by keyboard; the table of cases has the same links."""
    inner = f"<g>{content}<title>{escape(tooltip)}</title></g>"
    if target is None:
        return inner
    data = f' data-case="{escape(case)}"' if target == "viewer" else ""
    return f'<a href="#{escape(target)}"{data} tabindex="-1">{inner}</a>'
