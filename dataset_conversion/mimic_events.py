"""The events of the cohort out of tables that do not fit into memory, cleaned and sorted into small files by stay."""
from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from nnmiss.dataset_conversion.mimic_cleaning import clean
from nnmiss.dataset_conversion.mimic_definitions import EVENT_TABLES, variables
from nnmiss.dataset_conversion.mimic_stays import to_time
from nnmiss.dataset_conversion.mimic_tables import MimicTables

NUM_BUCKETS = 64  # MIMIC-IV: about 1,000 stays and 30 MB each
EDGE_HOURS = 1e-6
EVENT = np.dtype([("stay", np.int32), ("variable", np.uint8), ("hours", np.float64), ("value", np.float64)])


@dataclass
class EventStore:
    """Events on disk, in files by stay number modulo NUM_BUCKETS.

    seen: numbers of the stays that have an event. unusable: variable -> charted values that were no number, no known
    answer, or an outlier. rows: of the tables that were read.
    """

    folder: Path
    seen: set[int] = field(default_factory=set)
    unusable: Counter = field(default_factory=Counter)
    rows: Counter = field(default_factory=Counter)

    def add(self, events: np.ndarray) -> None:
        """Appends events of dtype EVENT."""
        self.seen.update(np.unique(events["stay"]).tolist())
        buckets = events["stay"] % NUM_BUCKETS
        for bucket in np.unique(buckets):
            with open(self.folder / str(bucket), "ab") as file:
                events[buckets == bucket].tofile(file)

    def by_stay(self) -> Iterator[tuple[int, np.ndarray]]:
        """(stay number, its events sorted by time, variable and value), one bucket in memory at a time."""
        for path in sorted(self.folder.iterdir()):
            events = np.sort(np.fromfile(path, EVENT), order=["stay", "hours", "variable", "value"])
            starts = np.flatnonzero(np.diff(events["stay"], prepend=-1))
            for start, end in zip(starts, [*starts[1:], len(events)]):
                yield int(events["stay"][start]), events[start:end]


def collect_events(tables: MimicTables, stays: pd.DataFrame, end_hours: np.ndarray, folder: Path, ranges: bool = True,
                   progress: Callable[[str, int], None] | None = None) -> EventStore:
    """Reads chartevents and labevents in pieces and keeps what belongs to `stays`.

    Args:
        stays: as `read_stays`; a stay's number is its row.
        end_hours: (N,) events count from the stay's begin up to this many hours after it.
        folder: empty, for the store's files.
        ranges: see `clean`.
        progress: called with table and rows after each piece.

    An event counts when its admission is one of the stays', and its ICU stay, where it names one, is that admission's.
    """
    store = EventStore(folder)
    own = stays[["hadm_id", "stay_id", "intime"]].assign(stay=np.arange(len(stays)), end=end_hours)
    for table in EVENT_TABLES:
        item = {i: number for number, v in enumerate(variables()) for i in v.items[table]}
        for piece in tables.chunks(table, ["hadm_id", "itemid", "charttime", "value", "valueuom"], [tables.stay_column]):
            store.rows[table] += len(piece)
            piece["itemid"] = pd.to_numeric(piece["itemid"], errors="coerce").fillna(-1).astype(np.int64)
            piece = piece[piece["itemid"].isin(item) & piece["value"].notna()]
            events = _of_stays(piece.rename(columns={tables.stay_column: "named_stay"}), own)
            if len(events):
                store.add(_cleaned(events.assign(variable=events["itemid"].map(item)), ranges, store.unusable))
            if progress:
                progress(table, store.rows[table])
    return store


def _of_stays(piece: pd.DataFrame, own: pd.DataFrame) -> pd.DataFrame:
    """The rows inside the windows of the stays, with `stay` and `hours` after its begin."""
    events = piece.merge(own, "inner", "hadm_id")
    if "named_stay" in events:
        events = events[events["named_stay"].isna() | (events["named_stay"] == events["stay_id"])]
    hours = (to_time(events["charttime"]) - events["intime"]).dt.total_seconds() / 3600
    events = events.assign(hours=hours)
    return events[(hours > -EDGE_HOURS) & (hours < events["end"] + EDGE_HOURS)]


def _cleaned(events: pd.DataFrame, ranges: bool, unusable: Counter) -> np.ndarray:
    """Events of dtype EVENT; those without a usable value are counted."""
    parts = []
    for number, group in events.groupby("variable", sort=False):
        values = clean(group, variables()[number], ranges)
        usable = ~np.isnan(values)
        unusable[variables()[number].name] += int((~usable).sum())
        part = np.empty(int(usable.sum()), EVENT)
        part["stay"], part["variable"] = group["stay"].to_numpy()[usable], number
        part["hours"], part["value"] = group["hours"].to_numpy()[usable], values[usable]
        parts.append(part)
    return np.concatenate(parts)
