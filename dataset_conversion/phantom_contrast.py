"""How bright each tissue of the phantom is in each modality: the tables that decide what a modality can show."""
from __future__ import annotations

import numpy as np

from nnmiss.errors import NnmissError
from nnmiss.seeding import derive_seed

LESION_TISSUES = ("edema", "necrosis", "enhancing")  # labels 1, 2, 3
HEALTHY_TISSUES = ("csf", "grey", "white")
DISTRACTORS = ("vessels", "hyperintensities", "cysts")

# All values are in units of the brightness of healthy white matter, which is 1 in every modality.
HEALTHY = {
    "flair": {"csf": 0.40, "grey": 1.10, "white": 1.00},
    "t1": {"csf": 0.45, "grey": 0.82, "white": 1.00},
    "t1ce": {"csf": 0.45, "grey": 0.85, "white": 1.00},
    "t2": {"csf": 1.60, "grey": 1.14, "white": 1.00},
}

# Contrast of the tumour's tissues against healthy white matter. As in BraTS: the whole tumour is plain in flair and
# t2; the core's necrosis is dark in t1 and t1ce; enhancement is bright in t1ce, and in the others nearly what the
# tissues around it are, so that it can be inferred from its surroundings but hardly seen.
VISIBILITY = {
    "flair": {"edema": 0.50, "necrosis": 0.36, "enhancing": 0.44},
    "t1": {"edema": -0.20, "necrosis": -0.34, "enhancing": -0.24},
    "t1ce": {"edema": -0.16, "necrosis": -0.36, "enhancing": 0.60},
    "t2": {"edema": 0.40, "necrosis": 0.58, "enhancing": 0.44},
}

# Contrast of harmless structures that look like a piece of tumour in one modality and not in the others.
DISTRACTOR_CONTRAST = {
    "flair": {"vessels": 0.00, "hyperintensities": 0.45, "cysts": -0.10},
    "t1": {"vessels": 0.00, "hyperintensities": -0.05, "cysts": -0.25},
    "t1ce": {"vessels": 0.55, "hyperintensities": 0.00, "cysts": -0.25},
    "t2": {"vessels": -0.20, "hyperintensities": 0.12, "cysts": 0.50},
}

# Contrasts under which Dice of networks that see one modality spread as in MetaKD's table 1 (reference/phantom.md).
# Every distractor is in one modality only.
BRATS_LIKE_VISIBILITY = {
    "flair": {"edema": 0.62, "necrosis": -0.35, "enhancing": 0.55},  # necrosis is a fluid, as dark as the ventricles
    "t1": {"edema": -0.28, "necrosis": -0.42, "enhancing": -0.32},
    "t1ce": {"edema": -0.24, "necrosis": -0.40, "enhancing": 0.60},
    "t2": {"edema": 0.44, "necrosis": 0.64, "enhancing": 0.50},
}
BRATS_LIKE_DISTRACTORS = {
    "flair": {"vessels": 0.00, "hyperintensities": 0.45, "cysts": 0.00},
    "t1": {"vessels": 0.00, "hyperintensities": 0.00, "cysts": 0.00},
    "t1ce": {"vessels": 0.55, "hyperintensities": 0.00, "cysts": 0.00},
    "t2": {"vessels": 0.00, "hyperintensities": 0.00, "cysts": 0.50},
}

CONTRASTS = {"standard": (VISIBILITY, DISTRACTOR_CONTRAST),
             "brats_like": (BRATS_LIKE_VISIBILITY, BRATS_LIKE_DISTRACTORS)}

# With the setting `invisible`, what a tissue looks exactly like: then nothing but context tells where it ends.
INVISIBLE = {
    "flair": {"enhancing": "edema"},
    "t1": {"enhancing": "necrosis"},
    "t1ce": {},
    "t2": {"enhancing": "edema"},
}

BASE_SCALE = {"flair": 260.0, "t1": 480.0, "t1ce": 620.0, "t2": 900.0}  # scanner units of healthy white matter


def modality_names(num_modalities: int) -> tuple[str, ...]:
    """flair, t1, t1ce, t2, m5, m6, ... Raises NnmissError for fewer than two."""
    if num_modalities < 2:
        raise NnmissError(f"a phantom needs at least 2 modalities, got {num_modalities}")
    named = tuple(VISIBILITY)
    return (named + tuple(f"m{i + 1}" for i in range(len(named), num_modalities)))[:num_modalities]


def looks_like(modality: str) -> dict[str, str]:
    """Tissue -> the neighbour ("edema", "necrosis" or "white") it is not told from under the setting `invisible`.

    In m5, m6, ... that is healthy white matter for both tissues that are not the modality's plain one.
    """
    if modality in INVISIBLE:
        return INVISIBLE[modality]
    return {tissue: "white" for tissue in LESION_TISSUES if tissue != plain_tissue(modality)}


def plain_tissue(modality: str, contrasts: str = "standard") -> str:
    """The tumour tissue of the strongest contrast in a modality; that of its lookalikes."""
    if modality in BASE_SCALE:
        row = CONTRASTS[contrasts][0][modality]
        return max(LESION_TISSUES, key=lambda tissue: abs(row[tissue]))
    return LESION_TISSUES[(int(modality[1:]) - 5) % 3]


def contrast_row(modality: str, contrasts: str = "standard", invisible: bool = False) -> dict[str, float]:
    """Brightness of the healthy tissues, contrast of tumour tissues and distractors, and "scale", of one modality.

    The four named modalities are read from the tables. For m5, m6, ... the row is drawn from the number alone (equal
    in every data set): one tumour tissue is plain (|contrast| .35 to .6; edema, necrosis and enhancing take turns),
    the others are weak (at most .15), and one distractor is as strong as the plain tissue. With `invisible` each
    tissue of `looks_like` has the contrast of its neighbour.
    """
    row = _visible_row(modality, contrasts)
    if invisible:
        row |= {tissue: 0.0 if other == "white" else row[other] for tissue, other in looks_like(modality).items()}
    return row


def _visible_row(modality: str, contrasts: str) -> dict[str, float]:
    visibility, distractors = CONTRASTS[contrasts]
    if modality in visibility:
        return {**HEALTHY[modality], **visibility[modality], **distractors[modality], "scale": BASE_SCALE[modality]}
    rng = np.random.default_rng(derive_seed("phantom modality", modality))
    sign = rng.choice([-1.0, 1.0])
    row = {"csf": rng.uniform(0.4, 1.6), "grey": rng.uniform(0.8, 1.2), "white": 1.0}
    row |= {tissue: rng.uniform(-0.15, 0.15) for tissue in LESION_TISSUES}
    row |= {structure: rng.uniform(-0.1, 0.1) for structure in DISTRACTORS}
    row[plain_tissue(modality)] = sign * rng.uniform(0.35, 0.6)
    row[rng.choice(DISTRACTORS)] = sign * rng.uniform(0.35, 0.6)
    row["scale"] = rng.uniform(200.0, 900.0)
    return {str(key): float(value) for key, value in row.items()}
