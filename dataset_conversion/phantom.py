"""Generated multi-modal brain tumour phantoms: deterministic by (seed, case number), of any size and modality count."""
from __future__ import annotations

import os
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy.ndimage import gaussian_filter
from tqdm import tqdm

from nnmiss.atomic_files import write_json
from nnmiss.dataset_conversion.phantom_anatomy import Anatomy, make_anatomy, smooth_field
from nnmiss.dataset_conversion.phantom_contrast import VISIBILITY, contrast_row, modality_names
from nnmiss.dataset_conversion.phantom_missing import checked_missing, draw_missing
from nnmiss.dataset_conversion.raw_folder import new_dataset_folder
from nnmiss.errors import NnmissError
from nnmiss.seeding import derive_seed

__all__ = ["FIRST_TEST_NUMBER", "VISIBILITY", "PhantomSettings", "make_affine", "make_case", "write_dataset"]

MIN_SIDE, MAX_SIDE = 24, 160  # voxels
FIRST_TEST_NUMBER = 100_000  # test cases are numbered from here: the same whatever the number of training cases
LABELS = {"background": 0, "whole_tumor": [1, 2, 3], "tumor_core": [2, 3], "enhancing_tumor": [3]}
REGIONS_CLASS_ORDER = [1, 2, 3]


@dataclass(frozen=True)
class PhantomSettings:
    """What the cases of a phantom data set have in common.

    Attributes:
        size: voxels per side, one number or three, each 24 to 160. Anatomy scales with the box: a larger size is a
            finer image of the same kind of head.
        modalities: how many, 2 or more: flair, t1, t1ce, t2, m5, m6, ...
        difficulty: 0 (plain contrasts, hardly any noise) to 1 (weak contrasts, strong noise, texture, distractors).
        seed: another seed is another population of cases.
        spacing_mm: voxel size, one number or three. It changes the affine, not the voxels.

    Raises NnmissError for values outside these ranges.
    """

    size: int | tuple[int, int, int] = 40
    modalities: int = 4
    difficulty: float = 0.5
    seed: int = 0
    spacing_mm: float | tuple[float, float, float] = 1.0

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
        if not 0 <= self.difficulty <= 1:
            raise NnmissError(f"difficulty must be from 0 to 1, got {self.difficulty}")
        modality_names(self.modalities)

    @property
    def names(self) -> tuple[str, ...]:
        """Modality names in channel order."""
        return modality_names(self.modalities)


def make_case(settings: PhantomSettings, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of case `number`; equal settings and number give equal arrays.

    Channel k does not depend on how many modalities there are. Labels do not depend on the difficulty.

    Returns:
        images: (M, X, Y, Z) float32, exactly 0 outside the brain and at least 1 inside, scanner-like units that
            differ between cases and modalities.
        labels: (X, Y, Z) uint8, 0 background, 1 edema, 2 necrotic core, 3 enhancing; each of 1 to 3 occurs.
    """
    anatomy = make_anatomy(settings.size, settings.seed, number)
    texture = smooth_field(_generator(settings, number, "texture"), settings.size, 16)
    images = [_image(settings, number, anatomy, texture, name) for name in settings.names]
    return np.stack(images), anatomy.labels


def make_affine(settings: PhantomSettings, number: int) -> np.ndarray:
    """(4, 4) float64 voxel-to-world matrix in mm: slightly oblique, left-handed in x, another origin for each case."""
    rng = _generator(settings, number, "affine")
    rotation = nib.eulerangles.euler2mat(*rng.uniform(-0.1, 0.1, 3))
    affine = np.eye(4)
    affine[:3, :3] = rotation @ np.diag(np.array(settings.spacing_mm) * (-1, 1, 1))
    affine[:3, 3] = rng.uniform(-20, 20, 3) - affine[:3, :3] @ (np.array(settings.size) / 2)
    return affine


def write_dataset(folder: str | os.PathLike, dataset_id: int, name: str, settings: PhantomSettings, num_training: int,
                  num_test: int, missing: dict[str, list[str]] | float = 0.0, overwrite: bool = False,
                  progress: bool = False) -> dict:
    """Writes `folder`/DatasetXXX_Name in nnU-Net's raw format; the folder appears whole or not at all.

    Training cases are named case_000, ...; test cases test_000, ... are complete and have their truth in labelsTs.

    Args:
        folder: an nnUNet_raw folder, made when absent.
        missing: either {training case: [modality names without a file]}, or the fraction of training cases that lose
            1 to M - 1 files each (seeded). Below 1 at least one case stays complete. Every modality stays somewhere.
        overwrite: replaces a data set of the same id and name.
        progress: shows a bar.

    Returns:
        {"folder": Path, "modalities": [...], "cases": {training case: [modalities on disk]}, "test_cases": [...],
        "subsets": {"flair+t1": how many training cases}}.

    Raises NnmissError for impossible numbers, unknown cases or modalities, a case without any file, an existing folder.
    """
    if num_training < 1 or num_test < 0:
        raise NnmissError(f"a data set needs at least 1 training and 0 test cases, got {num_training} and {num_test}")
    training = [f"case_{i:03d}" for i in range(num_training)]
    test = [f"test_{i:03d}" for i in range(num_test)]
    if isinstance(missing, dict):
        dropped = checked_missing(missing, training, settings.names)
    else:
        dropped = draw_missing(float(missing), training, settings.names, settings.seed)
    kept = {case: [m for m in settings.names if m not in dropped.get(case, ())] for case in training}

    with new_dataset_folder(folder, dataset_id, name, overwrite) as (temporary, final):
        jobs = [(case, i, "Tr", kept[case]) for i, case in enumerate(training)]
        jobs += [(case, FIRST_TEST_NUMBER + i, "Ts", list(settings.names)) for i, case in enumerate(test)]
        for sub in ("imagesTr", "labelsTr") + (("imagesTs", "labelsTs") if test else ()):
            (temporary / sub).mkdir()
        for case, number, part, modalities in tqdm(jobs, desc="phantom cases", unit="case", disable=not progress):
            _write_case(temporary, case, part, settings, number, modalities)
        write_json(temporary / "dataset.json", _dataset_json(name, settings, num_training))
    subsets = Counter("+".join(modalities) for modalities in kept.values())
    return {"folder": final, "modalities": list(settings.names), "cases": kept, "test_cases": test,
            "subsets": dict(subsets.most_common())}


def _generator(settings: PhantomSettings, number: int, *purpose: str) -> np.random.Generator:
    """Every purpose draws from its own generator, so that adding one never changes the others."""
    return np.random.default_rng(derive_seed("phantom", settings.seed, number, *purpose))


def _image(settings: PhantomSettings, number: int, anatomy: Anatomy, texture: np.ndarray, modality: str) -> np.ndarray:
    """One modality of the case, (X, Y, Z) float32: tissues, tumour, distractors, bias field, blur, Rician noise."""
    rng, row = _generator(settings, number, "image", modality), contrast_row(modality)
    hard = settings.difficulty**2  # a step at the upper end costs a network about as much Dice as one at the lower
    image = sum(weight * row[tissue] for tissue, weight in anatomy.tissues.items())
    conspicuity = (1.3 - 0.6 * hard) * rng.uniform(0.8, 1.2)  # differs between patients and between their scans
    image += conspicuity * row["edema"] * anatomy.edema
    image[anatomy.labels == 2] += conspicuity * row["necrosis"]
    image[anatomy.labels == 3] += conspicuity * row["enhancing"]
    for structure, strength in anatomy.distractors.items():
        image += (0.4 + 1.2 * hard) * row[structure] * strength
    image += (0.02 + 0.08 * hard) * (texture + 0.6 * smooth_field(rng, settings.size, 16))
    image *= np.exp((0.04 + 0.14 * hard) * smooth_field(rng, settings.size, 2))  # receive field of the coil
    image = gaussian_filter(image, 0.5, truncate=3)  # the scanner's point spread, in voxels
    noise = (0.02 + 0.16 * hard) * rng.standard_normal((2, *settings.size), dtype=np.float32)
    image = np.hypot(image + noise[0], noise[1]) * row["scale"] * np.exp(rng.normal(0, 0.25))
    return np.where(anatomy.brain, np.maximum(image, 1), 0).astype(np.float32)


def _write_case(folder: Path, case: str, part: str, settings: PhantomSettings, number: int,
                modalities: list[str]) -> None:
    """Writes the label and the channel files named in `modalities` (images as int16, rounded)."""
    images, labels = make_case(settings, number)
    affine = make_affine(settings, number)
    for channel, name in enumerate(settings.names):
        if name in modalities:
            image = np.rint(images[channel]).clip(0, np.iinfo(np.int16).max).astype(np.int16)
            nib.save(nib.Nifti1Image(image, affine), folder / f"images{part}" / f"{case}_{channel:04d}.nii.gz")
    nib.save(nib.Nifti1Image(labels, affine), folder / f"labels{part}" / f"{case}.nii.gz")


def _dataset_json(name: str, settings: PhantomSettings, num_training: int) -> dict:
    return {
        "name": name,
        "description": "Generated brain tumour phantoms (nnmiss_phantom); not medical data",
        "channel_names": {str(i): modality for i, modality in enumerate(settings.names)},
        "labels": LABELS,
        "regions_class_order": REGIONS_CLASS_ORDER,
        "numTraining": num_training,
        "file_ending": ".nii.gz",
        "phantom": asdict(settings),
    }
