"""What converters hand over and get back: a case as found, what dataset.json says, what was written."""
from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class SourceCase:
    """One case as a converter found it.

    images: modality name -> NIfTI file; absent modalities are not in it. label: None only allowed for test cases.
    problem: what the converter found wrong already; the case is then reported, not converted.
    stacked: all `images` are one 4-D file, which holds them as its volumes in this order.
    """

    name: str
    images: dict[str, Path]
    label: Path | None
    test: bool = False
    problem: str | None = None
    stacked: bool = False


@dataclass(frozen=True)
class RawDataset:
    """What dataset.json says: modality names in channel order, nnU-Net's labels, and where the data are from.

    label_values: the integers a label file may hold, when it is written as it is.
    label_map: integer in the source -> ours, for sources with integers of their own; None is `label_values` unchanged.
    label_hint: what to try when a file holds others, appended to the message.
    extra: further entries of dataset.json.
    """

    name: str
    modalities: tuple[str, ...]
    labels: dict[str, int | list[int]]
    label_values: tuple[int, ...]
    description: str
    extra: dict = field(default_factory=dict)
    label_map: dict[int, int] | None = None
    label_hint: str = ""

    @property
    def source_labels(self) -> dict[int, int]:
        """Integer in the source's label files -> integer in ours."""
        return self.label_map or {value: value for value in self.label_values}


@dataclass
class ConversionSummary:
    """What was written: case -> modalities on disk for training and test cases, case -> message for failed ones.

    splits: the folds written to splits_final.json, if any. notes: sentences about what is no error but worth knowing.
    errors: sentences about what went wrong and is no case.
    """

    folder: Path
    modalities: tuple[str, ...]
    training: dict[str, list[str]]
    test: dict[str, list[str]]
    failed: dict[str, str]
    splits: list[dict[str, list[str]]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def untrained(self) -> list[str]:
        """A sentence for every fold and modality that none of the fold's training cases has."""
        return [f"fold {k}: no training case has {m}, so this fold cannot learn it"
                for k, fold in enumerate(self.splits) for m in self.modalities
                if not any(m in self.training[case] for case in fold["train"])]
