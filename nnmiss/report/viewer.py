"""The part of a report that shows cases: images with truth and predictions side by side, all data inside the page."""
from __future__ import annotations

import base64
import html
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nnmiss.errors import NnmissError
from nnmiss.report.viewer_arrays import halved, nifti_bytes
from nnmiss.report.viewer_images import CaseVolumes, ViewerCase, read_case_volumes

ASSETS = Path(__file__).parent / "assets"
NIIVUE = "niivue.umd.js.gz"
FALLBACK_COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0),
                    (204, 121, 167), (153, 153, 153))  # Okabe and Ito: told apart with any kind of colour vision
MEGABYTE = 1_000_000
SECTION = '<section id="viewer" aria-labelledby="viewer-title">'
INDEX_ROOM = 2_000  # bytes kept free for what the index says about a case; its names are counted besides

Colours = dict[int, tuple[str, tuple[int, int, int]]]


@dataclass
class ViewerSection:
    """What the report puts into its page.

    Attributes:
        html: one <section id="viewer"> with style, script and data inside.
        notes: what was left out or reduced, and why; they also stand in the section.
        cases: names of the cases that a link with data-case can open.
    """

    html: str
    notes: list[str] = field(default_factory=list)
    cases: list[str] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        """Its size in the page."""
        return len(self.html.encode())


def viewer_section(cases: list[ViewerCase], max_bytes: int, colours: Colours | None = None,
                   modalities: Sequence[str] = ()) -> ViewerSection:
    """Puts the viewer and as many of `cases` into a page as `max_bytes` have room for, in their order.

    A case that does not fit gets images of half the resolution, or is left out; so is one without a readable image.

    Args:
        cases: what to show; see ViewerCase.
        max_bytes: upper bound of the section's size.
        colours: label -> (name, red, green, blue of 0 to 255); labels that it lacks get a colour of their own.
        modalities: of the data set, in channel order; those that only cases or subsets name follow.
    """
    program = _program()
    notes: list[str] = []
    blocks: dict[str, str] = {}
    entries: list[dict] = []
    labels: set[int] = set(colours or ())
    room, limit = max_bytes - len(program) - 10_000, f"the limit of {max_bytes / MEGABYTE:.3g} MB"
    halves: list[int] = []  # sizes of cases at half the resolution
    for case in cases:
        if room < min(halves, default=INDEX_ROOM):  # reading one more, which takes seconds, would hardly help
            notes.append(f"case {case.name} is not shown: it does not fit into what is left of {limit}")
            continue
        try:
            volumes = read_case_volumes(case)
        except NnmissError as error:
            notes.append(str(error))
            continue
        entry, of_case = _entry(volumes, case, len(entries), room)
        size = _size(entry, of_case)
        halves += [size] if entry["halved"] else []
        if size > room:
            notes.append(f"case {case.name} is not shown: it does not fit into {limit}, even with images of half the "
                         "resolution")
            continue
        if entry["halved"]:
            notes.append(f"case {case.name}: images are shown at half the resolution (labels at the full one) to stay "
                         f"within {limit}")
        notes += volumes.notes
        labels |= volumes.labels()
        entries.append(entry)
        blocks.update(of_case)
        room -= size
    if not entries:
        return _without_cases(notes or ["no case with images was found"])
    index = {"cases": entries, "colours": _colour_list(labels, colours or {}), "modalities": _modalities(modalities, cases)}
    names = [e["name"] for e in entries]
    return ViewerSection(_page_part(program, index, blocks, _sizes(blocks, notes), notes), notes, names)


def _entry(volumes: CaseVolumes, case: ViewerCase, k: int, room: int) -> tuple[dict, dict[str, str]]:
    """Index entry and data blocks of a case, with images of half the resolution where there is no room for the full one."""
    label_blocks: dict[str, str] = {}
    gt, predictions = None, {}
    if volumes.gt is not None:
        gt = f"viewer-{k}-gt"
        label_blocks[gt] = _text(volumes.gt, volumes.affine, is_label_map=True)
    for method, of_method in volumes.predictions.items():
        for subset, array in of_method.items():
            block = f"viewer-{k}-p{len(label_blocks)}"
            label_blocks[block] = _text(array, volumes.affine, is_label_map=True)
            score = case.scores.get(method, {}).get(subset, "")
            predictions.setdefault(method, {})[subset] = {"block": block, "score": score}
    entry = {"name": volumes.name, "images": {}, "gt": gt, "predictions": predictions,
             "shape": next(iter(volumes.images.values())).shape, "focus": volumes.focus_mm, "halved": False}
    for is_halved in (False, True):
        blocks = dict(label_blocks)
        for i, (modality, array) in enumerate(volumes.images.items()):
            entry["images"][modality] = f"viewer-{k}-i{i}"
            image = halved(array, volumes.affine) if is_halved else (array, volumes.affine)
            blocks[f"viewer-{k}-i{i}"] = _text(*image)
        entry["halved"] = is_halved
        if _size(entry, blocks) <= room:
            break
    return entry, blocks


def _text(array: np.ndarray, affine: np.ndarray, is_label_map: bool = False) -> str:
    return base64.b64encode(nifti_bytes(array, affine, is_label_map)).decode()


def _size(entry: dict, blocks: dict[str, str]) -> int:
    """Bytes of a case in the page, rounded up."""
    return INDEX_ROOM + len(_json(entry)) + sum(len(text) + 100 for text in blocks.values())


def _modalities(known: Sequence[str], cases: list[ViewerCase]) -> list[str]:
    """The known modalities, then those of images, then those that only a subset's name tells."""
    named = [*known]
    named += [m for case in sorted(cases, key=lambda c: -len(c.images)) for m in case.images]
    named += [m for case in cases for of_method in case.predictions.values() for s in of_method for m in s.split("+")]
    return list(dict.fromkeys(named))


def _colour_list(labels: set[int], colours: Colours) -> list[dict]:
    """Label, name and colour of all labels for the page, in their order."""
    unnamed = sorted(labels - set(colours))
    extra = {label: (f"label {label}", FALLBACK_COLOURS[k % len(FALLBACK_COLOURS)]) for k, label in enumerate(unnamed)}
    known = {**colours, **extra}
    return [{"label": label, "name": known[label][0], "rgb": list(known[label][1])} for label in sorted(labels)]


def _sizes(blocks: dict[str, str], notes: list[str]) -> str:
    cases = len({b.split("-")[1] for b in blocks})
    size = sum(map(len, blocks.values())) / MEGABYTE
    return (f"{cases} case{'s' if cases > 1 else ''} in this page ({size:.2g} MB), cut to the brain; intensities are "
            "windowed to 256 levels between the 0.5th and 99.5th percentile of the brain.")


def _program() -> str:
    """NiiVue and the viewer's script and style as they stand in the page."""
    packed = base64.b64encode((ASSETS / NIIVUE).read_bytes()).decode()
    style = (ASSETS / "viewer.css").read_text(encoding="utf-8")
    script = (ASSETS / "viewer.js").read_text(encoding="utf-8")
    return f"<style>\n{style}</style>\n{_block('viewer-niivue', packed)}\n<script>\n{script}</script>\n"


def _json(content: dict | list) -> str:
    """JSON that may stand in a <script>: no '<', hence neither '</script>' nor '<!--'."""
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def _block(name: str, text: str, kind: str = "text/plain") -> str:
    return f'<script type="{kind}" id="{name}">{text}</script>'


def _notes_list(notes: list[str]) -> str:
    if not notes:
        return ""
    items = "".join(f"<li>{html.escape(note)}</li>" for note in notes)
    return f'<ul class="viewer-notes">{items}</ul>\n'


def _without_cases(notes: list[str]) -> ViewerSection:
    said = f'<h2 id="viewer-title">Images</h2>\n<p>No case can be shown:</p>\n{_notes_list(notes)}'
    return ViewerSection(f"{SECTION}\n{said}</section>\n", notes)


def _page_part(program: str, index: dict, blocks: dict[str, str], sizes: str, notes: list[str]) -> str:
    """The section. The index is a script of its own, so that names in it cannot break the page."""
    data = "\n".join(_block(name, text) for name, text in blocks.items())
    skeleton = (ASSETS / "viewer.html").read_text(encoding="utf-8")
    return (f'{SECTION}\n{skeleton}<p class="viewer-sizes">{html.escape(sizes)}</p>\n{_notes_list(notes)}'
            f"{_block('viewer-index', _json(index), 'application/json')}\n{data}\n{program}</section>\n")
