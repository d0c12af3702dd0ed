"""Genotypes of PLINK filesets: the variants that all sets have, counted for one allele, one row per participant."""
from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd

from nnmiss.atomic_files import write_text
from nnmiss.dataset_conversion.adni_tables import PTID
from nnmiss.dataset_conversion.sample_folder import write_values
from nnmiss.errors import NnmissError

MISSING = -127  # bed-reader's
AUTOSOMES = {str(n) for n in range(1, 23)}
COMPLEMENT = {"A": "T", "T": "A", "C": "G", "G": "C"}


@dataclass(frozen=True)
class Genotypes:
    """calls: (N, S) int8, copies of `allele` (0, 1, 2), MISSING where not called. variants: columns id, chromosome,
    position, allele, other; sorted by chromosome and position. participants: PTID of each row."""

    participants: list[str]
    variants: pd.DataFrame
    calls: np.ndarray

    def only(self, wanted: Container[str]) -> Genotypes | None:
        """The rows of these participants; None when there are none."""
        rows = [i for i, ptid in enumerate(self.participants) if ptid in wanted]
        return Genotypes([self.participants[i] for i in rows], self.variants, self.calls[rows]) if rows else None


def bed_reader() -> ModuleType:
    """The package that reads PLINK files. Raises NnmissError when it is not installed."""
    try:
        import bed_reader
    except ImportError:
        raise NnmissError('genotypes are read with bed-reader: pip install "nnmiss[genetics]"') from None
    return bed_reader


def filesets(files: Sequence[Path]) -> list[Path]:
    """The .bed files with their .bim and .fam. Raises NnmissError when one of the three is not there."""
    found = [path for path in files if path.suffix.lower() == ".bed"]
    for path in found:
        for ending in (".bim", ".fam"):
            if not path.with_suffix(ending).is_file():
                raise NnmissError(f"{path} has no {path.with_suffix(ending).name} beside it: a PLINK set is .bed, .bim and "
                                  ".fam")
    return found


def read_genotypes(beds: Sequence[Path], wanted: set[str]) -> tuple[Genotypes, list[str]]:
    """Genotypes of the `wanted` participants, and sentences about what was done.

    Variants are matched by their id (rs number), not by position, so sets of different genome builds fit together without
    liftOver. Kept are autosomal variants with alleles A, C, G, T that every set has with the same two alleles; a set that
    counts the other allele, or reports the other strand, is turned round; A/T and C/G variants, whose strand cannot be
    known, are left out as soon as there is more than one set. A participant in several sets keeps the row with the fewest
    missing calls.
    """
    bims, common = [_variants(path) for path in beds], None
    for bim in bims:
        common = bim.index if common is None else common.intersection(bim.index)
    reference = bims[0].loc[common]
    turned = [_turned(reference, bim.loc[common]) for bim in bims]  # 1 as it is, -1 other allele counted, 0 does not fit
    fits = np.all([turn != 0 for turn in turned], axis=0)
    if len(beds) > 1:
        fits &= (reference["allele"].map(COMPLEMENT) != reference["other"]).to_numpy()
    variants = reference[fits]
    if variants.empty:
        raise NnmissError(f"no variant is in all of {', '.join(path.name for path in beds)}: their ids must be rs numbers")
    order = np.lexsort((variants["position"], variants["chromosome"].astype(int)))
    variants = variants.iloc[order]
    rows: dict[str, np.ndarray] = {}
    for path, bim, turn in zip(beds, bims, turned):
        for ptid, calls in _rows(path, bim.loc[variants.index, "number"].to_numpy(), wanted).items():
            calls = np.where((turn[fits][order] < 0) & (calls != MISSING), 2 - calls, calls).astype(np.int8)
            if ptid not in rows or (calls == MISSING).sum() < (rows[ptid] == MISSING).sum():
                rows[ptid] = calls
    found = sorted(rows)
    calls = np.stack([rows[ptid] for ptid in found]) if found else np.zeros((0, len(variants)), np.int8)
    notes = [f"variants in all of {len(beds)} PLINK sets: {len(common)}, usable: {len(variants)}; participants with "
             f"genotypes: {len(found)}"]
    return Genotypes(found, variants.drop(columns="number").rename_axis("id").reset_index(), calls), notes


def _variants(path: Path) -> pd.DataFrame:
    """Variant id -> number in the file, chromosome, position, allele, other; ids that come twice are left out."""
    try:
        bim = pd.read_csv(path.with_suffix(".bim"), sep=r"\s+", header=None, dtype=str, keep_default_na=False,
                          names=["chromosome", "id", "morgan", "position", "allele", "other"])
        bim["position"] = bim["position"].astype(np.int64)
    except (ValueError, OSError, pd.errors.ParserError) as error:
        raise NnmissError(f"{path.with_suffix('.bim')} is no PLINK .bim file ({error}): download it again") from None
    bim["number"] = np.arange(len(bim))
    bim["id"] = bim["id"].str.removeprefix("GSA-")  # ADNI3's array says GSA-rs123 for rs123
    letters = bim["allele"].isin(COMPLEMENT) & bim["other"].isin(COMPLEMENT) & (bim["allele"] != bim["other"])
    kept = bim[letters & bim["chromosome"].isin(AUTOSOMES) & ~bim["id"].duplicated(keep=False) & (bim["id"] != ".")]
    return kept.set_index("id")[["chromosome", "position", "allele", "other", "number"]]


def _turned(reference: pd.DataFrame, own: pd.DataFrame) -> np.ndarray:
    """(S,) how a set's alleles lie to the reference's: 1 the same, -1 the other one counted, 0 neither on either strand."""
    a, b = reference["allele"].to_numpy(), reference["other"].to_numpy()
    turn = np.zeros(len(reference), np.int8)
    for strand in (lambda s: s, lambda s: s.map(COMPLEMENT)):
        x, y = strand(own["allele"]).to_numpy(), strand(own["other"]).to_numpy()
        turn = np.where(turn == 0, np.where((x == a) & (y == b), 1, np.where((x == b) & (y == a), -1, 0)), turn)
    return turn


def _rows(path: Path, columns: np.ndarray, wanted: set[str]) -> Mapping[str, np.ndarray]:
    """PTID -> calls (S,) int8 of the wanted participants of one set."""
    reader = bed_reader()
    try:
        with reader.open_bed(path, num_threads=1) as bed:
            if not bed.iid_count:
                raise ValueError(f"{path.with_suffix('.fam').name} names nobody")
            people = [(row, str(iid)) for row, iid in enumerate(bed.iid) if str(iid) in wanted and PTID.fullmatch(str(iid))]
            if not people:
                return {}
            calls = bed.read(index=np.s_[[row for row, _ in people], columns], dtype="int8")
    except (ValueError, OSError, IndexError) as error:
        raise NnmissError(f"{path} cannot be read as a PLINK set ({error}): download it again") from None
    return {ptid: calls[i] for i, (_, ptid) in enumerate(people)}


def write_genotypes(folder: Path, genotypes: Genotypes, kept: np.ndarray) -> None:
    """genomic.npz (0, 1, 2 and NaN as float16, which holds them exactly) and genomic_variants.csv of the kept variants."""
    calls = genotypes.calls[:, kept]
    values = np.where(calls == MISSING, np.nan, calls).astype(np.float16)
    write_values(folder / "genomic.npz", genotypes.participants, values)
    write_text(folder / "genomic_variants.csv", genotypes.variants[kept].to_csv(index=False, lineterminator="\n"))
