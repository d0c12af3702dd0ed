"""Which ICU stays the public benchmark keeps, and who of them died in hospital."""
from __future__ import annotations

import numpy as np
import pandas as pd

from nnmiss.dataset_conversion.mimic_tables import MimicTables
from nnmiss.errors import NnmissError

MIN_AGE_YEARS = 18
TIME_FORMAT = "%Y-%m-%d %H:%M:%S"
TIMES = ("intime", "outtime", "admittime", "dischtime", "deathtime", "dod")


def read_stays(tables: MimicTables) -> tuple[pd.DataFrame, list[str]]:
    """The cohort: no transfer between units, one such stay per admission, adults.

    Returns:
        one row per stay, sorted by subject and time, with text ids `subject_id`, `hadm_id`, `stay_id`, times `intime` and
        `outtime`, `hours` (length of stay) and `died` (bool, in hospital); and sentences that count what was left out.

    Raises NnmissError as the tables do, for a stay id that comes twice or is no number, and when no stay is left.
    """
    stays = _unit_stays(tables)
    counts = {"ICU stays in all": len(stays)}
    stays = stays[stays["same_unit"]]
    counts["without transfer between units"] = len(stays)
    stays = stays.merge(_admissions(tables), "inner", ["subject_id", "hadm_id"])
    stays = stays.merge(_patients(tables), "inner", "subject_id")
    stays = stays[stays.groupby("hadm_id")["stay_id"].transform("size") == 1]
    counts["one per admission"] = len(stays)
    for column in TIMES:
        stays[column] = to_time(stays[column])
    stays = stays[_age_years(stays, tables.version) >= MIN_AGE_YEARS]
    counts["of adults"] = len(stays)
    stays["hours"] = pd.to_numeric(stays["los"], errors="coerce") * 24
    stays = stays[stays[["intime", "outtime", "hours"]].notna().all(axis=1)]
    if len(stays) < counts["of adults"]:
        counts["with times and length of stay"] = len(stays)
    if stays.empty:
        raise NnmissError(f"{tables.root}: no stay is left after the cohort's rules "
                          f"({', '.join(f'{name}: {n}' for name, n in counts.items())})")
    stays["died"] = _died(stays)
    stays = stays.sort_values(["subject_id", "intime", "stay_id"]).reset_index(drop=True)
    kept = ["subject_id", "hadm_id", "stay_id", "intime", "outtime", "hours", "died"]
    return stays[kept], [", ".join(f"{name}: {n}" for name, n in counts.items())]


def to_time(text: pd.Series) -> pd.Series:
    """Times as written in MIMIC, with or without the time of day; NaT for anything else."""
    text = text.astype(object)
    times = pd.to_datetime(text, format=TIME_FORMAT, errors="coerce")
    return times.fillna(pd.to_datetime(text, format="%Y-%m-%d", errors="coerce")).astype("datetime64[s]")


def _unit_stays(tables: MimicTables) -> pd.DataFrame:
    """All ICU stays; `same_unit` where the first and last care unit are one (in MIMIC-III the ward too)."""
    units = ["first_careunit", "last_careunit"] + (["first_wardid", "last_wardid"] if tables.version == "III" else [])
    stays = tables.read("icustays", ["subject_id", "hadm_id", tables.stay_column, "intime", "outtime", "los", *units])
    stays = stays.rename(columns={tables.stay_column: "stay_id"})
    ids = stays["stay_id"].astype(object)
    bad = ids[ids.duplicated() | ~ids.map(lambda i: isinstance(i, str) and i.isdecimal())]  # files are called by them
    if len(bad):
        raise NnmissError(f"{tables.paths['icustays']}: stay id {bad.iloc[0]!r} comes more than once or is no number: "
                          "download it again")
    same = stays["first_careunit"] == stays["last_careunit"]
    if tables.version == "III":
        same &= stays["first_wardid"] == stays["last_wardid"]
    return stays.assign(same_unit=same)


def _admissions(tables: MimicTables) -> pd.DataFrame:
    return tables.read("admissions", ["subject_id", "hadm_id", "admittime", "dischtime", "deathtime"])


def _patients(tables: MimicTables) -> pd.DataFrame:
    birth = ["dob"] if tables.version == "III" else ["anchor_age", "anchor_year"]
    return tables.read("patients", ["subject_id", "dod", *birth])


def _age_years(stays: pd.DataFrame, version: str) -> pd.Series:
    """Age at ICU admission. MIMIC-III: in years of 365 days, as the benchmark; those above 89 come out as 300."""
    if version == "III":
        seconds = stays["intime"].to_numpy("datetime64[s]") - to_time(stays["dob"]).to_numpy("datetime64[s]")
        years = np.where(np.isnat(seconds), np.nan, seconds.astype(float) / (365 * 24 * 3600))
        return pd.Series(years, stays.index)
    anchor = stays[["anchor_age", "anchor_year"]].apply(pd.to_numeric, errors="coerce")
    return anchor["anchor_age"] + stays["intime"].dt.year - anchor["anchor_year"]


def _died(stays: pd.DataFrame) -> pd.Series:
    """Whether the date or the time of death lies between admission and discharge."""
    return pd.concat([(stays["admittime"] <= stays[death]) & (stays[death] <= stays["dischtime"])
                      for death in ("dod", "deathtime")], axis=1).any(axis=1)
