"""Chooses nnU-Net's reader for a data set from a file that can be read."""
from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout

from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.reader_writer_registry import LIST_OF_IO_CLASSES, determine_reader_writer_from_dataset_json

from nnmiss.errors import NnmissError
from nnmiss.preprocessing.raw_dataset import RawCase
from nnmiss.preprocessing.whole_file import why_not_whole

FILES_TRIED = 5


def choose_reader(dataset_json: dict, cases: list[RawCase]) -> type[BaseReaderWriter]:
    """The reader that nnU-Net would choose for the data set, tried on the first readable files.

    nnU-Net tries one file only and would, if just that one is broken, name the reader as the culprit.

    Raises:
        NnmissError: none of nnU-Net's readers knows the file ending, or none can read the files tried.
    """
    ending = dataset_json["file_ending"].lower()
    if not any(ending in r.supported_file_endings for r in LIST_OF_IO_CLASSES):
        endings = sorted({e for r in LIST_OF_IO_CLASSES for e in r.supported_file_endings})
        raise NnmissError(f'dataset.json: nnU-Net cannot read "file_ending" {ending!r}. It reads {", ".join(endings)}')
    files = [f for case in cases for f in case.files.values()]
    whole = [f for f in files[: 10 * FILES_TRIED] if why_not_whole(f) is None]
    readers, found = [r for r in LIST_OF_IO_CLASSES if ending in r.supported_file_endings], []
    for file in (whole or files)[:FILES_TRIED]:
        try:
            with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
                found.append(determine_reader_writer_from_dataset_json(dataset_json, file, verbose=False))
        except Exception:  # whatever a reader raises: the next file decides, and the bad one is named by read_case
            continue
        if found[-1] not in readers[1:]:  # nnU-Net's first choice; a later one may be due to this file alone
            return found[-1]
    if found:
        return min(found, key=readers.index)
    tried = ", ".join((whole or files)[:FILES_TRIED]) or "no image files were found"
    raise NnmissError(f"none of nnU-Net's readers for {ending} can open the images ({tried})")
