"""What the cases of a phantom data set have in common, and the named sets of such settings."""
from __future__ import annotations

from dataclasses import asdict, dataclass, fields

import numpy as np

from nnmiss.dataset_conversion.phantom_contrast import CONTRASTS, modality_names
from nnmiss.errors import NnmissError, nearest_names

__all__ = ["PRESETS", "PhantomSettings", "preset_settings"]

MIN_SIDE, MAX_SIDE = 24, 160  # voxels
RANGES = {  # beyond them a case is no longer a head with a tumour that can be found
    "difficulty": (0, 1), "scanners": (0, 100), "registration_error": (0, 4), "label_noise": (0, 3), "lookalikes": (0, 10)}
INGREDIENTS = ("contrasts", "invisible", "lookalikes", "scanners", "registration_error", "label_noise")

# brats_like: Dice of networks that see one modality spread as in MetaKD's table 1; reference/phantom.md says how closely.
PRESETS = {
    "brats_like": {"difficulty": 0.5, "contrasts": "brats_like", "invisible": True, "lookalikes": 2, "scanners": 4,
                   "registration_error": 0.5, "label_noise": 0.4},
}


@dataclass(frozen=True)
class PhantomSettings:
    """What the cases of a phantom data set have in common. Every ingredient draws from generators of its own.

    Attributes:
        size: voxels per side, one number or three, each 24 to 160. Anatomy scales with the box: a larger size is a
            finer image of the same kind of head.
        modalities: how many, 2 or more: flair, t1, t1ce, t2, m5, m6, ...
        difficulty: 0 (plain contrasts, hardly any noise) to 1 (weak contrasts, strong noise, texture, distractors).
        seed: another seed is another population of cases.
        spacing_mm: voxel size, one number or three. It changes the affine, not the voxels.
        contrasts: table of `phantom_contrast.CONTRASTS` that says how bright each tissue is in each modality.
        invisible: tissues of `phantom_contrast.INVISIBLE` look exactly like the neighbour named there.
        lookalikes: lesions per case and modality that are in that modality only and in no label, 0 to 10.
        scanners: number of scanners the cases come from, up to 100; 0: one ideal scanner.
        registration_error: root mean square over the brain, in voxels, by which a modality lies beside the labels;
            half to one and a half of it for each case and modality. 0 to 4.
        label_noise: standard deviation in voxels of the boundaries of training labels; 0 to 3. Test labels are true.

    Raises NnmissError for values outside these ranges.
    """

    size: int | tuple[int, int, int] = 40
    modalities: int = 4
    difficulty: float = 0.5
    seed: int = 0
    spacing_mm: float | tuple[float, float, float] = 1.0
    contrasts: str = "standard"
    invisible: bool = False
    lookalikes: int = 0
    scanners: int = 0
    registration_error: float = 0.0
    label_noise: float = 0.0

    def __post_init__(self) -> None:
        size = tuple(int(side) for side in ((self.size,) * 3 if np.ndim(self.size) == 0 else self.size))
        spacing = (self.spacing_mm,) * 3 if np.ndim(self.spacing_mm) == 0 else self.spacing_mm
        spacing = tuple(float(s) for s in spacing)
        object.__setattr__(self, "size", size)
        object.__setattr__(self, "spacing_mm", spacing)
        if len(size) != 3 or not all(MIN_SIDE <= side <= MAX_SIDE for side in size):
            raise NnmissError(f"phantom size must be one or three numbers from {MIN_SIDE} to {MAX_SIDE}, got {size}")
        if len(spacing) != 3 or not all(s > 0 for s in spacing):
            raise NnmissError(f"spacing must be one or three positive numbers of mm, got {spacing}")
        for name, (low, high) in RANGES.items():
            if not low <= getattr(self, name) <= high:
                raise NnmissError(f"{name} must be from {low} to {high}, got {getattr(self, name)}")
        for name in ("scanners", "lookalikes"):
            if getattr(self, name) != int(getattr(self, name)):
                raise NnmissError(f"{name} must be a whole number, got {getattr(self, name)}")
        if self.contrasts not in CONTRASTS:
            raise NnmissError(f"unknown contrasts {self.contrasts!r}. {nearest_names(self.contrasts, list(CONTRASTS))}")
        modality_names(self.modalities)

    @property
    def names(self) -> tuple[str, ...]:
        """Modality names in channel order."""
        return modality_names(self.modalities)

    def record(self) -> dict:
        """All settings but ingredients at their defaults, for dataset.json."""
        defaults = {field.name: field.default for field in fields(self)}
        return {name: value for name, value in asdict(self).items()
                if name not in INGREDIENTS or value != defaults[name]}


def preset_settings(preset: str, **changes) -> PhantomSettings:
    """The settings of a preset, with `changes` to any of them. Raises NnmissError for an unknown preset."""
    if preset not in PRESETS:
        raise NnmissError(f"unknown preset {preset!r}. {nearest_names(preset, list(PRESETS))}")
    return PhantomSettings(**{**PRESETS[preset], **changes})
