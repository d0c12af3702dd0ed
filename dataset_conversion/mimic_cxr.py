"""The chest X-ray of a stay: the last AP image taken in its window, from a MIMIC-CXR-JPG folder."""
from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from nnmiss.dataset_conversion.mimic_tables import read_chunks
from nnmiss.errors import NnmissError

WINDOWS = ("first48h", "stay")
VIEW = "AP"  # taken lying in bed, as in an ICU
METADATA = ("mimic-cxr-*-metadata.csv", "mimic-cxr-*-metadata.csv.gz")
FIRST_HOURS = 48


@dataclass(frozen=True)
class Radiograph:
    """An image by its ids; where its file lies depends on the download (see `image_path`)."""

    dicom_id: str
    subject_id: str
    study_id: str


def pair_images(folder: str | os.PathLike, stays: pd.DataFrame, window: str) -> dict[str, Radiograph]:
    """Stay id -> its image; stays without one are not in it.

    Args:
        folder: of MIMIC-CXR-JPG, with mimic-cxr-2.0.0-metadata.csv (or .csv.gz) in it.
        stays: as `mimic_stays.read_stays`; subjects are compared as text.
        window: "first48h": from admission to the unit to 48 hours later; "stay": to discharge from it.

    Of images at the same time the one with the last dicom id counts. Raises NnmissError when the metadata are absent or
    no subject of theirs has a stay.
    """
    images = read_metadata(folder)
    paired = images.merge(stays[["subject_id", "stay_id", "intime", "outtime"]], "inner", "subject_id")
    if paired.empty:
        raise NnmissError(f"no subject in {folder} is a patient of the stays: MIMIC-CXR goes with MIMIC-IV, not with "
                          "MIMIC-III, whose ids are others")
    end = paired["outtime"] if window == "stay" else paired["intime"] + pd.Timedelta(hours=FIRST_HOURS)
    paired = paired[(paired["time"] >= paired["intime"]) & (paired["time"] <= end)]
    last = paired.sort_values(["stay_id", "time", "dicom_id"]).drop_duplicates("stay_id", keep="last")
    return {row.stay_id: Radiograph(row.dicom_id, row.subject_id, row.study_id) for row in last.itertuples()}


def read_metadata(folder: str | os.PathLike) -> pd.DataFrame:
    """dicom_id, subject_id, study_id (text) and time of the AP images. Raises NnmissError for a time that is none."""
    found = [path for form in METADATA for path in sorted(Path(folder).glob(form))]
    if not found:
        raise NnmissError(f"no mimic-cxr-2.0.0-metadata.csv or .csv.gz in {folder}: the second folder of -i is that of "
                          "MIMIC-CXR-JPG, with its metadata and images")
    columns = ["dicom_id", "subject_id", "study_id", "viewposition", "studydate", "studytime"]
    images = pd.concat([piece[piece["viewposition"] == VIEW] for piece in read_chunks(found[0], columns)])
    clock = images["studytime"].str.split(".").str[0].str.zfill(6)  # 4512.5 is 00:45:12
    images["time"] = pd.to_datetime(images["studydate"].str.strip() + clock, format="%Y%m%d%H%M%S", errors="coerce")
    bad = images[images["time"].isna()]
    if len(bad):
        first = bad.iloc[0]
        raise NnmissError(f"{found[0]}: image {first.dicom_id} has StudyDate {first.studydate} and StudyTime "
                          f"{first.studytime}, expected YYYYMMDD and HHMMSS ({len(bad)} such images)")
    return images[["dicom_id", "subject_id", "study_id", "time"]]


def image_path(folder: str | os.PathLike, image: Radiograph) -> Path:
    """The file of an image, in the official folders or flat in `resized` or the folder itself.

    Raises NnmissError when it is in none of them.
    """
    folder, name = Path(folder), f"{image.dicom_id}.jpg"
    official = Path("files", f"p{image.subject_id[:2]}", f"p{image.subject_id}", f"s{image.study_id}", name)
    places = [folder / official, folder / "resized" / name, folder / name]
    for place in places:
        if place.is_file():
            return place
    raise NnmissError(f"its X-ray is not there: neither {official} nor resized/{name} in {folder}; download it, or convert "
                      "without the X-ray folder")
