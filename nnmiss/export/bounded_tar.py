"""Opens tars, compressed or not, whose headers cannot make tarfile read or keep more than a little."""
from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
from pathlib import Path
from typing import BinaryIO

MAX_READ = 2**17  # bytes at once: tarfile reads the whole of a header that says how long a name is, of any size
COMPRESSIONS = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}  # of tars, by how they begin


class _InBounds:
    """A file of which at most MAX_READ bytes can be read at once."""

    def __init__(self, file: BinaryIO):
        self.file, self.tell, self.seek, self.close = file, file.tell, file.seek, file.close

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MAX_READ:
            raise tarfile.TarError(f"a header of {size} bytes")
        return self.file.read(size)


def open_tar(path: Path) -> tarfile.TarFile:
    """The caller closes it and its `fileobj`. Raises tarfile.TarError when it is none, and whatever decompression does."""
    with open(path, "rb") as file:
        start = file.read(6)
    opener = next((opener for magic, opener in COMPRESSIONS.items() if start.startswith(magic)), open)
    file = _InBounds(opener(path, "rb"))
    try:
        return tarfile.open(fileobj=file, mode="r:")
    except BaseException:
        file.close()
        raise
