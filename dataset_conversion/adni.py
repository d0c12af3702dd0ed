"""Converter of ADNI's official downloads: diagnosis from clinical data, genotypes, biospecimen and imaging, with gaps."""
from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from nnmiss.atomic_files import write_text
from nnmiss.dataset_conversion.adni_features import IMAGING, find_features, read_tables
from nnmiss.dataset_conversion.adni_genotypes import filesets, write_genotypes
from nnmiss.dataset_conversion.adni_imaging import copy_scans, scan_ending
from nnmiss.dataset_conversion.adni_labels import CLASSES, LABELS, read_labels
from nnmiss.dataset_conversion.adni_pruning import PRUNERS, prune
from nnmiss.dataset_conversion.adni_splits import split_of_participants
from nnmiss.dataset_conversion.adni_tables import walk
from nnmiss.dataset_conversion.raw_cases import NUM_THREADS
from nnmiss.dataset_conversion.sample_folder import provenance_of, write_sample_dataset
from nnmiss.dataset_conversion.sample_summary import SampleSummary

DESCRIPTION = "diagnosis (CN, MCI, dementia) from ADNI's clinical, genomic, biospecimen and imaging downloads"
DEFAULT_ID = 858
CONTENT = {
    "description": "Alzheimer's Disease Neuroimaging Initiative: diagnosis from four modalities, each absent for many",
    "licence": "ADNI Data Use Agreement; not to be passed on",
    "reference": "adni.loni.usc.edu; selection of tables as Flex-MoE (arXiv:2410.08245) and MetaKD",
    "task": "multiclass", "labels": CLASSES,
    "plan": {"batch_size": 32, "feature_dim": 128, "head": {"hidden": [64], "dropout": 0.5}},
}


@dataclass(frozen=True)
class Options:
    """Choices of this converter; the fields are the command's flags.

    Attributes:
        name: of the data set, as in Dataset858_ADNI.
        label: "stable": participants whose diagnosis never changes, with their last known values; "baseline": the
            diagnosis and the values of the first visits.
        imaging: "table" of FreeSurfer, "volumes", or "auto": the table when there is one.
        pruning: one of PRUNERS.
        splits: JSON file with lists of PTIDs; None draws 70 / 15 / 15 % of each class.
        seed: of the drawn split.
        num_threads, disable_progress_bar: accepted as by all converters.
        overwrite: replace a data set of the same id and name.
    """

    name: str = "ADNI"
    label: str = "stable"
    imaging: str = "auto"
    pruning: str = "auto"
    splits: str | None = None
    seed: int = 0
    num_threads: int = NUM_THREADS
    disable_progress_bar: bool = False
    overwrite: bool = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that become `Options`."""
    parser.add_argument("--name", default=Options.name, help="name of the data set (default %(default)s)")
    parser.add_argument("--label", choices=LABELS, default=Options.label,
                        help="whose diagnosis never changes, with the last known values; or diagnosis and values at "
                             "baseline (default %(default)s)")
    parser.add_argument("--imaging", choices=IMAGING, default=Options.imaging,
                        help="FreeSurfer's table, NIfTI volumes, or the table when there is one (default %(default)s)")
    parser.add_argument("--pruning", choices=PRUNERS, default=Options.pruning,
                        help="of variants in linkage disequilibrium: by plink, by our own, or plink when installed "
                             "(default %(default)s)")
    parser.add_argument("--splits", metavar="FILE", help="JSON with lists of PTIDs named train, val, test (default: drawn)")
    parser.add_argument("--seed", type=int, default=Options.seed, help="of the drawn split (default %(default)s)")


def convert(sources: Sequence[str | os.PathLike], output: str | os.PathLike, dataset_id: int,
            options: Options) -> SampleSummary:
    """Writes the participants with a diagnosis and at least one modality: `clinical`, `genomic`, `biospecimen`, `imaging`.

    A modality whose files are not in the source is left out of the data set; two are needed. Nothing is fitted here but the
    choice of variants, which only the training participants decide: scaling, imputation and one-hot codes are fitted on
    the training split when a model is trained. Raises NnmissError as the parts do.
    """
    options = replace(options, splits=options.splits and os.fspath(options.splits))
    files = walk(sources)
    tables, paths, notes = read_tables(files)
    labels, failed, about = read_labels(tables["DXSUM"], options.label, paths["DXSUM"])
    found = find_features(files, tables, paths, set(labels), options.label == "baseline", options.imaging)
    notes += [*about, *found.notes]
    owners = found.owners()
    if len(owners) < len(labels):
        notes.append(f"left out without any modality: {len(labels) - len(owners)} participants")
    labels = {ptid: label for ptid, label in sorted(labels.items()) if ptid in owners}
    split, about = split_of_participants(labels, options.splits, options.seed)
    labels = {ptid: label for ptid, label in labels.items() if ptid in split}
    found = found.only(labels)
    kept, pruner = prune(found.genotypes, split, options.pruning)
    notes += [*about, *([f"variants kept by pruning ({pruner}, decided by the training participants): {int(kept.sum())}"]
                        if found.genotypes else [])]
    manifest = pd.DataFrame({"sample_id": list(labels), "subject_id": list(labels), "split": [split[p] for p in labels],
                             "label": list(labels.values())})
    if found.scans:
        manifest["imaging"] = [f"imaging/{p}{scan_ending(found.scans[p])}" if p in found.scans else None for p in labels]

    def fill(folder: Path) -> dict[str, str]:
        (folder / "tables").mkdir()
        for name, table in found.tables.items():
            write_text(folder / "tables" / f"{name}.csv", table.to_csv(index_label="sample_id", lineterminator="\n"))
        if found.genotypes:
            write_genotypes(folder, found.genotypes, kept)
        return copy_scans(folder / "imaging", found.scans) if found.scans else {}

    provenance = provenance_of("adni", sources, options, tables={name: str(path) for name, path in paths.items()},
                               plink_sets=[str(bed) for bed in filesets(files)], pruned_by=pruner,
                               columns_left_out=found.left_out)
    return write_sample_dataset(output, dataset_id, options.name, {**CONTENT, "modalities": found.modalities()}, manifest,
                                fill, provenance=provenance, failed=failed, notes=notes, overwrite=options.overwrite)
