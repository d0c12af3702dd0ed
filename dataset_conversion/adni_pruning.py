"""Linkage-disequilibrium pruning of variants: plink where it is installed, else pairwise r2 in moving windows."""
from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from nnmiss.dataset_conversion.adni_genotypes import MISSING, Genotypes, bed_reader
from nnmiss.errors import NnmissError

PRUNERS = ("auto", "plink", "own", "none")
WINDOW, STEP, MAX_R2 = 50, 5, 0.1  # variants, variants; as published for ADNI


def prune(genotypes: Genotypes | None, split: Mapping[str, str], pruner: str) -> tuple[np.ndarray, str]:
    """`kept_variants` by the participants whose split is train; nothing to keep without genotypes.

    Raises NnmissError when none of the training participants has genotypes.
    """
    if genotypes is None:
        return np.zeros(0, bool), "none"
    rows = [i for i, ptid in enumerate(genotypes.participants) if split.get(ptid) == "train"]
    if not rows:
        raise NnmissError("no training participant has genotypes: which variants to keep is decided on them")
    return kept_variants(genotypes, rows, pruner)


def kept_variants(genotypes: Genotypes, rows: list[int], pruner: str = "auto") -> tuple[np.ndarray, str]:
    """(S,) bool which variants stay, and which pruner decided.

    Args:
        genotypes: of everybody.
        rows: those of the training participants, who alone decide; variants that do not vary among them go.
        pruner: one of PRUNERS; "auto" is plink when it is on the PATH, else our own.
    """
    calls = genotypes.calls[rows]
    known = calls != MISSING
    low, high = np.where(known, calls, 3).min(0, initial=3), np.where(known, calls, -1).max(0, initial=-1)
    varies = high > low  # (S,)
    if pruner == "auto":
        pruner = "plink" if shutil.which("plink") else "own"
    if pruner == "none":
        return varies, "none"
    kept = varies.copy()
    part = Genotypes([genotypes.participants[r] for r in rows], genotypes.variants[varies], calls[:, varies])
    kept[varies] = by_plink(part) if pruner == "plink" else by_windows(part.calls, part.variants["chromosome"].to_numpy())
    return kept, pruner


def by_windows(calls: np.ndarray, chromosome: np.ndarray) -> np.ndarray:
    """(S,) bool: windows of WINDOW variants move by STEP along each chromosome; of a pair above MAX_R2 the one with the
    rarer minor allele goes, the first one of equals.

    Args:
        calls: (N, S) int8 in order of position, MISSING where not called (taken as the variant's mean in r2).
        chromosome: (S,) sorted.
    """
    kept = np.ones(calls.shape[1], bool)
    for name in dict.fromkeys(chromosome.tolist()):
        of_it = np.flatnonzero(chromosome == name)
        for start in range(0, max(1, len(of_it) - STEP), STEP):
            window = of_it[start:start + WINDOW]
            window = window[kept[window]]
            if len(window) > 1:
                kept[window] = _prune_window(calls[:, window])
    return kept


def _prune_window(calls: np.ndarray) -> np.ndarray:
    """(W,) bool for calls (N, W)."""
    known = calls != MISSING
    frequency = np.where(known, calls, 0).sum(0) / (2 * known.sum(0))
    rarity = np.minimum(frequency, 1 - frequency)
    centred = np.where(known, calls - 2 * frequency, 0)
    unit = centred / np.linalg.norm(centred, axis=0)
    linked = np.triu((unit.T @ unit) ** 2 > MAX_R2, 1)
    kept = np.ones(len(rarity), bool)
    for i, j in zip(*np.nonzero(linked)):
        if kept[i] and kept[j]:
            kept[i if rarity[i] <= rarity[j] else j] = False
    return kept


def by_plink(genotypes: Genotypes) -> np.ndarray:
    """(S,) bool from plink 1.9's --indep-pairwise. Raises NnmissError with plink's last lines when it fails."""
    program = shutil.which("plink")
    if program is None:
        raise NnmissError("plink is not on the PATH: install PLINK 1.9, or choose --pruning own")
    with tempfile.TemporaryDirectory() as folder:
        bed, out = Path(folder, "training.bed"), Path(folder, "pruned")
        variants = genotypes.variants
        bed_reader().to_bed(bed, genotypes.calls, properties={
            "fid": genotypes.participants, "iid": genotypes.participants, "sid": variants["id"].tolist(),
            "chromosome": variants["chromosome"].tolist(), "bp_position": variants["position"].tolist(),
            "allele_1": variants["allele"].tolist(), "allele_2": variants["other"].tolist()}, num_threads=1)
        done = subprocess.run([program, "--bfile", str(bed.with_suffix("")), "--out", str(out), "--allow-no-sex",
                               "--indep-pairwise", str(WINDOW), str(STEP), str(MAX_R2)], capture_output=True, text=True)
        kept = out.with_suffix(".prune.in")
        if done.returncode or not kept.is_file():
            raise NnmissError(f"plink failed with exit code {done.returncode}: "
                              f"{(done.stdout + done.stderr).strip()[-500:]}; --pruning own does without it")
        names = set(kept.read_text().split())
    return variants["id"].isin(names).to_numpy()
