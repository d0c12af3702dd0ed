"""Names and colours of labels, and the colour tables that ITK-SNAP and 3D Slicer read, beside predictions."""
from __future__ import annotations

from pathlib import Path

from matplotlib import colormaps

from nnmiss.atomic_files import write_text
from nnmiss.brats_years import canonical_label
from nnmiss.errors import NnmissError
from nnmiss.export.label_names import label_names

RGB = tuple[int, int, int]

# Edema green, core red and enhancing yellow as in most BraTS figures, in the shades of Okabe and Ito (2008), which
# people with a colour vision deficiency can tell apart too.
COLOURS: dict[str, RGB] = {
    "ed": (0, 158, 115),  # bluish green
    "ncr": (213, 94, 0),  # vermilion
    "et": (240, 228, 66),  # yellow
    "cc": (86, 180, 233),  # sky blue
    "rc": (0, 114, 178),  # blue
    "gtv": (204, 121, 167),  # reddish purple
}
LONG_NAMES = {"ed": "edema", "ncr": "necrotic core", "et": "enhancing tumor", "cc": "cystic component",
              "rc": "resection cavity", "gtv": "gross tumor volume"}
IGNORE: RGB = (128, 128, 128)

ITKSNAP_FILE, SLICER_FILE = "labels_itksnap.txt", "labels_slicer.ctbl"
ITKSNAP_HEADER = """\
################################################
# ITK-SnAP Label Description File
# File format:
# IDX   -R-  -G-  -B-  -A--  VIS MSH  LABEL
# Fields:
#    IDX:   Zero-based index
#    -R-:   Red color component (0..255)
#    -G-:   Green color component (0..255)
#    -B-:   Blue color component (0..255)
#    -A-:   Label transparency (0.00 .. 1.00)
#    VIS:   Label visibility (0 or 1)
#    MSH:   Label mesh visibility (0 or 1)
#  LABEL:   Label description
################################################
"""


def label_colours(dataset_json: dict) -> dict[int, tuple[str, RGB]]:
    """Integer in the data set's label files -> (name, (red, green, blue) from 0 to 255), ascending, without background.

    Names are canonical ("ed", "ncr", "et", "cc", "rc", "gtv") where dataset.json says or implies them
    (nnmiss.export.label_names), else the data set's own: the label; of regions the innermost one that holds the integer,
    as "rest of REGION" when further regions lie in it; "label 2" where that does not tell integers apart. Labels without
    a fixed colour take matplotlib's tab10 in order (tab20 beyond ten).

    Raises NnmissError when "labels" is no map of names to integers or lists of them.
    """
    try:
        names = {value: name for name, value in label_names(dataset_json).items()}
    except NnmissError:
        names = _own_names(dataset_json)
    fixed = {value: COLOURS[label] for value, name in names.items() if (label := canonical_label(name)) in COLOURS}
    ignore = _members(dataset_json).get("ignore", set())
    names |= dict.fromkeys(ignore, "ignore")
    fixed |= dict.fromkeys(ignore, IGNORE)
    others = [value for value in sorted(names) if value not in fixed]
    palette = colormaps["tab10" if len(others) <= 10 else "tab20"].colors
    free = {value: _rgb(palette[i % len(palette)]) for i, value in enumerate(others)}
    return {value: (names[value], fixed.get(value) or free[value]) for value in sorted(names)}


def write_colour_tables(folder: str | Path, dataset_json: dict) -> list[Path]:
    """Writes labels_itksnap.txt and labels_slicer.ctbl for segmentations in `folder`; returns their paths.

    ITK-SNAP: Segmentation > Import Label Descriptions, or `itksnap -l`. 3D Slicer: add it as data, as a colour table.
    """
    labels = {value: (_long(name), rgb) for value, (name, rgb) in label_colours(dataset_json).items()}
    itksnap, slicer = Path(folder) / ITKSNAP_FILE, Path(folder) / SLICER_FILE
    write_text(itksnap, itksnap_table(labels))
    write_text(slicer, slicer_table(labels))
    return [itksnap, slicer]


def itksnap_table(labels: dict[int, tuple[str, RGB]]) -> str:
    """A label description file: rows IDX R G B A VIS MSH "LABEL", with the clear label 0."""
    rows = [(0, (0, 0, 0), 0, "Clear Label"), *((value, rgb, 1, name) for value, (name, rgb) in labels.items())]
    return ITKSNAP_HEADER + "".join(
        f"{value:5d}  " + "".join(f"{c:5d}" for c in rgb) + f"{shown:9d}{shown:3d}{shown:3d}    \"{_quoted(name)}\"\n"
        for value, rgb, shown, name in rows)


def slicer_table(labels: dict[int, tuple[str, RGB]]) -> str:
    """A colour table: rows index name red green blue opacity; blanks in names are underscores."""
    rows = [(0, "Background", (0, 0, 0), 0), *((value, name, rgb, 255) for value, (name, rgb) in labels.items())]
    return f"# Color table file {SLICER_FILE}\n# {len(rows)} values\n" + "".join(
        f"{value} {_quoted(name).replace(' ', '_')} {rgb[0]} {rgb[1]} {rgb[2]} {opacity}\n"
        for value, name, rgb, opacity in rows)


def _members(dataset_json: dict) -> dict[str, set[int]]:
    """Name -> its integers, without 0. Raises NnmissError for other forms."""
    labels = dataset_json.get("labels")
    try:
        found = {str(name): {int(v) for v in (value if isinstance(value, list | tuple) else [value])} - {0}
                 for name, value in labels.items()}
    except (AttributeError, TypeError, ValueError):
        raise NnmissError(f'dataset.json: "labels" must map names to integers or lists of them, got {labels!r}') from None
    return {name: members for name, members in found.items() if members}


def _own_names(dataset_json: dict) -> dict[int, str]:
    """Integer -> the data set's own name for it, see label_colours."""
    sets = {name: members for name, members in _members(dataset_json).items() if name != "ignore"}
    names: dict[int, str] = {}
    for value in sorted(set().union(*sets.values())):
        holding = sorted((name for name in sets if value in sets[name]), key=lambda name: len(sets[name]))
        innermost = holding[0]
        inside = set().union(*(m for m in sets.values() if m < sets[innermost]))
        if sets[innermost] == {value}:
            names[value] = innermost
        else:
            names[value] = f"rest of {innermost}" if sets[innermost] - inside == {value} else f"label {value}"
    return names


def _long(name: str) -> str:
    return f"{LONG_NAMES[name]} ({name})" if name in LONG_NAMES else name


def _quoted(name: str) -> str:
    """A name that may stand between double quotes on one line."""
    return " ".join(name.replace('"', "'").split())


def _rgb(colour: tuple[float, float, float]) -> RGB:
    red, green, blue = (round(255 * c) for c in colour[:3])
    return red, green, blue
