"""What manifest.json of an export says: from what, by which rules and with which modalities each file was made."""
from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

from nnmiss import __version__
from nnmiss.export.export_case import CaseRules
from nnmiss.export.output_folder import MADE_BY


def describe_subset(name: str, cases: dict[str, dict], missing: list[str], sha256: str | None) -> dict:
    """The entry of one subset: its folder and zip (None when no case could be exported), its cases."""
    return {
        "folder": name if sha256 else None,
        "zip": f"{name}.zip" if sha256 else None,
        "sha256": sha256,
        "n_cases": len(cases),
        "missing": missing,
        "cases": cases,
    }


def describe_export(pred: Path, references: Path, rules: CaseRules, subsets: dict[str, dict], absent: list[str],
                    failures: list[dict], notes: list[str], num_references: int) -> dict:
    """The whole manifest. Takes "model" out of the cases, as a list of those that differ, and leaves its index."""
    challenge, rule = rules.challenge, rules.et_rule
    here = {name for name, _ in rules.labels.values()}
    lacking = [label for label in challenge.labels if label not in here]
    notes = list(notes)
    if lacking:
        notes.append(f"the model has no label {', '.join(lacking)} of {challenge.title}: no prediction holds it")
    if rules.any_id:
        notes.append("--any_id: case names were not checked; the portal accepts only ids of the year")
    return {
        "made_by": MADE_BY,
        "nnmiss_version": __version__,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "year": challenge.year,
        "challenge": challenge.name,
        "predictions": str(pred.resolve()),
        "references": str(references.resolve()),
        "n_references": num_references,
        "any_id": rules.any_id,
        "labels": [{"name": name, "in_prediction": value, "in_submission": official}
                   for value, (name, official) in rules.labels.items()],
        "et_rule": {"min_voxels": rule.min_voxels, "replace": rule.replace} if rule else None,
        "uncertainty": rules.uncertainty,
        "models": _collect_models(subsets),
        "subsets": subsets,
        "absent_subsets": absent,
        "failures": failures,
        "notes": notes,
    }


def _collect_models(subsets: dict[str, dict]) -> list[dict]:
    """The different models of all cases; in each case its index replaces it (None where no CASE.json names one)."""
    models: list[dict] = []
    for subset in subsets.values():
        for case in subset["cases"].values():
            model = case["model"]
            if model is not None and model not in models:
                models.append(model)
            case["model"] = None if model is None else models.index(model)
    return models
