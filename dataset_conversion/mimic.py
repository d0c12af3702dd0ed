"""Converter of MIMIC-III and MIMIC-IV, with MIMIC-CXR-JPG: mortality or 25 phenotypes from 17 variables and an X-ray."""
from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from nnmiss.atomic_files import writable_folder, write_text
from nnmiss.dataset_conversion.mimic_content import mortality_content, phenotyping_content
from nnmiss.dataset_conversion.mimic_cxr import WINDOWS, Radiograph, pair_images
from nnmiss.dataset_conversion.mimic_episodes import episode_csv
from nnmiss.dataset_conversion.mimic_events import EDGE_HOURS, EventStore, collect_events
from nnmiss.dataset_conversion.mimic_images import ending, write_images
from nnmiss.dataset_conversion.mimic_phenotypes import read_phenotypes
from nnmiss.dataset_conversion.mimic_splits import split_of_patients
from nnmiss.dataset_conversion.mimic_stays import read_stays
from nnmiss.dataset_conversion.mimic_tables import MimicTables, find_tables
from nnmiss.dataset_conversion.raw_cases import NUM_THREADS
from nnmiss.dataset_conversion.sample_folder import provenance_of, write_sample_dataset
from nnmiss.dataset_conversion.sample_summary import SampleSummary
from nnmiss.errors import NnmissError

DESCRIPTION = "ICU mortality or 25 phenotypes from MIMIC-III or -IV tables and MIMIC-CXR-JPG (-i MIMIC [CXR])"
DEFAULT_ID = 856
TASKS = ("mortality", "phenotyping")
MORTALITY_HOURS = 48.0
NAMES = {"mortality": "MIMICMortality", "phenotyping": "MIMICPhenotyping"}


@dataclass(frozen=True)
class Options:
    """Choices of this converter; the fields are the command's flags.

    Attributes:
        task: "mortality": death in hospital from the first 48 hours of stays of at least 48; "phenotyping": 25 groups of
            diagnoses from the whole stay.
        name: of the data set; None chooses by the task.
        cxr_window: when the X-ray may be from, "first48h" or "stay"; None is first48h for mortality, stay for phenotyping.
        image_size: side of the images written, in pixels; 0 copies the files.
        ranges: drop outliers and clip to valid ranges.
        statistics: "fitted" on the training split when a model is trained, or "published": the benchmark's means and
            standard deviations.
        splits: files that say which patients test and validate (see `mimic_splits`).
        seed: of the split, when there is no such file.
        num_threads: images at once.
        disable_progress_bar: prints none.
        overwrite: replace a data set of the same id and name.
    """

    task: str = "mortality"
    name: str | None = None
    cxr_window: str | None = None
    image_size: int = 224
    ranges: bool = True
    statistics: str = "fitted"
    splits: Sequence[str] = ()
    seed: int = 0
    num_threads: int = NUM_THREADS
    disable_progress_bar: bool = False
    overwrite: bool = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that become `Options`."""
    parser.add_argument("--task", choices=TASKS, default=Options.task, help="what to predict (default %(default)s)")
    parser.add_argument("--name", help=f"name of the data set (default {' or '.join(NAMES.values())})")
    parser.add_argument("--cxr_window", choices=WINDOWS,
                        help="the last AP image of the first 48 hours, or of the stay (default: first48h for mortality, "
                             "stay for phenotyping)")
    parser.add_argument("--image_size", type=int, default=Options.image_size, metavar="PIXELS",
                        help="side of the images written, 0 copies the files (default %(default)s)")
    parser.add_argument("--no_ranges", dest="ranges", action="store_false",
                        help="keep outliers, as the public benchmark's code does")
    parser.add_argument("--statistics", choices=("fitted", "published"), default=Options.statistics,
                        help="standardise the series by the training split, or by the benchmark's means and standard "
                             "deviations (default %(default)s)")
    parser.add_argument("--splits", nargs="+", default=[], metavar="FILE",
                        help="csv with subject_id and split, or the benchmark's lists of test and validation patients "
                             "(default: drawn by patient)")
    parser.add_argument("--seed", type=int, default=Options.seed, help="of the drawn split (default %(default)s)")


def convert(sources: Sequence[str | os.PathLike], output: str | os.PathLike, dataset_id: int,
            options: Options) -> SampleSummary:
    """Writes the stays of a MIMIC release as a data set with modalities `ehr` (time series) and `cxr` (image).

    Args:
        sources: the folder of the tables and, if there is one, that of MIMIC-CXR-JPG; without it no stay has an image.

    Stays without an event in the window are left out, as are those without a diagnosis code; both are counted in the
    notes. A stay whose X-ray cannot be read is in `failed`. Raises NnmissError as the parts do.
    """
    if len(sources) > 2:
        raise NnmissError(f"-i takes the folder of MIMIC's tables and that of MIMIC-CXR-JPG, got {len(sources)} folders")
    if options.image_size < 0:
        raise NnmissError(f"--image_size must be 0 or more pixels, got {options.image_size}")
    options = replace(options, splits=[os.fspath(path) for path in options.splits])
    tables = find_tables(sources[0])
    stays, labels, notes = _labelled_stays(tables, options.task)
    window = options.cxr_window or ("first48h" if options.task == "mortality" else "stay")
    images = pair_images(sources[1], stays, window) if len(sources) > 1 else {}
    split, about = split_of_patients(sorted(set(stays["subject_id"])), options.splits, options.seed)
    hours = np.full(len(stays), MORTALITY_HOURS) if options.task == "mortality" else stays["hours"].to_numpy()
    with tempfile.TemporaryDirectory(prefix=".mimic_events.", dir=writable_folder(output)) as events:
        store = collect_events(tables, stays, hours, Path(events), options.ranges, _bar(options.disable_progress_bar))
        kept = sorted(store.seen)
        notes += [*_about(stays, store, images, len(sources) > 1, window), *about]
        manifest = _manifest(stays.iloc[kept], labels.iloc[kept], split, images, ending(options.image_size))
        images = {stay: images[stay] for stay in manifest["sample_id"] if stay in images}

        def fill(folder: Path) -> dict[str, str]:
            (folder / "ehr").mkdir()
            for number, of_it in store.by_stay():
                write_text(folder / "ehr" / f"{stays['stay_id'].iloc[number]}.csv", episode_csv(of_it))
            return write_images(sources[1], folder / "cxr", images, options.image_size, options.num_threads,
                                options.disable_progress_bar) if images else {}

        describe = mortality_content if options.task == "mortality" else phenotyping_content
        content = describe(tables.layout, options.statistics == "published")
        return write_sample_dataset(
            output, dataset_id, options.name or NAMES[options.task], content, manifest, fill, overwrite=options.overwrite,
            provenance=provenance_of("mimic", sources, options, release=tables.layout, cxr_window=window,
                                     rows_read=dict(store.rows), unusable_values=dict(store.unusable)), notes=notes)


def _labelled_stays(tables: MimicTables, task: str) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """The stays of the task, their label columns row by row, and sentences about both."""
    stays, notes = read_stays(tables)
    if task == "mortality":
        stays = stays[stays["hours"] >= MORTALITY_HOURS - EDGE_HOURS]
        notes.append(f"stays of at least {MORTALITY_HOURS:.0f} hours: {len(stays)}, {int(stays['died'].sum())} of them "
                     "died in hospital")
    found = read_phenotypes(tables, stays)
    without = len(stays) - len(found)
    if without:
        notes.append(f"left out because their admission has no diagnosis code: {without} stays")
    stays = stays[stays["stay_id"].isin(found.index)].reset_index(drop=True)
    if stays.empty:
        raise NnmissError(f"{tables.root}: no stay is left for {task} ({'; '.join(notes)})")
    labels = pd.DataFrame({"label": stays["died"].astype(int)}) if task == "mortality" else \
        found.loc[stays["stay_id"]].reset_index(drop=True)
    return stays, labels, notes


def _manifest(stays: pd.DataFrame, labels: pd.DataFrame, split: Mapping[str, str], images: Mapping[str, Radiograph],
              image_ending: str) -> pd.DataFrame:
    ids = stays["stay_id"].tolist()
    table = pd.DataFrame({"sample_id": ids, "subject_id": stays["subject_id"].tolist()})
    table["split"] = table["subject_id"].map(split)
    table[list(labels.columns)] = labels.to_numpy()
    table["ehr"] = [f"ehr/{stay}.csv" for stay in ids]
    table["cxr"] = [f"cxr/{stay}{image_ending}" if stay in images else None for stay in ids]
    return table


def _about(stays: pd.DataFrame, store: EventStore, images: Mapping[str, Radiograph], with_images: bool,
           window: str) -> list[str]:
    """Sentences about events and images."""
    notes = []
    if len(store.seen) < len(stays):
        notes.append("left out because none of the 17 variables was measured in the window: "
                     f"{len(stays) - len(store.seen)} stays")
    unusable = {name: n for name, n in store.unusable.items() if n}
    if unusable:
        notes.append("charted values without a usable value: " + ", ".join(f"{name} {n}" for name, n in unusable.items()))
    if with_images:
        where = "in the stay" if window == "stay" else "within 48 hours of admission to the unit"
        kept = stays["stay_id"].iloc[sorted(store.seen)]
        notes.append(f"{int(kept.isin(list(images)).sum())} of {len(kept)} stays have an AP image {where}")
    else:
        notes.append("no folder of MIMIC-CXR-JPG was given: no stay has an X-ray")
    return notes


def _bar(disabled: bool) -> Callable[[str, int], None]:
    """A progress bar over the rows of the event tables, whose number is not known before."""
    bars: dict[str, tqdm] = {}

    def show(table: str, rows: int) -> None:
        bar = bars.setdefault(table, tqdm(desc=table, unit=" rows", unit_scale=True, disable=disabled))
        bar.update(rows - bar.n)
        bar.refresh()
    return show
