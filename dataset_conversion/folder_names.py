"""The folders below a source, whether they hold files or not."""
from __future__ import annotations

import os
from pathlib import Path


def folder_names(source: Path) -> list[tuple[str, ...]]:
    """For every folder below `source` its name and those above it, sorted; as `nnmiss.nifti_files` walks.

    Hidden folders and __MACOSX are passed over; links are followed, but no folder is entered twice.
    """
    found, seen = [], set()
    for folder, below, _ in os.walk(source, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            below.clear()
            continue
        seen.add(real)
        below[:] = [name for name in below if not name.startswith(".") and name != "__MACOSX"]
        found += [(*Path(folder).relative_to(source).parts, name) for name in below]
    return sorted(found)
