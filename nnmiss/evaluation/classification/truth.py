"""What predictions are compared with: the classes of samples, from a data set's folder or from memory."""
from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from torch import Tensor

from nnmiss.classification.description import read_description
from nnmiss.classification.manifest import read_manifest
from nnmiss.classification.sample_set import SampleSet
from nnmiss.errors import NnmissError, shortened
from nnmiss.evaluation.classification.conventions import ALL


@dataclass(frozen=True)
class Truth:
    """True classes of N samples.

    ids: unique. subjects: of each sample.
    targets: multiclass (N,) int, -1 unlabelled; binary (N, 1) and multilabel (N, L) float 0/1, NaN unlabelled.
    label_groups: name -> labels, whose means are reported.
    source: where it is from, for summary.json. notes: what is worth knowing.
    """

    ids: list[str]
    subjects: list[str]
    targets: np.ndarray
    task: str
    classes: list[str]
    modalities: list[str]
    label_groups: dict[str, list[str]] = field(default_factory=dict)
    source: str = ""
    notes: list[str] = field(default_factory=list)

    def __post_init__(self):
        names = [ALL, *self.classes, *self.label_groups]
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise NnmissError(f"dataset.json: {twice[0]!r} would name two rows of results, which have one for each class, "
                              f"one for each group of labels and one called {ALL!r}: rename the class or the group")

    @classmethod
    def of_samples(cls, samples: SampleSet, rows: Tensor, task: str, classes: list[str],
                   label_groups: dict[str, list[str]] | None = None, source: str = "") -> Truth:
        """Of preprocessed samples; `rows` (R,) long says which."""
        chosen = rows.tolist()
        return cls([samples.ids[i] for i in chosen], [samples.groups[i] for i in chosen],
                   samples.targets[rows].cpu().numpy(), task, list(classes), list(samples.modalities),
                   dict(label_groups or {}), source)

    @property
    def labelled(self) -> np.ndarray:
        """(N,) bool: at least one label is known."""
        return self.targets >= 0 if self.task == "multiclass" else ~np.isnan(self.targets).all(1)


def read_truth(folder: str | Path) -> Truth:
    """Of the folder of a classification data set: dataset.json and manifest.csv. No file of a modality is read.

    Raises NnmissError when one of them is absent or malformed; wrong cells count as unlabelled and are noted.
    """
    description = read_description(folder)
    manifest = read_manifest(folder, description)
    wrong = [str(problem) for problem in manifest.problems]
    notes = [f"{manifest.path}: {len(wrong)} wrong cell(s) are left out: {shortened(wrong, 3)}"] if wrong else []
    return Truth(manifest.ids, manifest.groups, manifest.targets.numpy(), description.task, description.classes,
                 list(description.modalities), description.label_groups, str(Path(folder).absolute()), notes)
