"""Which modalities a case has (`available`), which the network is shown (`present`), and the names of subsets."""
from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from nnmiss.atomic_files import read_json
from nnmiss.errors import NnmissError, nearest_names
from nnmiss.plain_names import name_fault, require_name, shown

Present = tuple[bool, ...]  # one entry per modality, in channel order
LARGEST_TABLE = 2**27  # bytes of a table of missingness
AVAILABLE = "available"  # in classification: the subset of whatever each sample has


def is_classification(dataset_json: dict) -> bool:
    """Whether a dataset.json describes a classification data set: it has "task" and "modalities".

    With only one of the two it is meant as one, unless it has segmentation's "numTraining": what it lacks is named then.
    """
    found = ("task" in dataset_json) + ("modalities" in dataset_json)
    return found == 2 or (found == 1 and "numTraining" not in dataset_json)


def modality_names(dataset_json: dict) -> list[str]:
    """The modality names of a data set in channel order: from `channel_names`; in classification the keys of `modalities`.

    Raises NnmissError unless the keys of `channel_names` are "0".."M-1", the names are distinct without case and free of
    '+' and '/' (they become folder names), and there are at least two. In classification `available` is no name either:
    so is called what each sample has.
    """
    if is_classification(dataset_json):
        names = _classification_names(dataset_json.get("modalities"))
    else:
        channels = dataset_json.get("channel_names") or dataset_json.get("modality")
        if not isinstance(channels, dict) or sorted(channels, key=str) != sorted(map(str, range(len(channels)))):
            raise NnmissError(f'dataset.json: "channel_names" must map "0", "1", ... to names, got {channels!r}')
        names = [str(channels[str(i)]) for i in range(len(channels))]
    if len({n.lower() for n in names}) < len(names):
        raise NnmissError(f"dataset.json: modality names must differ without regard to case, got {names}")
    bad = [n for n in names if not n or "+" in n or "/" in n]
    if bad:
        raise NnmissError(f"dataset.json: modality names may not be empty or contain '+' or '/', got {bad}")
    for name in names:
        require_name(name, "dataset.json: modality name")
    if len(names) < 2:
        instead = "" if is_classification(dataset_json) else ": use nnU-Net itself"
        raise NnmissError(f"nnmiss needs at least two modalities, dataset.json names {names}{instead}")
    return names


def _classification_names(modalities: object) -> list[str]:
    if not isinstance(modalities, dict):
        raise NnmissError(f'dataset.json: "modalities" must map names to {{"type": ...}}, got {modalities!r}')
    if AVAILABLE in [name.strip().lower() for name in modalities]:
        raise NnmissError(f"dataset.json: no modality may be called {AVAILABLE!r}, the name of what each sample has")
    return list(modalities)


def all_subsets(num_modalities: int) -> list[Present]:
    """All 2^M - 1 non-empty subsets, by size and then channel order: the row order of MetaKD's Table 1."""
    return [
        tuple(i in chosen for i in range(num_modalities))
        for size in range(1, num_modalities + 1)
        for chosen in combinations(range(num_modalities), size)
    ]


def reported_subsets(num_modalities: int) -> list[Present]:
    """The subsets that automatic reports cover: all of them up to M = 5, else singles, all-but-one and the full set."""
    everything = all_subsets(num_modalities)
    if num_modalities <= 5:
        return everything
    return [s for s in everything if sum(s) in (1, num_modalities - 1, num_modalities)]


def subset_name(present: Present, modalities: list[str]) -> str:
    """'flair+t1ce' for the modalities that are True in `present`."""
    return "+".join(name for name, shown in zip(modalities, present) if shown)


def match_modality(name: str, modalities: list[str]) -> int:
    """Channel index of a modality name, without regard to case. Raises NnmissError with the nearest names."""
    lower = [m.lower() for m in modalities]
    if name.strip().lower() not in lower:
        raise NnmissError(f"modality {name!r} is not in this data set. {nearest_names(name.strip(), modalities)}")
    return lower.index(name.strip().lower())


def parse_subset(names: str | list[str], modalities: list[str]) -> Present:
    """'flair+t1ce' or ['flair', 't1ce'] as a tuple of bools. Raises NnmissError for unknown names or an empty list."""
    names = names.split("+") if isinstance(names, str) else list(names)
    chosen = {match_modality(n, modalities) for n in names}
    if not chosen:
        raise NnmissError(f"a subset needs at least one modality. Known names: {', '.join(modalities)}.")
    return tuple(i in chosen for i in range(len(modalities)))


def read_availability(preprocessed_folder: str | Path, modalities: list[str]) -> dict[str, Present]:
    """Case name -> available modalities, from `availability.json` of a preprocessed data set.

    Raises NnmissError when the file is absent or was written for other modalities.
    """
    path = Path(preprocessed_folder) / "availability.json"
    content = read_json(path, "availability table", ("modalities", "cases"))
    if content.get("modalities") != list(modalities):
        raise NnmissError(f"{path} was written for modalities {content.get('modalities')}, dataset.json names "
                          f"{modalities}: run nnmiss_plan_and_preprocess again")
    cases = content["cases"]
    wrong = [case for case, row in cases.items() if name_fault(case) or not isinstance(row, list)
             or len(row) != len(modalities)] if isinstance(cases, dict) else [cases]
    if wrong:
        raise NnmissError(f"{path}: {shown(wrong[0])} is no case with an entry per modality: run "
                          "nnmiss_plan_and_preprocess again")
    return {case: tuple(map(bool, row)) for case, row in cases.items()}


def read_missing_table(path: str | Path, modalities: list[str]) -> dict[str, Present]:
    """Case -> kept modalities of a simulated-missingness table (csv: case,<modality>,... with 1/0).

    Raises NnmissError for other columns or cells, duplicate cases, or a case that keeps nothing.
    """
    path = Path(path)
    if not path.is_file():
        tables = sorted(p.stem for p in path.parent.glob("*.csv"))
        there = nearest_names(path.stem, tables) if tables else f"{path.parent} has no tables."
        raise NnmissError(f"missingness table {path} not found. {there}")
    if path.stat().st_size > LARGEST_TABLE:
        raise NnmissError(f"missingness table {path} is larger than {LARGEST_TABLE >> 20} MB: it is no such table")
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (ValueError, UnicodeDecodeError) as error:  # pandas' own errors are ValueErrors
        raise NnmissError(f"missingness table {path} cannot be read as csv: {error}") from None
    if not isinstance(table.index, pd.RangeIndex):  # pandas takes a first cell too many for a name of the row
        raise NnmissError(f"{path}: rows have more cells than the header {','.join(table.columns)}")
    if list(table.columns) != ["case", *modalities]:
        raise NnmissError(f"{path}: columns must be case,{','.join(modalities)}, got {','.join(table.columns)}")
    kept = table[modalities].to_numpy()
    bad = ~np.isin(kept, ["0", "1"])
    if bad.any():
        row = int(np.flatnonzero(bad.any(1))[0])
        raise NnmissError(f"{path}: case {table['case'][row]} has cells other than 0 and 1: {list(kept[row])}")
    if table["case"].duplicated().any():
        raise NnmissError(f"{path}: case {table['case'][table['case'].duplicated()].iloc[0]} stands there twice")
    rows = {case: tuple(cell == "1" for cell in cells) for case, cells in zip(table["case"], kept)}
    empty = [case for case, row in rows.items() if not any(row)]
    if empty:
        raise NnmissError(f"{path}: these cases keep no modality at all: {', '.join(empty[:5])}")
    return rows


def apply_missing_table(available: dict[str, Present], kept: dict[str, Present]) -> dict[str, Present]:
    """ANDs `kept` into `available`; cases that the table does not list stay as they are.

    Raises NnmissError, naming them, for cases that would have nothing left, and when the table lists no case of the data.
    """
    if not set(kept) & set(available):
        raise NnmissError("the missingness table lists none of the data set's cases; it lists "
                          f"{', '.join(sorted(kept)[:3])}, the data set has {', '.join(sorted(available)[:3])}")
    result = {case: tuple(a and k for a, k in zip(row, kept.get(case, row))) for case, row in available.items()}
    empty = [case for case, row in result.items() if not any(row)]
    if empty:
        raise NnmissError(f"the missingness table takes away every file of: {', '.join(empty[:5])}")
    return result


def draw_present(available: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Modality dropout per sample: the number kept is uniform in 1..(number available), then which; never none.

    MetaKD section 8 drops 0 to 3 of 4 modalities; this is the same for any M and for cases that lack some.

    Args:
        available: (B, M) bool; every row has at least one True.
        generator: the source of randomness; the same state draws the same subsets. On the CPU.

    Returns:
        (B, M) bool on the device of `available`, a subset of it, with no empty row.
    """
    have = available.cpu()
    order = torch.rand(have.shape, generator=generator).masked_fill(~have, 2.0)  # (B, M), absent ones sort last
    count = have.sum(1, keepdim=True)  # (B, 1)
    keep = (torch.rand(count.shape, generator=generator) * count).long().clamp_max(count - 1) + 1  # (B, 1), 1..count
    rank = order.argsort(1).argsort(1)  # (B, M)
    return (rank < keep).to(available.device)
