"""Encoders of one modality, chosen by name in the plan; each file is one kind of data."""
from __future__ import annotations

import inspect
import re

import torch

from nnmiss.errors import NnmissError, nearest_names

from .base import Encoder
from .convolutional import Cnn2d, Cnn3d
from .resnet import ResNet3, ResNet6, ResNet10, ResNet18, ResNet34
from .series import Lstm
from .small_images import LeNet, SoundNet
from .tables import Mlp

ENCODERS: dict[str, type[Encoder]] = {
    "lenet": LeNet, "sound_net": SoundNet, "resnet3": ResNet3, "resnet6": ResNet6, "resnet10": ResNet10,
    "resnet18": ResNet18, "resnet34": ResNet34, "cnn2d": Cnn2d, "cnn3d": Cnn3d, "mlp": Mlp, "lstm": Lstm,
}
READS = {3: "images (C, H, W)", 4: "volumes (C, D, H, W)", 2: "series (T, F)"}


def build_encoder(spec: dict, shape: tuple[int | None, ...]) -> Encoder:
    """The encoder that a plan's entry describes.

    Args:
        spec: {"name": one of ENCODERS, option: value ...}; options are the arguments of the class.
        shape: of one sample; None where lengths differ (series).

    Raises:
        NnmissError: unknown name or option, or an encoder for data of another shape.
    """
    options = dict(spec)
    name = options.pop("name", "")
    if name not in ENCODERS:
        raise NnmissError(f"encoder {name!r} is unknown. {nearest_names(str(name), list(ENCODERS))}")
    kind = ENCODERS[name]
    known = [p for p in inspect.signature(kind).parameters if p != "shape"]
    for option in options:
        if option not in known:
            raise NnmissError(f"encoder {name} has no option {option!r}. {nearest_names(option, known)}")
    if kind.rank not in (None, len(shape)) or (None in shape and not kind.any_length):
        raise NnmissError(f"encoder {name} reads {READS.get(kind.rank, 'samples of one fixed shape')}, not samples of "
                          f"shape {_words(shape)}: choose another encoder")
    if 0 in shape:
        raise NnmissError(f"samples of shape {_words(shape)} hold no values: nothing to build encoder {name} for")
    encoder = kind(tuple(shape), **options)
    # saves 5 to 15 % of an image encoder's time on a CPU; values do not change, only how the weights lie in memory
    return encoder.to(memory_format=torch.channels_last) if kind.rank == 3 else encoder


def _words(shape: tuple[int | None, ...]) -> str:
    """(any x 76): a shape in a sentence."""
    return f"({' x '.join('any' if s is None else str(s) for s in shape)})"


def encoder_spec(text: str) -> dict:
    """What a short name stands for: resnet10, lstm3 (three layers), mlp256x64 (two hidden layers) ...

    A ResNet may name its stem: resnet10-7x7, and its stride: resnet3-s2, which has the same parameters and a quarter of the
    operations.

    Raises:
        NnmissError: unknown name.
    """
    text = text.strip().lower()
    if match := re.fullmatch(r"lstm([1-9]\d*)", text):
        return {"name": "lstm", "layers": int(match[1])}
    if match := re.fullmatch(r"mlp([1-9]\d*(?:x[1-9]\d*)*)", text):
        return {"name": "mlp", "hidden": [int(width) for width in match[1].split("x")]}
    if match := re.fullmatch(r"(resnet\d+)(?:-(3x3|7x7))?(?:-s([12]))?", text):
        text = match[1]
        options = {"stem": match[2]} if match[2] else {}
        options |= {"stem_stride": int(match[3])} if match[3] else {}
        if text in ENCODERS:
            return {"name": text, **options}
    if text not in ENCODERS:
        raise NnmissError(f"encoder {text!r} is unknown. {nearest_names(text, list(ENCODERS))} A number sets the layers of "
                          "an lstm (lstm3) or the widths of an mlp (mlp256x64).")
    return {"name": text}


def parse_encoders(text: str, modalities: list[str]) -> dict[str, dict]:
    """Encoders named on the command line, as "image:resnet10+sound:sound_net"; "" names none.

    Raises:
        NnmissError: unknown modality or encoder, a modality named twice, or a part without ":".
    """
    named: dict[str, dict] = {}
    for part in filter(None, (part.strip() for part in text.split("+"))):
        modality, colon, encoder = part.rpartition(":")
        found = [m for m in modalities if m.lower() == modality.strip().lower()]
        if not colon:
            raise NnmissError(f"encoders: {part!r} is not MODALITY:ENCODER, as in image:resnet10+sound:sound_net")
        if not found:
            raise NnmissError(f"encoders: the data set has no modality {modality!r}. {nearest_names(modality, modalities)}")
        if found[0] in named:
            raise NnmissError(f"encoders: modality {found[0]} is named twice in {text!r}")
        named[found[0]] = encoder_spec(encoder)
    return named


def build_encoders(configuration: dict, shapes: dict[str, tuple[int | None, ...]], overrides: str = "") -> list[Encoder]:
    """One encoder per modality of a plan's configuration, in channel order.

    Args:
        configuration: the plan's, with "modalities": {name: {"encoder": {...}}}.
        shapes: modality -> shape of one sample.
        overrides: as `parse_encoders` reads; an encoder of the plan's name keeps the plan's other options.

    Raises:
        NnmissError: as `build_encoder`, naming the modality.
    """
    named = parse_encoders(overrides, list(configuration["modalities"]))
    return [build_encoder_of(configuration, shapes, m, named.get(m)) for m in configuration["modalities"]]


def build_encoder_of(configuration: dict, shapes: dict[str, tuple[int | None, ...]], modality: str,
                     override: dict | None = None) -> Encoder:
    """The encoder of one modality: the plan's, or `override` (as `encoder_spec` returns); see `build_encoders`."""
    spec = configuration["modalities"][modality]["encoder"]
    if override:
        spec = {**(spec if spec.get("name") == override["name"] else {}), **override}
    try:
        return build_encoder(spec, shapes[modality])
    except NnmissError as error:
        raise NnmissError(f"modality {modality}: {error}") from None
