"""What ADNI's downloads hold for each participant, modality by modality, and how dataset.json describes it."""
from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from nnmiss.dataset_conversion.adni_clinical import BIOSPECIMEN, CLINICAL, biospecimen_table, clinical_table, column_kinds
from nnmiss.dataset_conversion.adni_genotypes import Genotypes, filesets, read_genotypes
from nnmiss.dataset_conversion.adni_imaging import FREESURFER, find_scans, freesurfer_table
from nnmiss.dataset_conversion.adni_tables import find_table, participants, read_table, with_ptid
from nnmiss.errors import NnmissError

MODALITIES = ("clinical", "genomic", "biospecimen", "imaging")  # channel order
DIAGNOSIS = r"DXSUM(_PDXCONV)?(_ADNIALL)?"
IMAGING = ("auto", "table", "volumes")
VOLUME = {"type": "volume", "size": [91, 109, 91], "encoder": {"name": "cnn3d"}}


@dataclass(frozen=True)
class Features:
    """tables: modality -> one row per participant who has it. kinds: modality -> column -> numeric or categorical.
    left_out: modality -> column -> why. genotypes, scans: of participants who have them. notes: sentences."""

    tables: dict[str, pd.DataFrame]
    kinds: dict[str, dict[str, str]]
    left_out: dict[str, dict[str, str]]
    genotypes: Genotypes | None
    scans: dict[str, Path]
    notes: list[str]

    def owners(self) -> set[str]:
        """Participants with at least one modality."""
        genetic = self.genotypes.participants if self.genotypes else ()
        return set(self.scans).union(genetic, *(table.index for table in self.tables.values()))

    def only(self, wanted: Container[str]) -> Features:
        """What these participants have; modalities that none of them has are gone."""
        tables = {name: table[[ptid in wanted for ptid in table.index]] for name, table in self.tables.items()}
        return replace(self, tables={name: table for name, table in tables.items() if len(table)},
                       genotypes=self.genotypes and self.genotypes.only(wanted),
                       scans={ptid: path for ptid, path in self.scans.items() if ptid in wanted})

    def modalities(self) -> dict[str, dict]:
        """The "modalities" of dataset.json. Raises NnmissError for fewer than two."""
        entries = {name: {"type": "table", "file": f"tables/{name}.csv", "columns": self.kinds[name],
                          "scaling": "zscore" if name == "imaging" else "minmax"} for name in self.tables}
        if self.genotypes:
            entries["genomic"] = {"type": "array", "file": "genomic.npz", "scaling": "minmax"}
        if self.scans:
            entries["imaging"] = VOLUME
        if len(entries) < 2:
            raise NnmissError(f"the source has {' and '.join(entries) or 'no modality'} alone: files of at least two of "
                              f"{', '.join(MODALITIES)} are needed")
        return {name: entries[name] for name in MODALITIES if name in entries}


def read_tables(files: Sequence[Path]) -> tuple[dict[str, pd.DataFrame], dict[str, Path], list[str]]:
    """Table name -> rows with a PTID, and its file; FreeSurfer's is called "imaging"; which tables are not there.

    Raises NnmissError without the table of diagnoses.
    """
    wanted = {"DXSUM": DIAGNOSIS, **{name: name for name in (*CLINICAL, *BIOSPECIMEN)}, "imaging": FREESURFER}
    paths = {name: path for name, pattern in wanted.items() if (path := find_table(files, pattern))}
    if "DXSUM" not in paths:
        raise NnmissError("the source has no DXSUM table (as DXSUM_09May2024.csv), in which the diagnoses are")
    tables = {name: read_table(path) for name, path in paths.items()}
    ptid_of = participants(list(tables.values()))
    tables = {name: with_ptid(table, ptid_of, paths[name]) for name, table in tables.items()}
    absent = [name for name in (*CLINICAL, *BIOSPECIMEN) if name not in paths]
    return tables, paths, [f"tables that are not in the source: {', '.join(absent)}"] if absent else []


def find_features(files: Sequence[Path], tables: Mapping[str, pd.DataFrame], paths: Mapping[str, Path], wanted: set[str],
                  baseline: bool, imaging: str) -> Features:
    """Everything that the downloads have of the `wanted` participants.

    baseline: values of the first visits, not the last known ones. imaging: one of IMAGING. Raises NnmissError as the
    parts do, and when the imaging asked for is not in the source.
    """
    found = {"clinical": clinical_table(tables, baseline), "biospecimen": biospecimen_table(tables, baseline)}
    scans: dict[str, Path] = {}
    if "imaging" in paths and imaging != "volumes":
        found["imaging"] = freesurfer_table(tables["imaging"], baseline, paths["imaging"])
    elif imaging != "table":
        scans = {ptid: path for ptid, path in find_scans(files, baseline).items() if ptid in wanted}
    if imaging != "auto" and not scans and "imaging" not in found:
        what = {"table": "table such as UCSFFSX7_09Jun2025.csv", "volumes": "NIfTI such as 002_S_0295_2006-04-18.nii.gz"}
        raise NnmissError(f"--imaging {imaging}: the source has no {what[imaging]} of a participant with a diagnosis")
    kept, kinds, left_out = {}, {}, {}
    for name, table in found.items():
        table = table[table.index.isin(list(wanted))]
        kinds[name], left_out[name] = column_kinds(table)
        table = table[list(kinds[name])].dropna(how="all")
        if len(table):
            kept[name] = table
    beds = filesets(files)
    genotypes, notes = read_genotypes(beds, wanted) if beds else (None, [])
    return Features(kept, kinds, {name: why for name, why in left_out.items() if why},
                    genotypes if genotypes and genotypes.participants else None, scans, notes)
