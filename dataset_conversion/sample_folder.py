"""Writes what a converter found as the raw folder of a classification data set: dataset.json, manifest.csv and files."""
from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Real
from pathlib import Path

import numpy as np
import pandas as pd

from nnmiss import __version__
from nnmiss.atomic_files import replacing, write_json, write_text
from nnmiss.classification.description import parse_description
from nnmiss.dataset_conversion.raw_folder import new_dataset_folder
from nnmiss.dataset_conversion.sample_summary import LEFT_OUT, PARTS, SampleSummary
from nnmiss.errors import NnmissError, shortened

Fill = Callable[[Path], "dict[str, str] | None"]
MAX_REASONS = 10  # of samples that failed, printed when all did


def write_sample_dataset(root: str | os.PathLike, dataset_id: int, name: str, content: dict, manifest: pd.DataFrame,
                         fill: Fill | None = None, *, splits: Mapping[str, dict | list[dict]] | None = None,
                         missing: Mapping[str, pd.DataFrame] | None = None, provenance: dict | None = None,
                         failed: Mapping[str, str] | None = None, notes: Sequence[str] = (),
                         overwrite: bool = False) -> SampleSummary:
    """Writes `root`/DatasetXXX_Name, whole or not at all; bad samples are left out and named, also in left_out.json.

    Args:
        root: the folder of raw data sets.
        name: of the data set; also put into dataset.json when `content` has none.
        content: dataset.json (documentation/reference/classification/data_format.md).
        manifest: a row per sample, every column as it shall stand in manifest.csv: text, numbers, None or NaN for an
            empty cell. Paths are relative to the data set's folder, with "/".
        fill: called with the folder, writes the files that `content` and `manifest` name (images, tables, npz, in
            sub-folders that it makes itself). Returns {sample id: what is wrong} for samples to leave out.
        splits: name -> {"train": ids, "val": ids, "test": ids}, or a list of such folds; written as splits/NAME.json.
        missing: name -> table with columns case,<modality>,... of 1 and 0; written as missing/NAME.csv.
        provenance: where the data are from (see `provenance_of`), written as provenance.json.
        failed: samples that the converter gave up before; they must not be in `manifest`.
        notes: sentences for the summary.
        overwrite: replaces a data set of the same id and name.

    Returns:
        the summary; `failed` is empty when everything was converted.

    Raises NnmissError for a `content` that planning would refuse, when no sample is left, for ids that stand there twice,
    for files that `fill` did not write, and for the output folder's reasons. Then nothing is written.
    """
    content = {"name": name, **content}
    id_column, modalities = parse_description(content, "what dataset.json would say").id_column, list(content["modalities"])
    table = manifest.apply(lambda column: column.map(_text).astype(object))
    doubled = table[id_column][table[id_column].duplicated()]
    if len(doubled):
        raise NnmissError(f"these sample ids stand in the source more than once: {shortened(doubled.unique())}")
    with new_dataset_folder(root, dataset_id, name, overwrite) as (temporary, final):
        bad = {**(failed or {}), **((fill(temporary) if fill else None) or {})}
        table = table[~table[id_column].isin(list(bad))].reset_index(drop=True)
        owned = _available(temporary, content, table, id_column)
        bad |= {sample: f"it has none of {', '.join(modalities)}" for sample, kept in owned.items() if not kept}
        table = table[~table[id_column].isin(list(bad))].reset_index(drop=True)
        if table.empty:
            raise NnmissError(f"no sample could be converted, so nothing was written{_reasons(bad)}")
        summary = _summarised(final, content, table, owned, id_column)
        summary.failed, summary.notes = bad, list(notes)
        write_text(temporary / "manifest.csv", table.to_csv(index=False, lineterminator="\n"))
        write_json(temporary / "dataset.json", content)
        write_json(temporary / "provenance.json", {"nnmiss_version": __version__, **(provenance or {})})
        if bad:
            write_json(temporary / LEFT_OUT, bad)
        summary.named_splits = _write_splits(temporary, splits or {}, set(table[id_column]))
        summary.tables = _write_missing(temporary, missing or {}, set(table[id_column]), modalities)
    return summary


def provenance_of(converter: str, sources: Iterable[str | os.PathLike], options: object, **facts: object) -> dict:
    """What provenance.json holds: the converter, the folders that were read, every option, and `facts` (JSON-able)."""
    plain = {key: list(value) if isinstance(value, (list, tuple)) else value for key, value in vars(options).items()
             if key not in ("overwrite", "num_threads", "disable_progress_bar")}
    return {"converter": converter, "sources": [os.path.abspath(source) for source in sources], "options": plain, **facts}


def write_values(path: Path, ids: Sequence[str], values: np.ndarray) -> None:
    """Writes the npz of a modality with "file": `ids` (n,) text and `values` (n, ...). Makes the folder above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        np.savez_compressed(temporary, ids=np.array(list(ids), np.str_), values=values)


def missing_table(available: Mapping[str, Sequence[str]], modalities: Sequence[str]) -> pd.DataFrame:
    """A missing table from {sample id: names of the modalities it keeps}."""
    rows = [[sample, *(int(m in kept) for m in modalities)] for sample, kept in available.items()]
    return pd.DataFrame(rows, columns=["case", *modalities])


def _text(cell: object) -> str:
    """A cell as text: "" for None and NaN, whole numbers without a point."""
    if cell is None or (isinstance(cell, Real) and cell != cell):
        return ""
    if isinstance(cell, (bool, np.bool_)):
        return str(int(cell))
    if isinstance(cell, Real) and float(cell).is_integer():
        return str(int(cell))
    return str(cell)


def _available(folder: Path, content: dict, table: pd.DataFrame, id_column: str) -> dict[str, list[str]]:
    """Sample id -> the modalities it has. Raises NnmissError for a file that is named but not there."""
    has: dict[str, set[str]] = {}
    for modality, spec in content["modalities"].items():
        if "file" in spec:
            has[modality] = set(_ids_of(folder / spec["file"]))
            continue
        cells = table[[id_column, modality]]
        cells = cells[cells[modality] != ""]
        lost = [path for path in cells[modality].unique() if not (folder / path).is_file()]
        if lost:
            raise NnmissError(f"the manifest names files of {modality} that were not written: {shortened(lost, 5)}")
        has[modality] = set(cells[id_column])
    return {sample: [m for m in has if sample in has[m]] for sample in table[id_column]}


def _ids_of(path: Path) -> list[str]:
    """The ids in a modality's table or npz."""
    if not path.is_file():
        raise NnmissError(f"dataset.json names {path.name}, which was not written")
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                return [str(i) for i in arrays["ids"]]
        if path.suffix == ".parquet":
            return list(pd.read_parquet(path).iloc[:, 0].astype(str))
        return list(pd.read_csv(path, usecols=[0], dtype=str, keep_default_na=False).iloc[:, 0])
    except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise NnmissError(f"{path.name} was written, but its ids cannot be read: {error}") from None


def _summarised(folder: Path, content: dict, table: pd.DataFrame, owned: dict[str, list[str]],
                id_column: str) -> SampleSummary:
    """What was written, by split."""
    split = table["split"] if "split" in table else pd.Series("", index=table.index)
    unknown = sorted(set(split) - set(PARTS))
    if unknown:
        raise NnmissError(f"the column split may hold train, val, test or nothing, got {shortened(unknown)}")
    parts = {part: list(table[id_column][split == part]) for part in PARTS if (split == part).any()}
    kept = {sample: owned[sample] for sample in table[id_column]}
    test = set(parts.get("test", []))
    return SampleSummary(folder, tuple(content["modalities"]), {s: m for s, m in kept.items() if s not in test},
                         {s: m for s, m in kept.items() if s in test}, {}, parts=parts,
                         classes={part: _class_counts(content, table[split == part]) for part in parts})


def _class_counts(content: dict, table: pd.DataFrame) -> dict[str, int]:
    """Class or label -> samples that have it; "" -> those without any label."""
    labels = content["labels"]
    if content["task"] == "multilabel":
        unlabelled = int((table[list(labels)] == "").all(axis=1).sum())
        return {**{name: int((table[name] == "1").sum()) for name in labels}, "": unlabelled}
    column = table[content.get("label_column", "label")]
    return {**{str(name): int((column == str(value)).sum()) for value, name in labels.items()},
            "": int((column == "").sum())}


def _write_splits(folder: Path, splits: Mapping[str, dict | list[dict]], known: set[str]) -> list[str]:
    """Writes splits/NAME.json without the samples that were left out. Returns the names."""
    for name, folds in splits.items():
        (folder / "splits").mkdir(exist_ok=True)
        kept = [{side: [str(i) for i in ids if str(i) in known] for side, ids in fold.items()}
                for fold in ([folds] if isinstance(folds, dict) else folds)]
        write_json(folder / "splits" / f"{name}.json", kept[0] if isinstance(folds, dict) else kept)
    return list(splits)


def _write_missing(folder: Path, missing: Mapping[str, pd.DataFrame], known: set[str], modalities: list[str]) -> list[str]:
    """Writes missing/NAME.csv without the samples that were left out. Returns the names."""
    for name, table in missing.items():
        (folder / "missing").mkdir(exist_ok=True)
        rows = table[table["case"].isin(known)].sort_values("case")[["case", *modalities]]
        write_text(folder / "missing" / f"{name}.csv", rows.to_csv(index=False, lineterminator="\n"))
    return list(missing)


def _reasons(failed: Mapping[str, str]) -> str:
    lines = [f"\n  {sample}: {message}" for sample, message in failed.items()]
    more = f"\n  and {len(lines) - MAX_REASONS} more" if len(lines) > MAX_REASONS else ""
    return "".join(lines[:MAX_REASONS]) + more
