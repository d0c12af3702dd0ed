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

BASE_SCALE = {"flair": 260.0, "t1": 480.0, "t1ce": 620.0, "t2": 900.0}  # scanner units of healthy white matter


def modality_names(num_modalities: int) -> tuple[str, ...]:
    """flair, t1, t1ce, t2, m5, m6, ... Raises NnmissError for fewer than two."""
    if num_modalities < 2:
        raise NnmissError(f"a phantom needs at least 2 modalities, got {num_modalities}")
    named = tuple(VISIBILITY)
    return (named + tuple(f"m{i + 1}" for i in range(len(named), num_modalities)))[:num_modalities]


def contrast_row(modality: str) -> dict[str, float]:
    """Brightness of the healthy tissues, contrast of tumour tissues and distractors, and "scale", of one modality.

    The four named modalities are read from the tables. For m5, m6, ... the row is drawn from the number alone (equal
    in every data set): one tumour tissue is plain (|contrast| .35 to .6; edema, necrosis and enhancing take turns),
    the others are weak (at most .15), and one distractor is as strong as the plain tissue.
    """
    if modality in VISIBILITY:
        return {**HEALTHY[modality], **VISIBILITY[modality], **DISTRACTOR_CONTRAST[modality],
                "scale": BASE_SCALE[modality]}
    rng = np.random.default_rng(derive_seed("phantom modality", modality))
    sign = rng.choice([-1.0, 1.0])
    row = {"csf": rng.uniform(0.4, 1.6), "grey": rng.uniform(0.8, 1.2), "white": 1.0}
    row |= {tissue: rng.uniform(-0.15, 0.15) for tissue in LESION_TISSUES}
    row |= {structure: rng.uniform(-0.1, 0.1) for structure in DISTRACTORS}
    row[LESION_TISSUES[(int(modality[1:]) - 5) % 3]] = sign * rng.uniform(0.35, 0.6)
    row[rng.choice(DISTRACTORS)] = sign * rng.uniform(0.35, 0.6)
    row["scale"] = rng.uniform(200.0, 900.0)
    return {str(key): float(value) for key, value in row.items()}
