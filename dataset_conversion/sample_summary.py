"""What a converter of a classification data set wrote, and how the command says it."""
from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from nnmiss.dataset_conversion.raw_types import ConversionSummary

LEFT_OUT = "left_out.json"  # sample id -> why it was not converted; written when there are any
PARTS = {"train": "training", "val": "validation", "test": "test", "": "other"}  # of the column `split`


@dataclass
class SampleSummary(ConversionSummary):
    """A ConversionSummary whose cases are samples; `training` also holds the validation samples.

    parts: split ("" where the data set has none) -> its sample ids.
    classes: split -> class or label -> how many of its samples have it; "" counts the unlabelled ones.
    tables: names of the missing tables that were written, below missing/.
    named_splits: names of the splits that were written, below splits/.
    """

    parts: dict[str, list[str]] = field(default_factory=dict)
    classes: dict[str, dict[str, int]] = field(default_factory=dict)
    tables: list[str] = field(default_factory=list)
    named_splits: list[str] = field(default_factory=list)

    def untrained(self) -> list[str]:
        """A sentence for every modality that no sample for training has (no sample at all without a split)."""
        train = self.parts.get("train") or self.parts.get("", [])
        return [f"no training sample has {m}, so this data set cannot teach it" for m in self.modalities
                if train and not any(m in self.modalities_of(sample) for sample in train)]

    def modalities_of(self, sample: str) -> list[str]:
        """What a sample has."""
        return self.training[sample] if sample in self.training else self.test[sample]

    def lines(self) -> list[str]:
        """Samples of each part, how many have each set of modalities, classes; then splits and missing tables."""
        lines = []
        for part, ids in self.parts.items():
            having = Counter(m for sample in ids for m in self.modalities_of(sample))
            lines.append(f"{PARTS[part]} samples: {len(ids)}; "
                         + ", ".join(f"{m} {having[m]}" for m in self.modalities))
            patterns = Counter("+".join(self.modalities_of(sample)) for sample in ids)
            if len(patterns) > 1:
                lines.append("  with " + ", ".join(f"{name} only {n}" if name.count("+") + 1 < len(self.modalities)
                                                    else f"all {n}" for name, n in patterns.most_common()))
            counts = self.classes.get(part, {})
            lines.append("  " + ", ".join(f"{name or 'unlabelled'} {n}" for name, n in counts.items() if n or name))
        if self.named_splits:
            lines.append("splits: " + ", ".join(self.named_splits))
        if self.tables:
            lines.append("missing tables (nnmiss_train --missing NAME): " + ", ".join(self.tables))
        return lines
