"""Finds the images and reads the titles of UPMC Food-101."""
from __future__ import annotations

from pathlib import Path

import pandas as pd

from nnmiss.errors import NnmissError

PARTS = ("train", "test")
IMAGES = (".jpg", ".jpeg", ".png")


def find_images(root: Path) -> dict[str, tuple[str, str, Path]]:
    """Name without ending -> (part, class, file), of images/PART/CLASS/NAME.jpg. Raises NnmissError for none, or twice."""
    found: dict[str, tuple[str, str, Path]] = {}
    for part in PARTS:
        for path in sorted((root / "images" / part).glob("*/*")):
            if path.suffix.lower() in IMAGES:
                if path.stem in found:
                    raise NnmissError(f"{path} and {found[path.stem][2]} have one name, which the titles are joined by")
                found[path.stem] = part, path.parent.name, path
    if not found:
        raise NnmissError(f"no images such as images/train/apple_pie/apple_pie_0.jpg in {root}: -i takes the folder that "
                          "holds images and texts")
    return found


def read_titles(root: Path) -> tuple[dict[str, tuple[str, str, str]], dict[str, str]]:
    """Name without ending -> (part, class, title), of texts/PART_titles.csv: lines of image,title,class, no header.

    Also name -> what is wrong, of names with two different lines, of which either could be the image's.

    Raises NnmissError when a file is absent or of another form.
    """
    found: dict[str, tuple[str, str, str]] = {}
    twice: dict[str, str] = {}
    for part in PARTS:
        path = root / "texts" / f"{part}_titles.csv"
        try:
            table = pd.read_csv(path, header=None, dtype=str, keep_default_na=False, encoding="utf-8")
        except FileNotFoundError:
            raise NnmissError(f"{path} does not exist: -i takes the folder that holds images and texts") from None
        except (ValueError, OSError) as error:  # pandas' own errors are ValueErrors
            raise NnmissError(f"{path} cannot be read as csv ({error})") from None
        if table.shape[1] != 3:
            raise NnmissError(f"{path} has {table.shape[1]} columns, expected image,title,class without a header")
        for image, title, label in table.itertuples(index=False):
            name, entry = Path(image.strip()).stem, (part, label.strip(), " ".join(title.split()))
            if found.setdefault(name, entry) != entry:
                twice[name] = f"it stands in {path} more than once or in another file too, as {entry[2]!r}"
    return {name: entry for name, entry in found.items() if entry[2]}, twice
