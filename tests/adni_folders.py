"""A small folder of ADNI's official downloads, its participants and values made up: tables, PLINK sets and scans."""
from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd

SUBJECTS = [f"{n % 4 + 1:03d}_S_{1000 + n}" for n in range(40)]  # diagnosis of number n: n % 3
CONVERTER, UNKNOWN = "005_S_2000", "005_S_2001"  # one whose diagnosis changes, one without a diagnosis at a visit
CLINICAL, GENETIC, FLUID, SCANNED = SUBJECTS[:38], SUBJECTS[5:], SUBJECTS[::2], SUBJECTS[:30]
FIRST_SET, SECOND_SET = GENETIC[:20], GENETIC[18:]  # two participants are in both


def make_adni(root: Path, volumes: bool = False, genotypes: bool = True) -> Path:
    """Writes the downloads below `root`; returns it. volumes: NIfTI instead of FreeSurfer's table."""
    everybody = [*SUBJECTS, CONVERTER, UNKNOWN]
    visits = [(ptid, code, date) for ptid in everybody for code, date in (("bl", "2010-03-01"), ("m12", "2011-03-05"))]
    table(root / "diagnosis/DXSUM_PDXCONV_22Apr2024.csv", visits, DIAGNOSIS=[
        {CONVERTER: "2" if code == "bl" else "3", UNKNOWN: "1" if code == "bl" else ""}.get(
            ptid, str(everybody.index(ptid) % 3 + 1) + (".0" if code == "bl" else "")) for ptid, code, _ in visits])
    make_clinical(root / "clinical", [visit for visit in visits if visit[0] in CLINICAL])
    fluid = [(ptid, "bl", "2010-03-02") for ptid in FLUID]
    apoe = table(root / "biospecimen/APOERES_09May2024.csv", fluid[:-1], GENOTYPE=["4/3"] * (len(fluid) - 1))
    assert "PTID" in apoe
    assays = [("bl", "9"), ("m12", ">1700")]
    elecsys = table(root / "biospecimen/UPENNBIOMK_ROCHE_ELECSYS_09May2024.csv",
                    [(ptid, code, "2010-03-02" if code == "bl" else "2011-03-02") for ptid in FLUID for code, _ in assays],
                    ABETA42=[a for _ in FLUID for _, a in assays],
                    TAU=[str(200 + 10 * i + k) for i in range(len(FLUID)) for k in (0, 1)],
                    PTAU=["<8", "-4"] * len(FLUID))
    elecsys.assign(PHASE="ADNI3").drop(columns="PTID").to_csv(  # the assays know RID alone, and another phase
        root / "biospecimen/UPENNBIOMK_ROCHE_ELECSYS_09May2024.csv", index=False)
    if genotypes:
        make_genotypes(root / "genomic")
    make_scans(root / "image") if volumes else make_freesurfer(root / "image")
    return root


def table(path: Path, visits: list[tuple[str, str, str]], **columns: list[str]) -> pd.DataFrame:
    """A table with ADNI's usual columns around `columns`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = pd.DataFrame({"PHASE": "ADNI1", "PTID": [v[0] for v in visits], "RID": [int(v[0][-4:]) for v in visits],
                         "VISCODE": [v[1] for v in visits], "VISCODE2": [v[1] for v in visits],
                         "EXAMDATE": [v[2] for v in visits], **columns, "ID": range(len(visits)), "SITEID": 7,
                         "update_stamp": "2024-01-01 00:00:00.0"})
    rows.to_csv(path, index=False)
    return rows


def make_clinical(folder: Path, visits: list[tuple[str, str, str]]) -> None:
    numbers = [SUBJECTS.index(v[0]) for v in visits]
    first = [v[1] == "bl" for v in visits]
    table(folder / "PTDEMOG_09May2024.csv", visits, PTGENDER=[str(n % 2 + 1) for n in numbers],
          PTDOB=[f"0{n % 9 + 1}/{1930 + n}" for n in numbers], PTEDUCAT=[str(8 + n % 12) for n in numbers],
          PTCOGBEG=[str(2000 + n % 3) for n in numbers], PTADBEG=[str(2001 + n % 3) for n in numbers],
          PTADDX=[str(2002 + n % 3) for n in numbers])
    table(folder / "VITALS_09May2024.csv", visits,
          VSWEIGHT=[str(150 + n) if b else "-4" for n, b in zip(numbers, first)],
          VSWTUNIT=["1" if b else "-4" for b in first],
          VSBPSYS=[str(110 + n + 5 * (not b)) for n, b in zip(numbers, first)])
    table(folder / "MEDHIST_09May2024.csv", visits, MHPSYCH=[str(n % 2) for n in numbers],
          MHCOMM=[f"note {n} of {b}" for n, b in zip(numbers, first)])
    drugs = [(v, drug) for v in visits for drug in ("Aspirin", "DONEPEZIL 5 mg")[:1 + SUBJECTS.index(v[0]) % 2]]
    table(folder / "RECCMEDS_09May2024.csv", [v for v, _ in drugs], CMMED=[drug for _, drug in drugs])


def make_freesurfer(folder: Path) -> None:
    rng = np.random.default_rng(0)
    visits = [(ptid, code, date) for ptid in SCANNED for code, date in (("sc", "2010-02-20"), ("m12", "2011-02-20"))]
    quality = ["Fail" if v[0] == SCANNED[0] and v[1] == "m12" else "Pass" for v in visits]
    regions = {name: rng.normal(1000, 50, len(visits)).round(1).astype(str) for name in ("ST24CV", "ST29SV", "ST24TA")}
    table(folder / "UCSFFSX7_09Jun2025.csv", visits, OVERALLQC=quality, ST24TS=["0.5"] * len(visits), **regions)


def make_scans(folder: Path) -> None:
    for number, ptid in enumerate(SCANNED):
        for year in (2010, 2012):
            voxels = np.full((6, 7, 5), 10 * number + year - 2010, np.float32)
            place = folder / f"{ptid}_{year}-04-18" if number % 2 else folder
            place.mkdir(parents=True, exist_ok=True)
            name = "brain.nii.gz" if number % 2 else f"{ptid}_{year}-04-18.nii.gz"
            nib.save(nib.Nifti1Image(voxels, np.eye(4)), place / name)


def make_genotypes(folder: Path) -> None:
    """Two PLINK sets: variants rs1 (and a copy rs2), rs3 with the other allele counted in the second set, rs4 on the other
    strand there, rs5 A/T, rs6 in the first set only, rs7 an insertion, rs8 on X, rs9 independent on chromosome 2."""
    from bed_reader import to_bed

    folder.mkdir(parents=True, exist_ok=True)
    calls = true_calls()
    names = ["rs1", "rs2", "rs3", "rs4", "rs5", "rs6", "rs7", "rs8", "rs9"]
    alleles = [("A", "G"), ("C", "T"), ("A", "C"), ("A", "G"), ("A", "T"), ("G", "A"), ("I", "D"), ("A", "G"), ("T", "G")]
    chromosomes = ["1"] * 7 + ["23", "2"]
    for number, people in enumerate((FIRST_SET, SECOND_SET)):
        own = np.array([calls[ptid] for ptid in people], np.int8)
        counted, other = [list(side) for side in zip(*alleles)]
        keep = [i for i, name in enumerate(names) if not (number and name == "rs6")]
        if number:
            own[:, 2] = np.where(own[:, 2] == -127, -127, 2 - own[:, 2])
            counted[2], other[2] = other[2], counted[2]
            counted[3], other[3] = "T", "C"  # A/G read on the other strand
            own[0, :] = -127  # of the participant in both sets nothing is known here
        to_bed(folder / f"ADNI_set_{number + 1}.bed", own[:, keep], properties={
            "fid": people, "iid": people, "sid": [("GSA-" * number) + names[i] for i in keep],
            "chromosome": [chromosomes[i] for i in keep], "bp_position": [100 * i + 7 * number for i in keep],
            "allele_1": [counted[i] for i in keep], "allele_2": [other[i] for i in keep]})


def true_calls() -> dict[str, np.ndarray]:
    """PTID -> copies of each variant's allele; rs2 is rs1, and some of rs1's calls are missing."""
    rng = np.random.default_rng(1)
    calls = rng.integers(0, 3, (len(GENETIC), 9))
    calls[:, 1] = calls[:, 0]
    calls[::9, 0] = -127
    return dict(zip(GENETIC, calls.astype(np.int8)))
