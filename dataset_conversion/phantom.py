"""Generated multi-modal brain tumour phantoms: deterministic by (seed, case number), of any size and modality count."""
from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy.ndimage import gaussian_filter
from tqdm import tqdm

from nnmiss.atomic_files import write_json
from nnmiss.dataset_conversion.phantom_anatomy import Anatomy, make_anatomy, smooth_field
from nnmiss.dataset_conversion.phantom_contrast import VISIBILITY, contrast_row, looks_like, plain_tissue
from nnmiss.dataset_conversion.phantom_labels import noisy_labels
from nnmiss.dataset_conversion.phantom_lookalikes import lookalikes
from nnmiss.dataset_conversion.phantom_missing import checked_missing, draw_missing
from nnmiss.dataset_conversion.phantom_registration import displacement, misregistered
from nnmiss.dataset_conversion.phantom_scanners import Scanner, scanner_number, scanner_profile
from nnmiss.dataset_conversion.phantom_settings import PRESETS, PhantomSettings, preset_settings
from nnmiss.dataset_conversion.raw_folder import new_dataset_folder
from nnmiss.errors import NnmissError
from nnmiss.seeding import derive_seed

__all__ = ["FIRST_TEST_NUMBER", "PRESETS", "VISIBILITY", "PhantomSettings", "make_affine", "make_case",
           "preset_settings", "training_labels", "write_dataset"]

FIRST_TEST_NUMBER = 100_000  # test cases are numbered from here: the same whatever the number of training cases
LABELS = {"background": 0, "whole_tumor": [1, 2, 3], "tumor_core": [2, 3], "enhancing_tumor": [3]}
REGIONS_CLASS_ORDER = [1, 2, 3]


def make_case(settings: PhantomSettings, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Images and true labels of case `number`; equal settings and number give equal arrays.

    Channel k does not depend on how many modalities there are. Labels depend on size, seed and number alone.

    Returns:
        images: (M, X, Y, Z) float32, exactly 0 outside the brain and at least 1 inside, scanner-like units that
            differ between cases and modalities.
        labels: (X, Y, Z) uint8, 0 background, 1 edema, 2 necrotic core, 3 enhancing; each of 1 to 3 occurs.
    """
    anatomy = make_anatomy(settings.size, settings.seed, number)
    texture = smooth_field(_generator(settings, number, "texture"), settings.size, 16)
    images = [_image(settings, number, anatomy, texture, name) for name in settings.names]
    return np.stack(images), anatomy.labels


def training_labels(settings: PhantomSettings, number: int) -> np.ndarray:
    """The labels (X, Y, Z) uint8 that a training case is written with: the true ones unless there is label noise."""
    anatomy = make_anatomy(settings.size, settings.seed, number)
    if not settings.label_noise:
        return anatomy.labels
    return noisy_labels(anatomy.labels, anatomy.brain, settings.label_noise, settings.seed, number)


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
    """One modality of the case, (X, Y, Z) float32: the scene as a scanner sees it, with shading, blur, Rician noise."""
    rng, scale = _generator(settings, number, "image", modality), contrast_row(modality)["scale"]
    hard = settings.difficulty**2  # a step at the upper end costs a network about as much Dice as one at the lower
    scanner = Scanner()
    if settings.scanners:
        scanner = scanner_profile(settings.seed, scanner_number(settings.seed, number, settings.scanners), modality)
    image = _scene(settings, number, anatomy, modality, rng)
    image += (0.02 + 0.08 * hard) * (texture + 0.6 * smooth_field(rng, settings.size, 16))
    if settings.registration_error:
        image = misregistered(image, displacement(settings.registration_error, settings.size, settings.seed, number,
                                                  modality))
    if settings.scanners:
        image = np.maximum(image, 0) ** np.float32(scanner.gamma)
    image *= np.exp(scanner.shading * (0.04 + 0.14 * hard) * smooth_field(rng, settings.size, 2))  # the coil's field
    image = gaussian_filter(image, np.hypot(0.5, scanner.blur), truncate=3)  # the scanner's point spread, in voxels
    noise = scanner.noise * (0.02 + 0.16 * hard) * rng.standard_normal((2, *settings.size), dtype=np.float32)
    image = np.hypot(image + noise[0], noise[1]) * scale * np.exp(rng.normal(0, 0.25)) * scanner.brightness
    return np.where(anatomy.brain, np.maximum(image, 1), 0).astype(np.float32)


def _scene(settings: PhantomSettings, number: int, anatomy: Anatomy, modality: str, rng) -> np.ndarray:
    """What there is to see in one modality, (X, Y, Z) float32, healthy white matter 1: tissues, tumour, distractors."""
    row = contrast_row(modality, settings.contrasts, settings.invisible)
    hidden = looks_like(modality) if settings.invisible else {}
    hard = settings.difficulty**2
    image = sum(weight * row[tissue] for tissue, weight in anatomy.tissues.items())
    conspicuity = (1.3 - 0.6 * hard) * rng.uniform(0.8, 1.2)  # differs between patients and between their scans
    image += conspicuity * row["edema"] * anatomy.edema
    for label, tissue in ((2, "necrosis"), (3, "enhancing")):
        inside = anatomy.labels == label
        # Edema fades towards the tumour's border, so what shall look like it has to fade with it.
        fading = anatomy.whole[inside] if hidden.get(tissue) == "edema" else 1
        image[inside] += conspicuity * row[tissue] * fading
    for structure, strength in anatomy.distractors.items():
        if settings.invisible:
            strength = strength * anatomy.outside  # one that ended at the core would show where the core begins
        image += (0.4 + 1.2 * hard) * row[structure] * strength
    if settings.lookalikes:
        plain = row[plain_tissue(modality, settings.contrasts)]
        image += conspicuity * plain * lookalikes(anatomy, settings.lookalikes, settings.seed, number, modality)
    return image


def _write_case(folder: Path, case: str, part: str, settings: PhantomSettings, number: int,
                modalities: list[str]) -> None:
    """Writes the label and the channel files named in `modalities` (images as int16, rounded)."""
    images, labels = make_case(settings, number)
    if part == "Tr" and settings.label_noise:
        labels = training_labels(settings, number)
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
        "phantom": settings.record(),
    }
