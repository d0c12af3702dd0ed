"""Converter of five feature blocks of the eICU demo: tables, three of them really missing for some stays."""
from __future__ import annotations

import argparse
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from nnmiss.atomic_files import write_text
from nnmiss.dataset_conversion.raw_cases import NUM_THREADS
from nnmiss.dataset_conversion.sample_folder import provenance_of, write_sample_dataset
from nnmiss.dataset_conversion.sample_summary import SampleSummary
from nnmiss.errors import NnmissError

DESCRIPTION = "hospital mortality from five feature blocks of the eICU demo (eicu_blocks.npz)"
DEFAULT_ID = 859

BLOCKS = ("aps", "demo", "treatment", "diagnosis", "history")  # channel order
CONTENT = {
    "description": "ICU stays of the eICU Collaborative Research Database Demo 2.0 with an APACHE IVa result; in-hospital "
                   "mortality from APACHE variables, demographics, and what was recorded in the first 24 hours of "
                   "treatments, diagnoses and past history. Stays without any such record lack the modality.",
    "licence": "ODbL 1.0",
    "reference": "Pollard et al., Scientific Data 2018, doi:10.1038/sdata.2018.178",
    "task": "binary",
    "labels": {"0": "survived", "1": "died"},
    "plan": {"batch_size": 64, "feature_dim": 32, "head": {"hidden": [32], "dropout": 0.5}},
}


@dataclass(frozen=True)
class Options:
    """Choices of this converter; the fields are the command's flags.

    Attributes:
        name: of the data set, as in Dataset859_EICUBlocks.
        num_threads, disable_progress_bar: accepted as by all converters; this one is done in a second.
        overwrite: replace a data set of the same id and name.
    """

    name: str = "EICUBlocks"
    num_threads: int = NUM_THREADS
    disable_progress_bar: bool = False
    overwrite: bool = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that become `Options`."""
    parser.add_argument("--name", default=Options.name, help="name of the data set (default %(default)s)")


def convert(sources: Sequence[str | os.PathLike], output: str | os.PathLike, dataset_id: int,
            options: Options) -> SampleSummary:
    """Writes eicu_blocks.npz as a data set of five tables, grouped by patient, without a split of its own.

    A stay is in a table when its block holds any record of it; a missing value inside a row stays an empty cell.
    Raises NnmissError when the file is not there or not of this form, and as `write_sample_dataset`.
    """
    path = _find(sources)
    arrays = _read(path)
    ids = arrays["ids"].astype(str)
    manifest = pd.DataFrame({"sample_id": ids, "subject_id": arrays["patient"].astype(str),
                             "label": arrays["mortality"].astype(int)})
    content = {**CONTENT, "modalities": {
        block: {"type": "table", "file": f"tables/{block}.csv", "scaling": "zscore",
                "columns": dict.fromkeys(arrays[f"{block}_names"].astype(str).tolist(), "numeric")}
        for block in BLOCKS}}

    def fill(folder: Path) -> None:
        (folder / "tables").mkdir()
        for block in BLOCKS:
            table = pd.DataFrame(arrays[block], ids, arrays[f"{block}_names"].astype(str))
            text = table[arrays[f"{block}_present"]].to_csv(index_label="sample_id", lineterminator="\n")
            write_text(folder / "tables" / f"{block}.csv", text)

    return write_sample_dataset(output, dataset_id, options.name, content, manifest, fill, overwrite=options.overwrite,
                                provenance=provenance_of("eicu_blocks", [path], options))


def _find(sources: Sequence[str | os.PathLike]) -> Path:
    """The one file that `-i` names: eicu_blocks.npz itself or the folder that holds it."""
    if len(sources) != 1:
        raise NnmissError(f"-i takes one source, eicu_blocks.npz or the folder that holds it, got {len(sources)}")
    path = Path(sources[0])
    path = path / "eicu_blocks.npz" if path.is_dir() else path
    if not path.is_file():
        raise NnmissError(f"{path} does not exist: -i takes eicu_blocks.npz or the folder that holds it")
    return path


def _read(path: Path) -> dict[str, np.ndarray]:
    """The arrays of the file. Raises NnmissError when one is absent, of another length, or the labels are not 0/1."""
    try:
        with np.load(path, allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files}
    except (OSError, ValueError, EOFError, TypeError, AttributeError, zipfile.BadZipFile) as error:  # TypeError: a .npy
        raise NnmissError(f"{path} cannot be read as an npz without Python objects ({error}): make it again") from None
    wanted = ["ids", "patient", "mortality", *(f"{b}{part}" for b in BLOCKS for part in ("", "_names", "_present"))]
    lacking = [name for name in wanted if name not in arrays]
    if lacking:
        raise NnmissError(f"{path} lacks the arrays {', '.join(lacking)}: expected those of eicu_blocks.npz")
    stays = len(arrays["ids"])
    for name in wanted:
        length = arrays[name[:-6]].shape[-1] if name.endswith("_names") else stays
        if len(arrays[name]) != length:
            raise NnmissError(f"{path}: {name} has {len(arrays[name])} entries, expected {length}")
    if not np.isin(arrays["mortality"], (0, 1)).all():
        raise NnmissError(f"{path}: mortality may hold 0 and 1 only, got {np.unique(arrays['mortality'])[:5]}")
    return arrays
