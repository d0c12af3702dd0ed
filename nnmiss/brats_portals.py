"""In what the portals of the BraTS years differ, whatever the challenge; sources: reference/brats_validation.md."""
from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Portal:
    """What the upload of a year is like, the same in all its challenges.

    Attributes:
        archive: takes one zip or tar, and refuses all of it for one file of another kind; IPP took the files themselves.
        folders: what it does with folders inside the archive.
        passed_over: a file whose path holds one of these is left out.
        fixed_shape: its validator has the shape in its code, and does not look at the case's image.
        tolerance: of origin, spacing and direction where the geometry is "reference".
    """

    archive: bool = True
    folders: str = "reads through folders"
    passed_over: tuple[str, ...] = (".idea",)
    fixed_shape: bool = False
    tolerance: float = 0.0


PORTALS = {
    **dict.fromkeys((2018, 2019, 2020), Portal(archive=False, passed_over=())),
    2021: Portal(passed_over=()),
    **dict.fromkeys((2023, 2024), Portal(fixed_shape=True)),
    2025: Portal(folders="drops the folders"),
    2026: Portal(folders="drops the folders", tolerance=1e-5),  # panoptica's
}
