"""Makes an evaluation folder, with the same tables and figures, of the scores that a BraTS portal returned."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from nnmiss.brats_ids import of_others
from nnmiss.brats_years import CHALLENGES, LABEL_ORDER, REGION_LABELS, Challenge, canonical_region
from nnmiss.errors import NnmissError
from nnmiss.evaluation.conventions import Conventions
from nnmiss.evaluation.label_maps import Regions, regions_of
from nnmiss.evaluation.lesion_rules import LESION_RULES
from nnmiss.evaluation.publish import publish
from nnmiss.evaluation.results import check_comparable, read_method
from nnmiss.export.portal_columns import REGION_ORDER
from nnmiss.export.portal_scores import PortalScores, one_empty, read_portal_scores


@dataclass(frozen=True)
class Imported:
    """What was imported: the summary, and what the user should see."""

    summary: dict
    results: pd.DataFrame
    errors: list[str]
    notes: list[str]


def import_portal_scores(specifications: Sequence[str], output_folder: str | Path, modalities: list[str],
                         dataset_json: dict | None = None, challenge: Challenge | None = None, name: str | None = None,
                         compare: Sequence[str | Path] = (), include_average: bool = False,
                         dataset: str | None = None) -> Imported:
    """Reads `SUBSET=CSV` or `CSV` and writes what `publish` writes.

    Args:
        modalities: the data set's, in channel order: the names subsets are made of.
        dataset_json: for the names of the regions; default whole_tumor, tumor_core, enhancing_tumor and the like.
        challenge: decides the conventions; default: by the form of the case ids.
        name: of the method in the tables; default the output folder's.
        compare, include_average: as in `evaluate_folder`.
        dataset: DatasetXXX_Name of `dataset_json`, written down so that nnmiss_report finds its images.

    Raises:
        NnmissError: a file that is no score table, nothing to import, a year that cannot be told or is not that of the
            ids, or methods that cannot be compared.
    """
    scores = read_portal_scores(specifications, modalities)
    foreign = [case for case in set(scores.results["case"]) if challenge and not challenge.is_id(case)]
    if challenge and (whose := of_others(foreign, challenge)):
        raise NnmissError(f"the ids, as {min(foreign)}, are {whose}, not of {challenge.title}: give the year that they are "
                          "of, or leave --year out where the ids say it")
    found = [region for region in REGION_ORDER if region in set(scores.results["region"])]
    regions, names, notes = _regions(found, dataset_json, challenge)
    results = scores.results[scores.results["region"].isin(names)].reset_index(drop=True)
    empty = [(case, subset, names[region]) for case, subset, region in one_empty(results)]
    results["region"] = results["region"].map(names)
    conventions, more_notes = _conventions(scores, challenge)
    notes = scores.notes + notes + more_notes
    if empty:
        notes.append(f"{len(empty)} values of Dice 0 have the HD95 that portals give where exactly one of truth and "
                     "prediction is empty, or a case could not be scored; such values dominate a mean HD95")
    output_folder = Path(output_folder)
    name = name or output_folder.resolve().name
    others = [read_method(specification, modalities) for specification in compare]
    notes += check_comparable(name, list(regions.members), conventions, others)
    summary = publish(output_folder, results, empty, name, modalities, regions, conventions, others=others,
                      include_average=include_average, notes=notes, errors=scores.errors,
                      sources={"portal": [str(path) for path in scores.files], **({"dataset": dataset} if dataset else {})})
    return Imported(summary, results, scores.errors, summary["notes"])


def _regions(found: list[str], dataset_json: dict | None,
             challenge: Challenge | None) -> tuple[Regions, dict[str, str], list[str]]:
    """The regions of the tables, region of the CSV -> its name there, and notes on what has no counterpart."""
    if dataset_json is None:
        labels = challenge.consecutive_labels() if challenge else _labels_of(found)
        known = [region for region in found if any(label in labels for label in REGION_LABELS[region])]
        members = {r: tuple(labels[label] for label in REGION_LABELS[r] if label in labels) for r in known}
        if not known:
            raise NnmissError(f"the scores are of {', '.join(found)}, which {challenge.title} does not have: check --year "
                              "and --challenge")
        notes = [f"regions that {challenge.title} does not have were left out: {', '.join(set(found) - set(known))}"
                 ] if set(found) - set(known) else []
        return Regions(members, frozenset({0, *labels.values()}), None), {r: r for r in known}, notes
    ours = regions_of(dataset_json)
    matched = {canonical: name for name in ours.members if (canonical := canonical_region(name))}
    names = {region: matched[region] for region in found if region in matched}
    if not names:
        raise NnmissError(f"the scores are of {', '.join(found)}, the data set has {', '.join(ours.members)}: none is the "
                          "same region; give the data set whose regions are those of BraTS, or --modalities")
    notes = [f"{title}: {', '.join(lacking)}" for title, lacking in (
        ("regions of the data set without scores were left out", [n for n in ours.members if n not in names.values()]),
        ("scores of regions that the data set does not have were left out", [r for r in found if r not in names]),
    ) if lacking]
    kept = {name: values for name, values in ours.members.items() if name in names.values()}
    return replace(ours, members=kept), names, notes


def _labels_of(regions: list[str]) -> dict[str, int]:
    """Consecutive integers for the labels that these regions are made of; cc only where it is a region itself."""
    parts = {label for region in regions for label in REGION_LABELS[region]}
    if "cystic_component" not in regions:
        parts.discard("cc")
    return {label: k for k, label in enumerate((name for name in LABEL_ORDER if name in parts), start=1)}


def _conventions(scores: PortalScores, challenge: Challenge | None) -> tuple[Conventions, list[str]]:
    """The conventions of the portal's scoring, and notes on what they do not say.

    Until 2021 CaPTk (HD95 pooled, as medpy), 2023 to 2025 DeepMind's surface-distance, 2025 MET and 2026 panoptica
    (pooled). One empty region scores Dice 0 and a distance of about the image's diagonal in all of them.
    """
    metrics, notes = set(scores.results["metric"]), []
    candidates = [challenge] if challenge else _challenges_of(sorted(set(scores.results["case"])))
    definitions = {candidate.hd95 for candidate in candidates}
    if len(definitions) != 1 and "hd95" in metrics:
        raise NnmissError("the case ids do not say of which year these scores are, and the years define HD95 differently: "
                          "give --year (and --challenge)")
    rules = {f"{c.year}-{c.name}" for c in candidates} & set(LESION_RULES)
    lesionwise = None
    if {"lesion_dice", "lesion_hd95"} & metrics:
        lesionwise = rules.pop() if len(rules) == 1 else None
        if lesionwise is None:
            notes.append("which rules the lesion-wise scores follow is not recorded: "
                         + (f"no rules are known for {challenge.title}" if challenge else "give --year and --challenge"))
    hd95 = definitions.pop() if "hd95" in metrics else "none"
    notes.append("scores of the official portal" + (f" of {challenge.title}" if challenge else "") + ", not computed here")
    return Conventions(hd95=hd95, lesionwise=lesionwise), notes


def _challenges_of(cases: list[str]) -> list[Challenge]:
    """Those whose ids all the cases could be."""
    return [c for c in CHALLENGES.values() if all(c.is_id(case) for case in cases)]
