"""Labels and regions as given on the command line: names, integers, and the order in which regions are written."""
from __future__ import annotations

from collections.abc import Sequence

from nnmiss.errors import NnmissError, nearest_names


def parse_labels(items: Sequence[str]) -> dict[str, int]:
    """Label name -> integer from "NAME=INTEGER". Raises NnmissError for other forms, doubles, the background."""
    labels: dict[str, int] = {}
    for item in items:
        name, equals, value = item.partition("=")
        name, value = name.strip(), value.strip()
        if not equals or not name or not value.isdecimal():
            raise NnmissError(f"--labels takes NAME=INTEGER, as lesion=1, got {item!r}")
        if int(value) == 0 or name.lower() in ("background", "ignore"):
            if int(value) == 0 and name.lower() == "background":
                continue
            raise NnmissError(f"--labels {item}: 0 is the background, and no other label is called so (nor 'ignore')")
        if name in labels or int(value) in labels.values():
            raise NnmissError(f"--labels {item}: each name and each integer once")
        labels[name] = int(value)
    if len(labels) > 255:
        raise NnmissError(f"--labels names {len(labels)} labels, at most 255 fit into a label file")
    return labels


def parse_regions(items: Sequence[str], labels: dict[str, int]) -> tuple[dict[str, list[str]], list[str]]:
    """Region -> its label names, and for each region the label it stands for where no later region covers it.

    nnU-Net predicts regions and writes them over each other, so a region must have exactly one label that no later
    region has. Regions are put in order of size, largest first, which leaves well-ordered ones as they are.

    Args:
        items: "NAME=LABEL,LABEL" with names of `labels` or their integers.
        labels: name -> integer in the source.

    Raises NnmissError for unknown labels, labels in no region, and regions from which labels cannot be told.
    """
    regions = dict(sorted(_named_regions(items, labels).items(), key=lambda entry: -len(entry[1])))
    if all(len(members) == 1 for members in regions.values()):
        raise NnmissError("--regions: every region is a single label, which --labels alone says: leave --regions out")
    return regions, _own_labels(regions, labels)


def _named_regions(items: Sequence[str], labels: dict[str, int]) -> dict[str, list[str]]:
    """Region -> its label names, as given. Raises NnmissError for other forms, doubles and unknown labels."""
    by_integer = {str(value): name for name, value in labels.items()}
    regions: dict[str, list[str]] = {}
    for item in items:
        region, equals, members = item.partition("=")
        region = region.strip()
        members = [by_integer.get(m.strip(), m.strip()) for m in members.split(",") if m.strip()]
        if not equals or not region or not members or region in regions:
            raise NnmissError(f"--regions takes NAME=LABEL,LABEL,... with each name once, got {item!r}")
        if region.lower() in ("background", "ignore"):
            raise NnmissError(f"--regions {item}: a region cannot be called {region}")
        for member in members:
            if member not in labels:
                raise NnmissError(f"--regions {item}: no label {member!r} in --labels. "
                                  f"{nearest_names(member, list(labels))}")
        regions[region] = list(dict.fromkeys(members))
    return regions


def _own_labels(regions: dict[str, list[str]], labels: dict[str, int]) -> list[str]:
    """For each region the one label no later region has. Raises NnmissError where there is none, or several."""
    last = {label: region for region, members in regions.items() for label in members}
    lost = [label for label in labels if label not in last]
    if lost:
        raise NnmissError(f"--regions: {', '.join(lost)} is in no region: put each label into one (nnU-Net needs all)")
    own = {region: [label for label in labels if last[label] == region] for region in regions}
    bad = [f"{region} alone would have to stand for {' and '.join(found) or 'no label'}"
           for region, found in own.items() if len(found) != 1]
    if bad:
        raise NnmissError("--regions: labels cannot be told from these regions, as each needs exactly one label that no "
                          f"smaller region has: {'; '.join(bad)}")
    return [found[0] for found in own.values()]
