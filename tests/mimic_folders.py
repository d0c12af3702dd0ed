"""A small MIMIC release, its patients and values made up, in the layouts of MIMIC-III, MIMIC-IV 1.0 and 2.x."""
from __future__ import annotations

import csv
import gzip
from pathlib import Path

import numpy as np

FORMS = ("III", "IV 1.0", "IV 2.2")
COHORT = [f"1{n:04d}" for n in range(12)]  # patients that the cohort's rules keep: number n died when n % 3 == 0
EXCLUDED = {"minor": "20001", "transfer": "20002", "two stays": "20003", "short": "20004", "no codes": "20005",
            "no events": "20006"}
PLACES = {"III": ("", "", ""), "IV 1.0": ("core", "hosp", "icu"), "IV 2.2": ("hosp", "hosp", "icu")}

# events of the first patient: hours after admission, item, value, unit; and what the episode must hold of them
EVENTS = [
    (0.5, 220179, "120", "mmHg", "Systolic blood pressure", "120"),
    (0.5, 455, "131/72", "mmHg", None, None),  # carevue's form at the same time: the larger value counts
    (1.0, 220045, "80", "bpm", "Heart Rate", "80"),
    (1.5, 220045, "9999", "bpm", None, None),  # an outlier
    (2.0, 223835, "40", None, "Fraction inspired oxygen", "0.4"),
    (2.5, 3420, "0.5", None, "Fraction inspired oxygen", "0.5"),
    (3.0, 223762, "36.9", "?C", "Temperature", "36.9"),
    (3.5, 223761, "98.6", "?F", "Temperature", "37"),
    (4.0, 226531, "200", None, "Weight", "90.7184"),
    (4.5, 3582, "1600", "oz", "Weight", "45.3592"),
    (5.0, 226707, "70", "Inch", "Height", "178"),
    (5.5, 220739, "None", None, "Glascow coma scale eye opening", "None"),
    (6.0, 223900, "No Response-ETT", None, "Glascow coma scale verbal response", "No Response-ETT"),
    (6.5, 198, "15.0", "points", "Glascow coma scale total", "15"),
    (7.0, 115, "Abnormal >3 secs", None, "Capillary refill rate", "1.0"),
    (7.5, 220277, "0.97", "%", "Oxygen saturation", "97"),
    (8.0, 220739, "Asleep", None, None, None),  # no answer of the scale
    (-1.0, 220045, "70", "bpm", None, None),  # before admission
    (50.0, 220045, "95", "bpm", None, None),  # after the 48 hours
]
LAB_EVENTS = [(9.0, 50820, "7.31", "units", "pH", "7.31"), (9.0, 50931, "ERROR", "mg/dL", None, None),
              (9.5, 50931, "140", "mg/dL", "Glucose", "140")]
SHOCK = {"9": "78551", "10": "R570"}
FOREIGN = {"9": "R570", "10": "V420"}  # a code of the one version under the number of the other means nothing


def make_mimic(root: Path, form: str = "III", upper: bool = False, packed: bool = False) -> Path:
    """Writes the tables below `root`; returns the folder to convert.

    upper: names and columns in capitals, as the full MIMIC-III has them. packed: csv.gz.
    """
    tables = {name: [] for name in ("patients", "admissions", "icustays", "diagnoses_icd", "chartevents", "labevents")}
    for number, patient in enumerate(COHORT):
        add_patient(tables, form, patient, died=number % 3 == 0, hours=72, codes=[SHOCK] if number % 2 else [FOREIGN])
        add_events(tables, form, patient, EVENTS if number == 0 else EVENTS[:1])
    add_events(tables, form, COHORT[0], LAB_EVENTS, "labevents")
    add_patient(tables, form, EXCLUDED["minor"], age=17)
    add_patient(tables, form, EXCLUDED["transfer"], units=("MICU", "SICU"))
    add_patient(tables, form, EXCLUDED["two stays"])
    add_stay(tables, form, EXCLUDED["two stays"], stay=f"9{EXCLUDED['two stays']}")
    add_patient(tables, form, EXCLUDED["short"], hours=20)
    add_patient(tables, form, EXCLUDED["no codes"], codes=[])
    add_patient(tables, form, EXCLUDED["no events"])
    for patient in (p for name, p in EXCLUDED.items() if name != "no events"):
        add_events(tables, form, patient, EVENTS[:3])
    core, hosp, icu = PLACES[form]
    for name, folder in zip(tables, (core, core, icu, hosp, icu, hosp)):
        write_table(root / folder, name, tables[name], upper, packed)
    return root


def add_patient(tables: dict, form: str, patient: str, died: bool = False, hours: float = 60, age: int = 60,
                units: tuple[str, str] = ("MICU", "MICU"), codes: tuple[dict, ...] = (SHOCK,)) -> None:
    """A patient with one admission and one ICU stay, `hours` long."""
    out = "2150-02-01 00:00:00" if died else None
    born = {"dob": f"{2150 - age}-06-01 00:00:00" if age != 60 else "1850-06-01 00:00:00"} if form == "III" else \
        {"anchor_age": age, "anchor_year": 2150}
    tables["patients"].append({"subject_id": patient, "dod": out, **born})
    tables["admissions"].append({"subject_id": patient, "hadm_id": f"3{patient}", "admittime": "2150-01-10 06:00:00",
                                 "dischtime": "2150-02-01 12:00:00", "deathtime": out})
    add_stay(tables, form, patient, hours=hours, units=units)
    for code in codes:
        for version in ("9",) if form == "III" else ("9", "10"):
            name = {"icd9_code": code[version]} if form == "III" else \
                {"icd_code": code[version] + " " * ("1.0" in form), "icd_version": version}
            tables["diagnoses_icd"].append({"subject_id": patient, "hadm_id": f"3{patient}", "seq_num": 1, **name})


def stay_of(patient: str) -> str:
    return f"4{patient}"


def add_stay(tables: dict, form: str, patient: str, stay: str | None = None, hours: float = 60,
             units: tuple[str, str] = ("MICU", "MICU")) -> None:
    name = {"icustay_id" if form == "III" else "stay_id": stay or stay_of(patient)}
    wards = {"first_wardid": 1, "last_wardid": 1} if form == "III" else {}
    tables["icustays"].append({"subject_id": patient, "hadm_id": f"3{patient}", **name, "first_careunit": units[0],
                               "last_careunit": units[1], **wards, "intime": time_at(0), "outtime": time_at(hours),
                               "los": hours / 24})


def add_events(tables: dict, form: str, patient: str, events: list[tuple], table: str = "chartevents") -> None:
    for hours, item, value, unit, *_ in events:
        name = {} if table == "labevents" else {"icustay_id" if form == "III" else "stay_id": stay_of(patient)}
        tables[table].append({"subject_id": patient, "hadm_id": f"3{patient}", **name, "itemid": item,
                              "charttime": time_at(hours), "value": value, "valuenum": None, "valueuom": unit})


def time_at(hours: float) -> str:
    """Hours after every stay's admission."""
    return str(np.datetime64("2150-01-10T08:00:00") + np.timedelta64(round(hours * 3600), "s")).replace("T", " ")


def write_table(folder: Path, name: str, rows: list[dict], upper: bool, packed: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    style = str.upper if upper else str
    path = folder / (style(name) + (".csv.gz" if packed else ".csv"))
    with (gzip.open if packed else open)(path, "wt", newline="") as file:
        writer = csv.DictWriter(file, ["row_id", *rows[0]])
        file.write(",".join(style(column) for column in writer.fieldnames) + "\n")
        writer.writerows({"row_id": number, **row} for number, row in enumerate(rows))


def make_cxr(root: Path, images: list[tuple[str, float, str]], packed: bool = False, flat: bool = False) -> list[Path]:
    """A MIMIC-CXR-JPG folder with images of (patient, hours after admission, view); returns their files.

    Image k is grey with level 10 * (k + 1) in its middle.
    """
    from skimage.io import imsave

    root.mkdir(parents=True, exist_ok=True)
    rows, paths = [], []
    for k, (patient, hours, view) in enumerate(images):
        day, clock = time_at(hours).split(" ")
        seconds = f"{int(clock.replace(':', '')):d}.{k}"  # as in the official table: 4512.0 for 00:45:12
        rows.append({"dicom_id": f"d{k}", "subject_id": patient, "study_id": f"5{k:07d}", "ViewPosition": view,
                     "StudyDate": day.replace("-", ""), "StudyTime": seconds})
        folder = root / "resized" if flat else root / "files" / f"p{patient[:2]}" / f"p{patient}" / f"s5{k:07d}"
        folder.mkdir(parents=True, exist_ok=True)
        imsave(folder / f"d{k}.jpg", np.full((320, 300), 10 * (k + 1), np.uint8), check_contrast=False, quality=100)
        paths.append(folder / f"d{k}.jpg")
    path = root / ("mimic-cxr-2.0.0-metadata.csv" + (".gz" if packed else ""))
    with (gzip.open if packed else open)(path, "wt", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return paths
