"""Plans a classification data set: an encoder for every modality, by its kind and size, feature size, head and batch."""
from __future__ import annotations

import math

import torch

from nnmiss.classification.description import CONFIGURATION, Description
from nnmiss.classification.kinds import KINDS
from nnmiss.classification.raw_samples import RawSamples
from nnmiss.errors import NnmissError
from nnmiss.networks.encoders import build_encoder_of

PLANNER = "nnMissClassificationPlanner"
PLANS_NAME = "nnMissPlans"
FEATURE_DIM = {"tabular": 64, "other": 256}  # common feature size, unless dataset.json says another
TABULAR = ("table", "array", "embedding")
HEAD = {"hidden": [64], "dropout": 0.5}  # of SMIL's fusion network: 64 units, dropout 0.5
BATCH_SIZES = (8, 64)  # smallest and largest; between them a sixteenth of the samples, as a power of two
MANY_VALUES = 2**18  # a modality with more values a sample (as a 64 x 64 x 64 volume) asks for the smallest batch


def plan_classification(raw: RawSamples, description: Description) -> dict:
    """The content of nnMissPlans.json.

    Hints of dataset.json ("plan", and "encoder" of a modality) come before the rules of this file and of the kinds. No
    statistic of the data is stored: preprocessing is fitted on each fold's training samples.

    Raises NnmissError, naming the modality, when its encoder cannot be chosen because no sample has it, or dataset.json
    names one that does not exist or reads no such samples.
    """
    shapes = sample_shapes(raw)
    num_labelled = int(raw.labelled.sum())
    modalities = {}
    for name, spec in description.modalities.items():
        encoder = KINDS[spec["type"]].default_encoder(spec, shapes[name], num_labelled)
        modalities[name] = {"type": spec["type"], "encoder": dict(encoder)}
        with torch.device("meta"):  # no memory, no time: only to see that it can be built
            build_encoder_of({"modalities": modalities}, shapes, name)
    tabular = all(spec["type"] in TABULAR for spec in description.modalities.values())
    hints = description.plan
    configuration = {
        "data_identifier": CONFIGURATION,
        "batch_size": hints.get("batch_size", _batch_size(shapes, num_labelled)),
        "feature_dim": hints.get("feature_dim", FEATURE_DIM["tabular" if tabular else "other"]),
        "head": {**HEAD, **hints.get("head", {})},
        "modalities": modalities,
    }
    return {"dataset_name": description.name, "plans_name": PLANS_NAME, "planner": PLANNER, "task": description.task,
            "classes": list(description.classes), "configurations": {CONFIGURATION: configuration}}


def sample_shapes(raw: RawSamples) -> dict[str, tuple[int | None, ...]]:
    """Modality -> shape of one preprocessed sample; the length of series is None.

    One-hot columns are counted over all samples here; those of a fold's training samples may be fewer.
    """
    shapes = {}
    for name, spec in raw.description.modalities.items():
        try:
            shapes[name] = KINDS[spec["type"]].shape(raw.values[name], spec)
        except NnmissError as error:
            raise NnmissError(f"modality {name}: {error}") from None
    return shapes


def plan_text(plan: dict, shapes: dict[str, tuple[int | None, ...]]) -> str:
    """The plan for people: a line for the configuration and one for each modality."""
    lines = []
    for name, configuration in plan["configurations"].items():
        head = configuration["head"]
        hidden = " + ".join(map(str, head["hidden"])) or "linear"
        lines.append(f"  {name}: batch {configuration['batch_size']}, features {configuration['feature_dim']}, "
                     f"head {hidden} (dropout {head['dropout']:g})")
        for modality, block in configuration["modalities"].items():
            encoder = dict(block["encoder"])
            options = ", ".join(f"{key} {value}" for key, value in encoder.items() if key != "name")
            size = " x ".join("T" if length is None else str(length) for length in shapes[modality])
            lines.append(f"    {modality}: {block['type']} {size} -> {encoder['name']}" + f" ({options})" * bool(options))
    return "\n".join(lines)


def _batch_size(shapes: dict[str, tuple[int | None, ...]], num_samples: int) -> int:
    smallest, largest = BATCH_SIZES
    if any(math.prod(length for length in shape if length) > MANY_VALUES for shape in shapes.values()):
        return smallest
    return min(largest, max(smallest, 2 ** int(math.log2(max(1, num_samples / 16)))))
