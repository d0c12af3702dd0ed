"""Pieces of HTML: escaped text, numbers, tables with scopes, notes. Everything that comes from outside is escaped here."""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from math import isfinite

from nnmiss.availability import Present

DASH = "\u2013"  # en dash: undefined
MINUS = "\u2212"


@dataclass(frozen=True)
class Section:
    """A part of the page: the anchor that the contents link to, its title (text) and its body (HTML)."""

    anchor: str
    title: str
    body: str
    missing: tuple[str, ...] = ()
    """Sentences on what it should show and cannot, which also stand at the top of the page."""

    def html(self) -> str:
        """The <section> with its heading."""
        return (f'<section id="{escape(self.anchor)}" aria-labelledby="{escape(self.anchor)}-title">\n'
                f'<h2 id="{escape(self.anchor)}-title">{escape(self.title)}</h2>\n{self.body}\n</section>\n')


def number(value: float | None, digits: int = 1) -> str:
    """'85.1', with a true minus; a dash for None, NaN and infinities."""
    return f"{value:.{digits}f}".replace("-", MINUS) if value is not None and isfinite(value) else DASH


def count(value: int, noun: str, nouns: str | None = None) -> str:
    """'1 case', '1,000 cases'."""
    return f"{value:,} {noun if value == 1 else nouns or noun + 's'}"


def size_text(bytes_: int) -> str:
    """'41 MB', '0.8 MB', '12 kB'."""
    if bytes_ >= 950_000:
        return f"{bytes_ / 1e6:.0f} MB" if bytes_ >= 9.5e6 else f"{bytes_ / 1e6:.1f} MB"
    return f"{bytes_ / 1e3:.0f} kB"


def tag(name: str, content: str = "", **attributes: object) -> str:
    """An element around `content` (HTML already); attribute values are escaped, None leaves one out.

    Underscores in attribute names become dashes, a trailing one is dropped (`class_`, `data_case`).
    """
    written = "".join(f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
                      for key, value in attributes.items() if value is not None)
    return f"<{name}{written}>{content}</{name}>"


def paragraph(text: str, class_: str | None = None) -> str:
    """A paragraph of plain text."""
    return tag("p", escape(text), class_=class_)


def bullets(texts: Iterable[str]) -> str:
    """A list of plain texts."""
    return tag("ul", "".join(tag("li", escape(text)) for text in texts), class_="notes")


def circles(present: Present, modalities: list[str]) -> list[str]:
    """A table cell per modality: a filled circle where it is there, an open one where not, both said in words."""
    return [tag("td", tag("span", "●" if there else "○", role="img", class_="there" if there else "lacking",
                          aria_label=f"{name}: {'there' if there else 'missing'}"), class_="circle")
            for there, name in zip(present, modalities)]


def head(text: str, scope: str = "col", class_: str | None = None, colspan: int | None = None,
         rowspan: int | None = None) -> str:
    """A header cell of plain text."""
    return tag("th", escape(text), scope=scope, class_=class_, colspan=colspan, rowspan=rowspan)


def cell(text: str, class_: str | None = "number") -> str:
    """A cell of plain text, by default a number."""
    return tag("td", escape(text), class_=class_)


def shaded(text: str, share: float | None) -> str:
    """A number's cell on the colour scale; `share` is 0 (worst of the table) to 1 (best), None without a colour."""
    if share is None or not isfinite(share):
        return cell(text)
    return tag("td", escape(text), class_="number shaded", style=f"--share:{min(max(share, 0), 1):.3f}")


def table(caption: str, header: list[list[str]], rows: list[list[str]], footer: list[list[str]] | None = None,
          class_: str | None = None) -> str:
    """A table from cells (HTML), in a frame that scrolls by itself where the table is wider than the page."""
    def lines(part: list[list[str]]) -> str:
        return "".join(f"<tr>{''.join(cells)}</tr>\n" for cells in part)

    parts = [f"<caption><span>{escape(caption)}</span></caption>\n", f"<thead>{lines(header)}</thead>\n",
             f"<tbody>{lines(rows)}</tbody>\n"]
    parts += [f"<tfoot>{lines(footer)}</tfoot>\n"] if footer else []
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption[:80])}">' + tag(
        "table", "".join(parts), class_=class_) + "</div>\n"


def case_link(case: str, embedded: set[str], content: str | None = None) -> str:
    """The case's name, linking to the viewer where its images are in the page. `content` is HTML instead of the name."""
    text = escape(case) if content is None else content
    return tag("a", text, href="#viewer", data_case=case) if case in embedded else text


def folded(summary: str, body: str) -> str:
    """Something to unfold, for what few readers need. `body` is HTML."""
    return f"<details><summary>{escape(summary)}</summary>\n{body}\n</details>\n"
