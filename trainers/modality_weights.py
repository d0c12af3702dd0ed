"""Weights of modalities given as text: "2" for all, or "image:1+ehr:50" for each."""
from __future__ import annotations

import math

from nnmiss.availability import match_modality
from nnmiss.errors import NnmissError


def parse_weights(key: str, text: str, modalities: list[str], default: float = 1.0) -> dict[str, float]:
    """Modality -> weight.

    Args:
        key: the setting's name, for errors.
        text: one number for all modalities, or NAME:NUMBER joined by "+"; what is not named has `default`.

    Raises:
        NnmissError: an unknown modality, one named twice, or a weight that is no number from 0 on.
    """
    parts = [part.rpartition(":") for part in text.split("+")]
    if len(parts) == 1 and not parts[0][1]:
        return dict.fromkeys(modalities, _number(key, text, text))
    weights: dict[str, float] = {}
    for name, colon, value in parts:
        if not colon:
            raise NnmissError(f"{key}={text}: {value!r} is not MODALITY:NUMBER; expected one number, or such as "
                              f"{'+'.join(f'{m}:1' for m in modalities)}")
        modality = modalities[match_modality(name, modalities)]
        if modality in weights:
            raise NnmissError(f"{key}={text}: modality {modality} is named twice")
        weights[modality] = _number(key, text, value)
    return {name: weights.get(name, default) for name in modalities}


def _number(key: str, text: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise NnmissError(f"{key}={text}: {value!r} is not a number from 0 on")
    return number
