"""Small predicted enhancing tumours suppressed, as a column besides the one of the prediction as it is.

Most BraTS years score an enhancing tumour (ET) that is predicted where there is none with Dice 0, and one that is rightly
absent with 1; so papers remove predicted ET of fewer than 500 voxels, say, before scoring ET. mmFormer and RFNet do so for
the ET column only; nnU-Net's BraTS 2020 entry relabelled such ET as necrosis (NCR), which leaves the tumour core as it was.
"""
from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from nnmiss.errors import NnmissError
from nnmiss.evaluation.conventions import Conventions
from nnmiss.evaluation.label_maps import Regions
from nnmiss.evaluation.lesion_rules import find_rules
from nnmiss.evaluation.tables import SUPPRESSED, region_title
from nnmiss.export.label_names import label_names


@dataclass(frozen=True)
class Suppression:
    """What is done to a prediction with little ET.

    Attributes:
        min_voxels: ET of fewer voxels, but any, is replaced.
        et: its integer in the label maps.
        replacement: the integer that it gets.
        columns: region -> name of its suppressed column, for the regions that have one.
    """

    min_voxels: int
    et: int
    replacement: int
    columns: dict[str, str]

    def applies(self, et_voxels: int) -> bool:
        """Whether a prediction with so many voxels of ET is changed."""
        return 0 < et_voxels < self.min_voxels

    def replaced(self, labels: np.ndarray) -> np.ndarray:
        """The label map with its ET replaced."""
        return np.where(labels == self.et, labels.dtype.type(self.replacement), labels)


def suppression_of(regions: Regions, conventions: Conventions, names: dict[str, int]) -> Suppression | None:
    """The suppression that `conventions` ask for; None where they ask for none.

    With "background" only the region that is ET alone has a suppressed column; larger regions keep these voxels. With "ncr"
    also the regions that have NCR without ET, as where labels are evaluated one by one.

    Args:
        names: see `names_needed`.

    Raises NnmissError where no region is ET, or there is no NCR to replace it with.
    """
    if conventions.et_threshold is None:
        return None
    et = names.get("et")
    columns = {r: r + SUPPRESSED for r, members in regions.members.items() if members == (et,)}
    if not columns:
        raise NnmissError("the data set has no region that is the enhancing tumour alone, so nothing can be suppressed "
                          f"(regions: {', '.join(regions.members)}): leave --et_min_voxels out")
    replacement = 0
    if conventions.et_replace == "ncr":
        if "ncr" not in names:
            raise NnmissError("the data set has no label NCR that the enhancing tumour could be replaced with: use "
                              "--et_replace background")
        replacement = names["ncr"]
        columns |= {r: r + SUPPRESSED for r, members in regions.members.items()
                    if replacement in members and et not in members}
    twice = sorted(set(columns.values()) & set(regions.members))
    if twice:
        raise NnmissError(f"the data set has a region called {twice[0]}, which is what a suppressed column is called: "
                          "rename it in dataset.json")
    return Suppression(conventions.et_threshold, et, replacement, columns)


def evaluated_regions(regions: Regions, suppression: Suppression | None) -> Regions:
    """The regions with every suppressed column behind the one it is of."""
    if suppression is None:
        return regions
    members = {}
    for region, values in regions.members.items():
        members[region] = values
        if region in suppression.columns:
            members[suppression.columns[region]] = values
    return replace(regions, members=members)


def names_needed(dataset_json: dict, regions: Regions, conventions: Conventions) -> dict[str, int]:
    """Canonical label name -> integer, as far as `conventions` need them; empty where they do not.

    Raises NnmissError where they cannot be told from dataset.json.
    """
    joins = conventions.lesionwise is not None and find_rules(conventions.lesionwise).joins
    if conventions.et_threshold is None and not joins:
        return {}
    try:
        return label_names(dataset_json)
    except NnmissError as error:
        et = [members for region, members in regions.members.items() if region_title(region) == "ET" and len(members) == 1]
        if joins:
            raise NnmissError(f"lesion-wise metrics by {conventions.lesionwise} need to know which label is what: {error}. "
                              "Those of 2023 do not need it") from None
        if conventions.et_replace == "ncr" or not et:
            raise NnmissError(f"--et_min_voxels needs to know which label is the enhancing tumour: {error}") from None
        return {"et": et[0][0]}
