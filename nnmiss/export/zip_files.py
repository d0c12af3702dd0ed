"""Flat zip archives that are the same byte for byte when their files are."""
from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

from nnmiss.atomic_files import replacing

NO_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that zip can say


def write_flat_zip(path: Path, files: list[Path]) -> str:
    """Writes files, sorted by name, at the top level of a zip (stored: they are compressed already).

    Atomic. Returns the archive's sha256 in hexadecimal.
    """
    with replacing(path, ".zip") as temporary:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            for file in sorted(files, key=lambda f: f.name):
                entry = zipfile.ZipInfo(file.name, NO_DATE)
                entry.create_system, entry.external_attr = 3, 0o644 << 16  # the same on every system
                archive.writestr(entry, file.read_bytes())
        with open(temporary, "rb") as written:
            digest = hashlib.sha256()
            while block := written.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
