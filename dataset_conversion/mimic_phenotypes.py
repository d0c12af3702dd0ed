"""The 25 phenotypes of each stay, from the diagnosis codes of its admission."""
from __future__ import annotations

import pandas as pd

from nnmiss.dataset_conversion.mimic_definitions import phenotypes
from nnmiss.dataset_conversion.mimic_tables import MimicTables


def read_phenotypes(tables: MimicTables, stays: pd.DataFrame) -> pd.DataFrame:
    """Stay id -> 0 or 1 for each phenotype; stays of admissions without any diagnosis code are not in it.

    An ICD-9 code counts only where it stands as ICD-9, an ICD-10 code only as ICD-10 (V420 is a heart transplant in one and
    a car accident in the other).
    """
    codes = _codes(tables).merge(stays[["hadm_id", "stay_id"]], "inner", "hadm_id")
    meaning = {(version, code): p.name for p in phenotypes() for version, of_it in p.codes.items() for code in of_it}
    codes["phenotype"] = [meaning.get(key) for key in zip(codes["version"], codes["code"])]
    found = set(zip(codes["stay_id"], codes["phenotype"]))
    diagnosed = set(codes["stay_id"])
    kept = [stay for stay in stays["stay_id"] if stay in diagnosed]
    return pd.DataFrame([[int((stay, p.name) in found) for p in phenotypes()] for stay in kept],
                        index=kept, columns=[p.name for p in phenotypes()])


def _codes(tables: MimicTables) -> pd.DataFrame:
    """hadm_id, version ("9" or "10") and code of every diagnosis. MIMIC-IV 1.0 pads codes with spaces."""
    if tables.version == "III":
        codes = tables.read("diagnoses_icd", ["hadm_id", "icd9_code"]).rename(columns={"icd9_code": "code"})
        codes["version"] = "9"
    else:
        codes = tables.read("diagnoses_icd", ["hadm_id", "icd_code", "icd_version"])
        codes = codes.rename(columns={"icd_code": "code", "icd_version": "version"})
    codes = codes.dropna()
    return codes.assign(code=codes["code"].str.strip().str.replace(".", "", regex=False).str.upper(),
                        version=codes["version"].str.strip())
