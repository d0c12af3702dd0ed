"""Which networks teach a modality: those the user lists, or what the paper pairs with the student's encoder."""
from __future__ import annotations

from nnmiss.availability import match_modality
from nnmiss.errors import NnmissError
from nnmiss.networks.encoders import encoder_spec

NUM_TEACHERS = 3  # trained per modality unless listed (MIND, section 4)
LARGE_IMAGES = ["resnet34", "resnet18", "resnet10"]  # MIND, section 4
PAIRED = {  # encoder of the student -> teachers
    "resnet34": LARGE_IMAGES, "resnet18": LARGE_IMAGES, "resnet10": LARGE_IMAGES,
    "resnet6": ["resnet18"] * NUM_TEACHERS,  # CREMA-D, appendix C.2
    "resnet3": ["resnet10"] * NUM_TEACHERS,  # S-MNIST and LUMA, appendix C.2
    "lstm": ["lstm2", "lstm3", "lstm4"],  # section 4
    "lenet": ["resnet10"] * NUM_TEACHERS,  # from here on ours
    "sound_net": ["resnet10"] * NUM_TEACHERS,
    "cnn2d": ["resnet10"] * NUM_TEACHERS,
    "cnn3d": ["cnn3d"] * NUM_TEACHERS,
}


def parse_teachers(text: str, modalities: list[str]) -> dict[str, list[str]]:
    """The listed teachers: "image:resnet34+resnet18+ehr:lstm2+lstm3"; a part without ":" goes on with its modality.

    Returns:
        modality -> short names of encoders, for the modalities that are named.

    Raises:
        NnmissError: an unknown modality or encoder, or text that begins without a modality.
    """
    listed: dict[str, list[str]] = {}
    current = ""
    for part in filter(None, (part.strip() for part in text.split("+"))):
        name, colon, encoder = part.rpartition(":")
        if colon:
            current = modalities[match_modality(name, modalities)]
        if not current:
            raise NnmissError(f"teacher_encoders={text}: expected MODALITY:ENCODER+ENCODER+..., as in "
                              f"{modalities[0]}:resnet34+resnet18+resnet10")
        encoder_spec(encoder)
        listed.setdefault(current, []).append(encoder.strip().lower())
    return listed


def num_listed(text: str, modalities: list[str]) -> dict[str, int]:
    """Modality -> how many teachers are trained."""
    listed = parse_teachers(text, modalities)
    return {name: len(listed[name]) if name in listed else NUM_TEACHERS for name in modalities}


def teachers_of(text: str, modalities: list[str], modality: str, spec: dict) -> list[str]:
    """Short names of one modality's teachers.

    Args:
        text: see `parse_teachers`; a modality it does not name has the teachers of PAIRED.
        spec: the student's encoder of the modality, from which these follow.
    """
    listed = parse_teachers(text, modalities)
    if modality in listed:
        return listed[modality]
    if spec["name"] == "mlp":  # as the student's, twice as wide, and that with a layer more
        hidden = list(spec.get("hidden", (128, 64)))
        wide = [2 * width for width in hidden]
        return ["mlp" + "x".join(map(str, widths)) for widths in (hidden, wide, [*wide, wide[-1]])]
    return PAIRED[spec["name"]]
