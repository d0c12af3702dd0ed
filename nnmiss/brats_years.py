"""In what the BraTS years and challenges differ: case ids, labels in files, geometry, what a submission must look like."""
from __future__ import annotations

import re
from dataclasses import dataclass

from nnmiss.brats_portals import PORTALS, Portal
from nnmiss.errors import NnmissError

# Canonical names of labels and how data sets and papers also call them, lower case, words separated by one space.
LABEL_SYNONYMS = {
    "ncr": ("ncr", "net", "netc", "ncr/net", "ncr net", "necrosis", "necrotic core", "necrotic tumor core",
            "necrotic tumour core", "non enhancing tumor", "non enhancing tumour", "non enhancing tumor core",
            "non enhancing tumour core"),
    "ed": ("ed", "edema", "oedema", "peritumoral edema", "peritumoural oedema", "snfh",
           "surrounding non enhancing flair hyperintensity"),
    "et": ("et", "enhancing", "enhancing tumor", "enhancing tumour", "enhancing tissue"),
    "cc": ("cc", "cyst", "cystic component"),
    "rc": ("rc", "resection cavity", "cavity"),
    "gtv": ("gtv", "gross tumor volume", "gross tumour volume"),
}

# Region -> labels in it; which of them a challenge has follows from its labels. The resection cavity is in neither WT
# nor TC (BraTS 2024). The order is that in which nnU-Net writes regions over each other.
REGION_LABELS = {
    "whole_tumor": ("ed", "ncr", "cc", "et"),
    "tumor_core": ("ncr", "cc", "et"),
    "cystic_component": ("cc",),
    "enhancing_tumor": ("et",),
    "resection_cavity": ("rc",),
    "gross_tumor_volume": ("gtv",),
}

REGION_SYNONYMS = {  # of regions of one label, those of the label
    "whole_tumor": ("wt", "whole tumor", "whole tumour", "whole"),
    "tumor_core": ("tc", "tumor core", "tumour core", "core"),
}

# What is written behind the id in the names of a case's files, without separators and in lower case.
FILE_KINDS = {
    "flair": ("flair", "t2f", "t2flair"),
    "t1": ("t1", "t1n", "t1w"),
    "t1ce": ("t1ce", "t1c", "t1gd", "t1post"),
    "t2": ("t2", "t2w"),
    "label": ("seg", "segm", "segmentation", "gtv"),
}
KIND_OF = {word: kind for kind, words in FILE_KINDS.items() for word in words}

LABEL_ORDER = ("ed", "ncr", "cc", "et", "rc", "gtv")

CLASSIC = {"ncr": 1, "ed": 2, "et": 4}  # 2012 to 2021
CONSECUTIVE = {"ncr": 1, "ed": 2, "et": 3}  # from 2023 on
WITH_CAVITY = {**CONSECUTIVE, "rc": 4}
PEDIATRIC = {"et": 1, "ncr": 2, "cc": 3, "ed": 4}
RADIOTHERAPY = {"gtv": 1}

SRI24 = (240, 240, 155)
POST_TREATMENT = (182, 218, 182)
NAME_PATTERNS = {2023: r"(\d{5}-\d{3})\.nii\.gz$", 2026: r"(\d{5}(?:-\d{3})?)\.nii\.gz$"}  # 2024 and 2025 share one
MODERN_ID = r"BraTS-{challenge}-\d{{5}}-\d{{3}}"


@dataclass(frozen=True)
class Challenge:
    """One challenge of one year. Sources: the organisers' evaluation code and wikis, see documentation/reference/brats.md.

    Attributes:
        labels: canonical label name -> integer in the challenge's files; the background is 0.
        id_pattern: what the name of a case looks like (regular expression, full match).
        name_pattern: what the portal's validator searches for in a file name (2023 and later), None before.
        shape: voxels that the validator demands (2023, 2024) or that all images of the year have (until 2021), None where
            any is accepted.
        geometry: "reference": origin, spacing and direction must be the case's own image's, exactly (the 2020 and 2021
            scoring); "qform": the qform must be that of SRI24, exactly (2023); "none".
        validation_cases: how many the official validation set has, None where nobody says.
        uncertainty: the year asks for uncertainty maps besides the segmentation (task 3).
        modalities: of the files, in nnmiss' names and order.
        hd95: which HD95 its scoring computes: "brats2020" (pooled over both directions: CaPTk, panoptica) or "brats2023".
    """

    year: int
    name: str
    labels: dict[str, int]
    id_pattern: str
    name_pattern: str | None
    shape: tuple[int, int, int] | None
    geometry: str
    validation_cases: int | None = None
    uncertainty: bool = False
    modalities: tuple[str, ...] = ("flair", "t1", "t1ce", "t2")
    hd95: str = "brats2020"

    @property
    def portal(self) -> Portal:
        """Of its year."""
        return PORTALS[self.year]

    @property
    def title(self) -> str:
        """As 'BraTS 2023 GLI'."""
        return f"BraTS {self.year} {self.name}"

    def is_id(self, name: str) -> bool:
        """Whether a case may be called so."""
        return re.fullmatch(self.id_pattern, name) is not None

    def consecutive_labels(self) -> dict[str, int]:
        """Label name -> 1, 2, ... in the order in which nnU-Net writes regions over each other (edema first)."""
        here = [name for name in LABEL_ORDER if name in self.labels]
        return {name: k for k, name in enumerate(here, start=1)}

    def regions(self) -> dict[str, tuple[str, ...]]:
        """Region name -> its label names, those of this challenge only; regions that repeat another are left out."""
        found: dict[str, tuple[str, ...]] = {}
        for region, members in REGION_LABELS.items():
            here = tuple(m for m in members if m in self.labels)
            if here and here not in found.values():
                found[region] = here
        return found


def _modern(year: int, name: str, labels: dict[str, int], shape=SRI24, geometry="none", hd95="brats2023",
            **more) -> Challenge:
    """A challenge of 2023 or later."""
    pattern = NAME_PATTERNS.get(year, r"(\d{4,5}-\d{1,3})\.nii\.gz$")
    return Challenge(year, name, labels, MODERN_ID.format(challenge=name), pattern, shape, geometry, hd95=hd95,
                     **more)


def _radiotherapy(year: int) -> Challenge:
    return Challenge(year, "MEN-RT", RADIOTHERAPY, r"BraTS-MEN-RT-\d{4}-\d", r"(\d{4,5}-\d{1,3})\.nii\.gz$", None, "none",
                     modalities=("t1ce",), hd95="brats2023")


_ALL = (
    Challenge(2018, "GLI", CLASSIC, r"Brats18_[A-Za-z0-9]+_[A-Za-z0-9]+_1", None, SRI24, "none", 66),
    Challenge(2019, "GLI", CLASSIC, r"BraTS19_[A-Za-z0-9]+_[A-Za-z0-9]+_1", None, SRI24, "none", 125, uncertainty=True),
    Challenge(2020, "GLI", CLASSIC, r"BraTS20_(Training|Validation|Testing)_\d{3}", None, SRI24, "reference", 125,
              uncertainty=True),
    Challenge(2021, "GLI", CLASSIC, r"BraTS2021_\d{5}", r"(\d{5})\.nii\.gz$", SRI24, "reference", 219),
    *(_modern(2023, name, CONSECUTIVE, geometry="qform", validation_cases=219 if name == "GLI" else None)
      for name in ("GLI", "SSA", "MEN", "MET", "PED")),
    _modern(2024, "GLI", WITH_CAVITY, shape=POST_TREATMENT),
    _modern(2024, "SSA", CONSECUTIVE),
    _modern(2024, "MET", CONSECUTIVE),
    _modern(2024, "PED", PEDIATRIC),
    _radiotherapy(2024),
    # 2025 GLI holds cases before (240 x 240 x 155) and after treatment (182 x 218 x 182); its validator asks no shape
    _modern(2025, "GLI", WITH_CAVITY, shape=None),
    _modern(2025, "SSA", CONSECUTIVE, shape=None),
    _modern(2025, "MEN", CONSECUTIVE, shape=None),
    _modern(2025, "MET", WITH_CAVITY, shape=None, hd95="brats2020"),
    _modern(2025, "PED", PEDIATRIC, shape=None),
    _radiotherapy(2025),
    _modern(2026, "MET", WITH_CAVITY, shape=None, geometry="reference", hd95="brats2020"),
    _modern(2026, "PED", PEDIATRIC, shape=None, geometry="reference", hd95="brats2020"),
)
CHALLENGES = {(c.year, c.name): c for c in _ALL}
YEARS = tuple(sorted({c.year for c in _ALL}))


def find_challenge(year: int, name: str = "GLI") -> Challenge:
    """The challenge of a year, whatever the case of `name`. Raises NnmissError with the list of those that are known."""
    if year == 2022:
        raise NnmissError("BraTS 2022 used the data and the labels of 2021: give year 2021")
    challenge = CHALLENGES.get((year, name.upper()))
    if challenge is None:
        known = "; ".join(f"{y} {', '.join(c.name for c in _ALL if c.year == y)}" for y in YEARS)
        raise NnmissError(f"no BraTS challenge {name} of {year} is known here, these are: {known}")
    return challenge


def canonical_label(name: str) -> str | None:
    """'ncr', 'ed', 'et', 'cc', 'rc' or 'gtv' for a name in any of the usual spellings; None for others."""
    words = _words(name)
    return next((label for label, names in LABEL_SYNONYMS.items() if words in names), None)


def canonical_region(name: str) -> str | None:
    """'whole_tumor' for 'WT' or 'Whole-Tumour', 'resection_cavity' for 'RC', and so on; None for others."""
    words, label = _words(name), canonical_label(name)
    return next((region for region, members in REGION_LABELS.items()
                 if words in REGION_SYNONYMS.get(region, ()) or members == (label,)), None)


def _words(name: str) -> str:
    """Lower case, words separated by one space."""
    return " ".join(re.split(r"[\s_\-]+", name.strip().lower()))
