"""What the columns and rows of the portals' score tables are called, and what they are called here."""
from __future__ import annotations

import re
from dataclasses import dataclass

from nnmiss.brats_years import REGION_LABELS, canonical_region

# What stands for a region in a column name. The last four are single labels, which are no regions of converted data sets.
REGIONS = ("wt", "tc", "et", "cc", "rc", "gtv", "netc", "snfh", "ed", "ncr")
REGION_ORDER = tuple(REGION_LABELS)

_REGION = r"(?P<region>" + "|".join(REGIONS) + ")"
# The first that matches the whole name, without regard to case, says which metric; None: known, but not imported.
_COLUMNS = tuple((re.compile(pattern.replace("REGION", _REGION), re.IGNORECASE), metric) for pattern, metric in (
    (r"dice[ _]REGION", "dice"),  # IPP; Synapse 2021 to 2025
    (r"hausdorff(95)?[ _]REGION", "hd95"),
    (r"hd95[ _]REGION", "hd95"),
    (r"sensitivity[ _]REGION", "sensitivity"),
    (r"specificity[ _]REGION", "specificity"),
    (r"lesionwise_dice_REGION", "lesion_dice"),  # 2023 to 2025
    (r"lesionwise_hausdorff95_REGION", "lesion_hd95"),
    (r"lesionwise_dsc_mean_REGION", "lesion_dice"),  # 2026
    (r"lesionwise_hd95_mean_REGION", "lesion_hd95"),
    (r"(.*_)?REGION_global_bin_dsc", "dice"),  # 2025 MET
    (r"(.*_)?REGION_global_bin_hd95", "hd95"),
    (r"precision[ _]REGION", None),
    (r"num_(tp|fp|fn)_REGION", None),
    (r"(lesionwise_)?nsd_\d\.\d_REGION", None),
    (r"lesionwise_(nsd_mean|dsc_std|hd95_std|nsd_std)_REGION", None),
    (r"(all|small)_instance_(tp|fp|fn|f1)_REGION", None),
    (r"(.*_)?REGION_global_bin_nsd", None),
))

ID_COLUMNS = ("", "label", "labels", "scan_id", "subject_id", "id", "name")
SUMMARY_ROWS = ("mean", "std", "stddev", "sd", "median", "25quantile", "75quantile", "quantile25", "quantile75",
                "25%", "50%", "75%", "variance", "count", "min", "max")
# IPP's order where names cannot be read: Dice first, HD95 last, each ET, WT, TC
BY_POSITION = ("et", "wt", "tc")


@dataclass(frozen=True)
class Column:
    """One column of scores: its place and name in the file, and which region and metric of ours it holds."""

    index: int
    name: str
    region: str
    metric: str


@dataclass(frozen=True)
class Header:
    """The columns that are imported, and the names of those that are not: known ones, and ones nobody knows."""

    columns: tuple[Column, ...]
    left_out: tuple[str, ...]
    unknown: tuple[str, ...]
    by_position: bool = False


def read_header(names: list[str]) -> Header:
    """Finds the columns by name; where no name is known, by IPP's positions. `columns` is empty where neither works."""
    columns, left_out, unknown = [], [], []
    for index, name in enumerate(names[1:], start=1):
        matched = _match(name)
        if matched is None:
            if name.strip():
                unknown.append(name)
        elif matched[0] is None:
            left_out.append(name)
        else:
            columns.append(Column(index, name, *matched))
    if not columns and not left_out and len(names) >= 7:
        return Header(_by_position(names), (), (), by_position=True)
    return Header(tuple(columns), tuple(left_out), tuple(unknown))


def _match(name: str) -> tuple[str | None, str] | None:
    """(region, metric); region None where the column is known but not imported; None for an unknown name."""
    plain = name.strip()
    for pattern, metric in _COLUMNS:
        found = pattern.fullmatch(plain)
        if found:
            region = canonical_region(found["region"])
            return (region, metric) if region and metric else (None, "")
    return None


def _by_position(names: list[str]) -> tuple[Column, ...]:
    last = len(names)
    while last > 7 and not names[last - 1].strip():  # a trailing comma
        last -= 1
    places = [(1 + k, region, "dice") for k, region in enumerate(BY_POSITION)]
    places += [(last - 3 + k, region, "hd95") for k, region in enumerate(BY_POSITION)]
    return tuple(Column(index, names[index], canonical_region(region), metric) for index, region, metric in places)
