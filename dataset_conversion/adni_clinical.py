"""The clinical and biospecimen tables of ADNI as one row per participant, without columns that give the diagnosis away."""
from __future__ import annotations

import re
from collections.abc import Mapping

import pandas as pd

from nnmiss.dataset_conversion.adni_tables import at_baseline, per_participant

CLINICAL = ("PTDEMOG", "VITALS", "MEDHIST", "NEUROEXM", "RECCMEDS")
BIOSPECIMEN = ("APOERES", "UPENNBIOMK_ROCHE_ELECSYS")
LEAKS = ("PTCOGBEG", "PTADDX", "PTADBEG", "PTMCIBEG")  # beginnings of columns: when symptoms or the diagnosis began
ADMINISTRATION = {"PHASE", "COLPROT", "ORIGPROT", "PTID", "RID", "ID", "SITEID", "VISCODE", "VISCODE2", "RECNO",
                  "UPDATE_STAMP", "HAS_QC_ERROR", "DD_CRF_VERSION_LABEL", "LANGUAGE_CODE", "VISORDER"}
ANALYTES = ("ABETA", "ABETA40", "ABETA42", "TAU", "PTAU")
DEMENTIA_DRUGS = re.compile(r"aricept|donepezil|namenda|memantine|namzaric|razadyne|reminyl|galantamine|exelon|"
                            r"rivastigmine|cognex|tacrine|aducanumab|aduhelm|lecanemab|leqembi|donanemab|kisunla",
                            re.IGNORECASE)
# value column -> its unit column, the code of the unit that is converted, and how (to kg, cm, degrees Celsius)
UNITS = {"VSWEIGHT": ("VSWTUNIT", "1", lambda v: v * 0.453592), "VSHEIGHT": ("VSHTUNIT", "1", lambda v: v * 2.54),
         "VSTEMP": ("VSTMPUNT", "1", lambda v: (v - 32) * 5 / 9)}
MAX_CATEGORIES = 20  # a text column with more is free text
MAX_CODES = 10  # a column of numbers with at most so many different ones is a code


def clinical_table(tables: Mapping[str, pd.DataFrame], baseline: bool) -> pd.DataFrame:
    """PTID -> the columns TABLE_COLUMN of the clinical tables, text; missing where a participant is not in a table."""
    parts = {}
    for name in CLINICAL:
        if name == "RECCMEDS" and name in tables:
            parts[name] = _medications(tables[name], baseline)
        elif name in tables:
            parts[name] = per_participant(_metric(_year_of_birth(tables[name])), baseline)
    return _joined(parts)


def biospecimen_table(tables: Mapping[str, pd.DataFrame], baseline: bool) -> pd.DataFrame:
    """PTID -> APOE genotype and the assays of the cerebrospinal fluid, whose "<" and ">" are taken off, text."""
    parts = {}
    if "APOERES" in tables:
        table = tables["APOERES"]
        if "GENOTYPE" not in table and {"APGEN1", "APGEN2"} <= set(table.columns):
            table = table.assign(GENOTYPE=table["APGEN1"] + "/" + table["APGEN2"])
        if "GENOTYPE" in table:
            parts["APOERES"] = per_participant(table[_visit_columns(table) + ["GENOTYPE"]], False)  # the same at all visits
            parts["APOERES"]["GENOTYPE"] = parts["APOERES"]["GENOTYPE"].map(_ordered, na_action="ignore")
    if "UPENNBIOMK_ROCHE_ELECSYS" in tables:
        table = tables["UPENNBIOMK_ROCHE_ELECSYS"]
        assays = [name for name in ANALYTES if name in table]
        values = table[_visit_columns(table) + assays].copy()
        for name in assays:
            number = pd.to_numeric(values[name].str.replace(r"[<>\s]", "", regex=True), errors="coerce")
            values[name] = number.map(_plain, na_action="ignore").astype(object)
        parts["ELECSYS"] = per_participant(values, baseline)
    return _joined(parts)


def column_kinds(table: pd.DataFrame) -> tuple[dict[str, str], dict[str, str]]:
    """Column -> "numeric" or "categorical", and column -> why it was left out.

    Looks at the form of the cells only: nothing of their distribution, and no diagnosis, decides.
    """
    kinds, left_out = {}, {}
    for name in table:
        cells = table[name].dropna()
        different = cells.nunique()
        if different < 2:
            left_out[name] = "empty" if cells.empty else "the same for all"
        elif pd.to_numeric(cells, errors="coerce").notna().all():
            measured = different > MAX_CODES or bool(re.search(r"_(VS(?!.*UN)|PTEDUCAT|NUMMEDS|AB|TAU|PTAU)", name))
            kinds[name] = "numeric" if measured else "categorical"
        elif different <= MAX_CATEGORIES:
            kinds[name] = "categorical"
        else:
            left_out[name] = f"free text ({different} different cells)"
    return kinds, left_out


def _joined(parts: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """One table, columns named TABLE_COLUMN; participants without any value are not in it."""
    if not parts:
        return pd.DataFrame()
    table = pd.concat([part[[c for c in part if _is_feature(c)]].add_prefix(f"{name}_") for name, part in parts.items()],
                      axis=1).sort_index()
    return table[table.notna().any(axis=1)]


def _is_feature(column: str) -> bool:
    return column not in ADMINISTRATION and "DATE" not in column and not column.startswith(LEAKS)


def _visit_columns(table: pd.DataFrame) -> list[str]:
    """Participant, visit and time, by which rows are chosen."""
    return [c for c in ("PTID", "VISCODE", "VISCODE2", "EXAMDATE", "VISDATE", "USERDATE", "UPDATE_STAMP") if c in table]


def _medications(table: pd.DataFrame, baseline: bool) -> pd.DataFrame:
    """How many different drugs a participant takes, those against dementia not counted: they follow from the diagnosis."""
    rows = at_baseline(table) if baseline else table
    drug = rows.get("CMMED", pd.Series(None, index=rows.index, dtype=object)).str.upper()
    drug = drug.mask(drug.str.contains(DEMENTIA_DRUGS).fillna(False).astype(bool))
    count = drug.groupby(rows["PTID"]).nunique()
    return pd.DataFrame({"NUMMEDS": count.map(str)})


def _metric(table: pd.DataFrame) -> pd.DataFrame:
    """Weight, height and temperature in one unit, and without their unit columns; before rows of a person are merged."""
    table = table.copy()
    for value, (unit, code, convert) in UNITS.items():
        if value in table and unit in table:
            number = pd.to_numeric(table[value], errors="coerce")
            number = number.where(table[unit] != code, convert(number)).round(2)
            table[value] = number.where(table[unit].notna()).map(_plain, na_action="ignore").astype(object)
            table = table.drop(columns=unit)
    return table


def _year_of_birth(table: pd.DataFrame) -> pd.DataFrame:
    """PTDOB (MM/YYYY) as PTDOBYY where only the first is there."""
    if "PTDOB" not in table:
        return table
    year = table["PTDOB"].str.extract(r"(\d{4})")[0]
    table = table.drop(columns="PTDOB")
    return table.assign(PTDOBYY=table["PTDOBYY"].fillna(year) if "PTDOBYY" in table else year)


def _ordered(genotype: str) -> str:
    """'3/4' for 4/3."""
    return "/".join(sorted(genotype.replace(" ", "").split("/")))


def _plain(number: float) -> str:
    return f"{number:g}"
