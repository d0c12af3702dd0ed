"""Which tumour part each integer of a data set's label files is, by name, and the integers that a BraTS year wants."""
from __future__ import annotations

from nnmiss.brats_years import LABEL_ORDER, Challenge, canonical_label, canonical_region
from nnmiss.errors import NnmissError

ADVICE = ('add to dataset.json which integer of the label files is what, as "brats": {"label_names": {"ed": 1, "ncr": 2, '
          f'"et": 3}}}}; names are {", ".join(LABEL_ORDER)}')


def label_names(dataset_json: dict) -> dict[str, int]:
    """Canonical label name ('ncr', 'ed', 'et', 'cc', 'rc', 'gtv') -> integer in the data set's label files, ascending.

    From the first of these that dataset.json has: "brats" -> "label_names"; "labels" with one integer each, whose names
    `canonical_label` knows; "labels" that are regions (whole tumour, tumour core, enhancing tumour, ...), from which ED
    is what only the whole tumour has, NCR what the core has besides ET and cysts.

    Raises NnmissError, saying what to write into dataset.json, when an integer cannot be named.
    """
    sets = _label_sets(dataset_json)
    integers = set().union(*sets.values())
    if "brats" in dataset_json:
        names = _stated(dataset_json["brats"])
    elif all(len(members) == 1 for members in sets.values()) and any(canonical_label(name) for name in sets):
        names = _plain(sets)
    else:
        names = _from_regions(sets)
    if set(names.values()) != integers or len(names) != len(integers):
        raise NnmissError(f"dataset.json: the names {names} do not cover the labels {sorted(integers)} one to one: "
                          + ADVICE)
    return dict(sorted(names.items(), key=lambda item: item[1]))


def official_labels(dataset_json: dict, challenge: Challenge) -> dict[int, tuple[str, int | None]]:
    """Integer in our label files -> (canonical name, integer in the challenge's files; None where it has no such label).

    Raises NnmissError as `label_names`, and when the data set and the challenge share no label at all.
    """
    names = label_names(dataset_json)
    if not set(names) & set(challenge.labels):
        raise NnmissError(f"the data set's labels ({', '.join(names)}) and those of {challenge.title} "
                          f"({', '.join(challenge.labels)}) have nothing in common: give the year and challenge "
                          "that the model was trained for")
    return {value: (name, challenge.labels.get(name)) for name, value in names.items()}


def _label_sets(dataset_json: dict) -> dict[str, frozenset[int]]:
    """Name -> its integers, without background and ignore label."""
    labels = dataset_json.get("labels")
    if not isinstance(labels, dict):
        raise NnmissError(f'dataset.json: "labels" must map names to values, got {labels!r}')
    try:
        sets = {name: frozenset(int(v) for v in (value if isinstance(value, list | tuple) else [value]))
                for name, value in labels.items() if name != "ignore"}
    except (TypeError, ValueError):
        raise NnmissError(f'dataset.json: "labels" must hold integers or lists of them, got {labels}') from None
    sets = {name: members for name, members in sets.items() if members and members != {0}}
    if not sets:
        raise NnmissError(f'dataset.json: "labels" has no foreground: {labels}')
    return sets


def _stated(brats: dict) -> dict[str, int]:
    """What dataset.json's "brats" entry says."""
    stated = brats.get("label_names") if isinstance(brats, dict) else None
    if not isinstance(stated, dict) or not all(type(value) is int for value in stated.values()):
        raise NnmissError(f'dataset.json: "brats" must hold "label_names", names with integers, got {brats!r}: ' + ADVICE)
    return _plain({name: frozenset([value]) for name, value in stated.items()})


def _plain(sets: dict[str, frozenset[int]]) -> dict[str, int]:
    """One integer per name. Raises NnmissError for names nobody uses, and two that mean the same."""
    found: dict[str, int] = {}
    for name, (value,) in sets.items():
        canonical = canonical_label(name)
        if canonical is None or canonical in found:
            why = "is no label of BraTS" if canonical is None else f"means {canonical}, as label {found[canonical]} does"
            raise NnmissError(f"dataset.json: label {name!r} ({value}) {why}: " + ADVICE)
        found[canonical] = value
    return found


def _from_regions(sets: dict[str, frozenset[int]]) -> dict[str, int]:
    """Labels by set algebra: each of ED, NCR, ET, ... must come out as one integer."""
    regions = {canonical_label(name) or canonical_region(name) or name: members for name, members in sets.items()}
    rest = {name: members for name, members in regions.items() if name in LABEL_ORDER}
    inner = frozenset().union(*(rest[name] for name in ("et", "cc") if name in rest))
    whole, core = regions.get("whole_tumor"), regions.get("tumor_core")
    if core:
        rest["ncr"] = core - inner
    if whole and core:
        rest["ed"] = whole - core
    vague = {name: sorted(members) for name, members in rest.items() if len(members) > 1}
    unnamed = set().union(*sets.values()) - set().union(*rest.values())
    if vague or unnamed:
        what = [f"{name} would be the labels {members}" for name, members in vague.items()]
        what += [f"label {value} stays without a name" for value in sorted(unnamed)]
        raise NnmissError(f"dataset.json: which label is what cannot be derived from {sorted(sets)} "
                          f"({'; '.join(what)}): " + ADVICE)
    return {name: next(iter(members)) for name, members in rest.items() if members}
