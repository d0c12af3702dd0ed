"""Small BraTS downloads in the official layout of a year, their voxels made up; and what tests of converters share."""
from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest

from nnmiss.brats_years import Challenge, find_challenge
from nnmiss.cli import convert_dataset
from nnmiss.dataset_conversion import CONVERTERS
from nnmiss.dataset_conversion.brats import Options

AFFINE = np.array([[-1.0, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1]])  # SRI24, as in the official files

# year -> training folder, validation folder
FOLDERS = {
    2018: ("MICCAI_BraTS_2018_Data_Training", "MICCAI_BraTS_2018_Data_Validation"),
    2019: ("MICCAI_BraTS_2019_Data_Training", "MICCAI_BraTS_2019_Data_Validation"),
    2020: ("MICCAI_BraTS2020_TrainingData", "MICCAI_BraTS2020_ValidationData"),
    2021: ("RSNA_ASNR_MICCAI_BraTS2021_TrainingData_16July2021", "RSNA_ASNR_MICCAI_BraTS2021_ValidationData"),
    2023: ("ASNR-MICCAI-BraTS2023-{}-Challenge-TrainingData", "ASNR-MICCAI-BraTS2023-{}-Challenge-ValidationData"),
    2024: ("BraTS2024-BraTS-{}-TrainingData/training_data1_v2", "BraTS2024-BraTS-{}-ValidationData/validation_data"),
    2025: ("BraTS2025-{}-Challenge-TrainingData", "BraTS2025-{}-Challenge-ValidationData"),
}

MODERN_NAMES = {"flair": "t2f", "t1": "t1n", "t1ce": "t1c", "t2": "t2w", "seg": "seg"}


def make_brats_folder(root: Path, year: int, challenge: str = "GLI", num_training: int = 3, num_validation: int = 2,
                      shape: tuple[int, int, int] = (24, 24, 16), ending: str = ".nii.gz", seed: int = 0,
                      drop: Mapping[str, Sequence[str]] = {}) -> dict[str, np.ndarray | None]:
    """Writes a download of `year` below `root`; case -> its label (uint8, every integer of the year), None for validation.

    drop: case -> modalities (flair, t1, t1ce, t2, or "seg") whose files are left out. Image k of case n differs from all
    others; the background is exactly zero.
    """
    rules = find_challenge(year, challenge)
    labels: dict[str, np.ndarray | None] = {}
    for number, (case, folder) in enumerate(case_folders(Path(root), rules, num_training, num_validation).items()):
        rng = np.random.default_rng([seed, number])
        training = number < num_training
        labels[case] = make_label(shape, sorted(rules.labels.values()), rng) if training else None
        folder.mkdir(parents=True, exist_ok=True)
        left_out = drop.get(case, ())
        for modality in rules.modalities:
            image = make_image(shape, rng, year)
            if modality not in left_out:
                save(folder / file_name(rules, case, modality, ending), image)
        if training and "seg" not in left_out:
            save(folder / file_name(rules, case, "seg", ending), labels[case])
    return labels


def case_folders(root: Path, rules: Challenge, num_training: int, num_validation: int) -> dict[str, Path]:
    """Case -> its folder, training cases first; 2018 and 2019 alternate between HGG and LGG."""
    training, validation = (root / part.format(rules.name) for part in FOLDERS[rules.year])
    folders = {}
    for number in range(num_training + num_validation):
        part = training if number < num_training else validation
        case = case_name(rules, number, number < num_training, num_training)
        if rules.year <= 2019 and number < num_training:
            part = part / ("HGG", "LGG")[number % 2]
        folders[case] = part / case
    return folders


def case_name(rules: Challenge, number: int, training: bool, num_training: int) -> str:
    """An id of the year's form; `number` counts training and validation cases through."""
    if rules.year in (2018, 2019):
        prefix = {2018: "Brats18", 2019: "BraTS19"}[rules.year]
        return f"{prefix}_TCIA{number % 13 + 1:02d}_{100 + number}_1" if training else f"{prefix}_CBICA_V{number:03d}_1"
    if rules.year == 2020:
        return f"BraTS20_Training_{number + 1:03d}" if training else f"BraTS20_Validation_{number + 1 - num_training:03d}"
    if rules.year == 2021:
        return f"BraTS2021_{number:05d}"
    if rules.name == "MEN-RT":
        return f"BraTS-MEN-RT-{number:04d}-1"
    return f"BraTS-{rules.name}-{number:05d}-000"


def file_name(rules: Challenge, case: str, modality: str, ending: str = ".nii.gz") -> str:
    """The official name of the file of a modality of ours, or of "seg"."""
    if rules.year < 2023:
        return f"{case}_{modality}{ending}"
    if rules.name == "MEN-RT":
        return f"{case}_{ {'seg': 'gtv'}.get(modality, MODERN_NAMES[modality])}{ending}"
    return f"{case}-{MODERN_NAMES[modality]}{ending}"


def make_label(shape: tuple[int, int, int], values: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    """(X, Y, Z) uint8: nested boxes, each of `values` in some voxels, 0 outside."""
    label = np.zeros(shape, np.uint8)
    room = (np.array(shape) - 2) // 2  # the outermost box starts in the first half
    start = rng.integers(1, np.maximum(room // 2, 2))
    stop = np.array(shape) - 1 - rng.integers(0, np.maximum(room // 2, 1))
    for depth, value in enumerate(rng.permutation(values)):
        inner = tuple(slice(a + depth, max(b - depth, a + depth + 1)) for a, b in zip(start, stop))
        label[inner] = value
    missing = [v for v in values if v not in label]
    label.flat[: len(missing)] = missing  # tiny shapes: at least one voxel each
    return label


def make_image(shape: tuple[int, int, int], rng: np.random.Generator, year: int) -> np.ndarray:
    """Positive noise in a box, zero around it; int16 up to 2021, float32 since, as the official files."""
    image = np.zeros(shape, np.float32)
    inside = tuple(slice(1, n - 1) for n in shape)
    image[inside] = rng.uniform(50, 900, image[inside].shape)
    return image.astype(np.int16 if year <= 2021 else np.float32)


def save(path: Path, voxels: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    """Writes `voxels` with qform and sform codes 1 and units of mm."""
    image = nib.Nifti1Image(voxels, affine)
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    image.header.set_xyzt_units("mm")
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)
    return path


def convert(sources, tmp_path: Path, year: int, **options):
    """Converts to tmp_path/raw/Dataset005_...; `options` are those of the BraTS converters. Returns the summary."""
    sources = sources if isinstance(sources, list) else [sources]
    return CONVERTERS[f"brats{year}"].convert(sources, tmp_path / "raw", 5, Options(**options))


def run_converter(monkeypatch, capsys, *arguments, **environment) -> SimpleNamespace:
    """Runs nnmiss_convert_dataset in this process: exit code, stdout, stderr."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        convert_dataset.main()
    out = capsys.readouterr()
    return SimpleNamespace(returncode=stop.value.code, stdout=out.out, stderr=out.err)


def files(folder: Path) -> list[str]:
    """Names in a folder, sorted."""
    return sorted(p.name for p in folder.iterdir())


def content(folder: Path) -> dict:
    """The folder's dataset.json."""
    return json.loads((folder / "dataset.json").read_text())
