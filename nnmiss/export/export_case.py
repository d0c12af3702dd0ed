"""One prediction as the files that a BraTS portal takes: the year's labels, in the case's own header."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnmiss.atomic_files import read_json
from nnmiss.brats_ids import id_form, of_others
from nnmiss.brats_years import Challenge
from nnmiss.errors import NnmissError
from nnmiss.evaluation.label_maps import read_label_map
from nnmiss.evaluation.predictions import Prediction
from nnmiss.export.enhancing_rule import EnhancingRule
from nnmiss.export.nifti_files import nifti_bytes, reference_header
from nnmiss.export.placement import find_placement
from nnmiss.export.uncertainty_maps import uncertainty_maps

OfficialLabels = dict[int, tuple[str, int | None]]  # see label_names.official_labels


@dataclass(frozen=True)
class CaseRules:
    """What holds for all cases of an export.

    Attributes:
        labels: integer in the predictions -> (name, integer in the challenge's files or None).
        et_rule: None leaves ET as it is.
        uncertainty: also make the year's uncertainty maps.
        any_id: names that are no ids of the year are let through.
    """

    challenge: Challenge
    dataset_json: dict
    labels: OfficialLabels
    et_rule: EnhancingRule | None = None
    uncertainty: bool = False
    any_id: bool = False


def export_case(prediction: Prediction, reference: Path, rules: CaseRules) -> tuple[dict[str, bytes], dict]:
    """Makes the files of one case, in memory.

    Returns:
        file name -> content, and what the manifest says of the case: modalities_used, voxels (label -> number),
        et_suppressed, turned (axes were permuted or flipped), source, reference, and model (of CASE.json, or None).

    Raises NnmissError, without the case's name, for anything that would make the submission wrong: an id of another form,
    a label the year does not have, another geometry, damaged files, a CASE.json that says otherwise than the folder.
    """
    challenge, path = rules.challenge, prediction.path
    if not rules.any_id and not challenge.is_id(prediction.case):
        raise NnmissError(wrong_id([prediction.case], challenge))
    model = _model(prediction)
    header = reference_header(reference)
    placement = find_placement(path, reference, "Nibabel" in str(rules.dataset_json.get("overwrite_image_reader_writer")))
    label_map = read_label_map(path, rules.dataset_json)
    labels = label_map.labels.reshape((1,) * (3 - len(label_map.file_shape)) + label_map.file_shape)  # (z, y, x)
    volumes = {"": to_official(labels, rules.labels, challenge)}
    suppressed = False
    if rules.et_rule:
        volumes[""], suppressed = rules.et_rule.apply(volumes[""], challenge)
    if rules.uncertainty:
        maps = uncertainty_maps(prediction, labels, rules.dataset_json, challenge)
        volumes.update({f"_{name}": values for name, values in maps.items()})
    counts = np.bincount(volumes[""].reshape(-1), minlength=256)
    files = {f"{prediction.case}{suffix}.nii.gz": nifti_bytes(placement.apply(volume.T), header)
             for suffix, volume in volumes.items()}
    return files, {
        "modalities_used": prediction.subset.split("+"),
        "voxels": {name: int(counts[value]) for name, value in challenge.labels.items()},
        "et_suppressed": suppressed,
        "turned": placement.turned,
        "source": str(path.resolve()),
        "reference": str(reference.resolve()),
        "model": model,
    }


def wrong_id(cases: list[str], challenge: Challenge) -> str:
    """What to say of names that are no ids of the challenge."""
    whose = of_others(cases, challenge)
    what = (f"ids are {whose}, not of {challenge.title}: give that year" if whose else
            f"no case id of {challenge.title}, as {id_form(challenge)} (N is a digit): name the file as the case")
    return f"{what}; --any_id lets it through for a rehearsal"


def to_official(labels: np.ndarray, mapping: OfficialLabels, challenge: Challenge) -> np.ndarray:
    """Integers of the data set -> those of the challenge, uint8, same shape.

    Raises NnmissError for a value that the data set does not know, and for a label that the challenge does not have.
    """
    known = {0, *mapping}
    allowed = np.zeros(max(known) + 1, bool)
    allowed[list(known)] = True
    if labels.min() < 0 or labels.max() >= len(allowed) or not allowed[labels].all():
        unknown = sorted({int(v) for v in np.unique(labels)} - known)
        raise NnmissError(f"the prediction holds {unknown[:5]}, which dataset.json does not name; it names "
                          f"{', '.join(f'{value} {name}' for value, (name, _) in mapping.items())}")
    table = np.zeros(len(allowed), np.uint8)
    for value, (name, official) in mapping.items():
        if official is not None:
            table[value] = official
        elif voxels := int(np.count_nonzero(labels == value)):
            raise NnmissError(f"it lost a label in mapping: {voxels} voxels are {name} ({value}), and {challenge.title} "
                              f"has only {', '.join(challenge.labels)}: export for a year that has {name}, or replace "
                              "it in the prediction first")
    return table[labels]


def _model(prediction: Prediction) -> dict | None:
    """The model of CASE.json, None without one. Raises NnmissError when it was predicted with other modalities."""
    record = prediction.path.with_name(f"{prediction.case}.json")
    if not record.is_file():
        return None
    content = read_json(record, "record of the prediction", ())
    used = content.get("modalities_used")  # in any order
    if used is not None and {str(u).lower() for u in used} != set(prediction.subset.lower().split("+")):
        raise NnmissError(f"{record} says that {'+'.join(map(str, used))} was used, its folder says {prediction.subset}: "
                          "move the case to the folder of its subset")
    return content.get("model")
