"""Converter of S-MNIST, the written and spoken digits database of Khacef et al. 2019, from its six .npy files."""
from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from nnmiss.dataset_conversion.drawing import shuffled
from nnmiss.dataset_conversion.raw_types import ConversionSummary
from nnmiss.dataset_conversion.sample_folder import provenance_of, write_sample_dataset, write_values
from nnmiss.dataset_conversion.smnist_files import COEFFICIENTS, FRAMES, Half, read_half
from nnmiss.errors import NnmissError

DESCRIPTION = "S-MNIST: written and spoken digits of Khacef et al. 2019 (the six .npy files of Zenodo 4452953)"
DEFAULT_ID = 852


@dataclass(frozen=True)
class Options:
    """Choices of this converter; the fields are the command's flags.

    Attributes:
        name: of the data set, as in Dataset852_SMNIST.
        train, val: so many pairs drawn from the training files; 0 for all that are left.
        test: so many pairs drawn from the test files; 0 for all.
        teacher_rows: adds the other pairs of the training files as rows with one modality each.
        seed: of the draws.
        num_threads: not used.
        disable_progress_bar: not used; it takes seconds.
        overwrite: replace a data set of the same id and name.
    """

    name: str = "SMNIST"
    train: int = 8000
    val: int = 2000
    test: int = 2000
    teacher_rows: bool = False
    seed: int = 0
    num_threads: int = 1
    disable_progress_bar: bool = False
    overwrite: bool = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that become `Options`."""
    add = parser.add_argument
    add("--name", default=Options.name, help="name of the data set (default %(default)s)")
    add("--train", type=int, default=Options.train, metavar="N",
        help="training pairs, drawn from the training files; 0: all that are left (default %(default)s, as MIND)")
    add("--val", type=int, default=Options.val, metavar="N",
        help="validation pairs, drawn from the training files (default %(default)s)")
    add("--test", type=int, default=Options.test, metavar="N",
        help="test pairs, drawn from the test files; 0: all (default %(default)s)")
    add("--teacher_rows", action="store_true", help="add all other training pairs as rows of one modality, which teachers "
                                                    "can use and the student does not (MIND's teachers saw them all)")
    add("--seed", type=int, default=Options.seed, help="of the draws (default %(default)s)")


def convert(sources: Sequence[str | os.PathLike], output: str | os.PathLike, dataset_id: int,
            options: Options) -> ConversionSummary:
    """Writes the drawn pairs with the clip as subject, so that no recording lies in two splits.

    Raises NnmissError for files that are absent, of another form, or hold too few pairs, and as `write_sample_dataset`.
    """
    if len(sources) != 1:
        raise NnmissError(f"-i takes one folder, that of the six .npy files, got {len(sources)}")
    training, testing = (read_half(Path(sources[0]), part) for part in ("train", "test"))
    draws = draw_splits(training, testing, options)
    halves = {"train": training, "val": training, "test": testing}
    rows, images, sounds = [], [], []  # manifest rows; (id, half, row) of every image and sound
    for split, drawn in draws.items():
        for row in drawn:
            name = f"{'test' if split == 'test' else 'train'}_{row:05d}"
            rows.append((name, halves[split].clip(row), split, int(halves[split].labels[row])))
            images.append((name, split, row))
            sounds.append((name, split, row))
    if options.teacher_rows:
        for row, shows_sound in _teacher_rows(training, testing, draws):
            label, clip = int(training.labels[row]), training.clip(row)
            rows.append((f"train_{row:05d}_image", f"image_{row:05d}", "train", label))
            images.append((rows[-1][0], "train", row))
            if shows_sound:
                rows.append((f"train_{row:05d}_sound", clip, "train", label))
                sounds.append((rows[-1][0], "train", row))

    def fill(folder: Path) -> None:
        for name, members, values_of in (("images", images, Half.images), ("sounds", sounds, Half.sounds)):
            ids = {split: [i for i, s, _ in members if s == split] for split in halves}
            values = [values_of(halves[split], [row for _, s, row in members if s == split]) for split in halves]
            write_values(folder / f"{name}.npz", [i for split in halves for i in ids[split]], np.concatenate(values))

    manifest = pd.DataFrame(rows, columns=["sample_id", "subject_id", "split", "label"])
    return write_sample_dataset(output, dataset_id, options.name, dataset_json(), manifest, fill,
                                provenance=provenance_of("smnist", sources, options), overwrite=options.overwrite)


def draw_splits(training: Half, testing: Half, options: Options) -> dict[str, list[int]]:
    """"train", "val", "test" -> rows, drawn with the seed; rows whose clip tests, or validates, too are passed over.

    Raises NnmissError when there are too few.
    """
    order = shuffled(range(len(training.labels)), "smnist", options.seed, "train")
    wanted_test = options.test or len(testing.labels)
    if not 0 < options.val < len(order) or options.train < 0 or not 0 < wanted_test <= len(testing.labels):
        raise NnmissError(f"--val {options.val}, --train {options.train}, --test {options.test}: the files hold "
                          f"{len(order)} training and {len(testing.labels)} test pairs")
    test = shuffled(range(len(testing.labels)), "smnist", options.seed, "test")[:wanted_test]
    heard = {testing.clip(row) for row in test}
    order = [row for row in order if training.clip(row) not in heard]
    validation = order[: options.val]
    clips = {training.clip(row) for row in validation}
    train: list[int] = []
    for row in order[options.val:]:
        if len(train) == (options.train or len(order)):
            break
        if training.clip(row) not in clips:
            train.append(row)
    if len(train) < options.train:
        raise NnmissError(f"--train {options.train}: beside {options.val} validation pairs and those that repeat their "
                          f"clips or those of the test pairs, only {len(train)} pairs are left")
    return {"train": sorted(train), "val": sorted(validation), "test": sorted(test)}


def _teacher_rows(training: Half, testing: Half, draws: dict[str, list[int]]) -> list[tuple[int, bool]]:
    """(row, whether its sound is to be used) of every pair that was not drawn; each clip once, none that validates or
    tests."""
    drawn = set(draws["train"]) | set(draws["val"])
    seen = {training.clip(row) for row in drawn} | {testing.clip(row) for row in draws["test"]}
    rest = []
    for row in range(len(training.labels)):
        if row not in drawn:
            clip = training.clip(row)
            rest.append((row, clip not in seen))
            seen.add(clip)
    return rest


def dataset_json() -> dict:
    """dataset.json with the networks of MIND's Appendix C as hints: ResNet-3 encoders, one linear layer on both."""
    return {
        "description": "Written and spoken digits database for multimodal learning (S-MNIST)",
        "licence": "see the Zenodo record; made from MNIST (CC BY-SA 3.0) and Google Speech Commands (CC BY 4.0)",
        "reference": "Khacef, Rodriguez, Miramond 2019, doi:10.5281/zenodo.4452953",
        "task": "multiclass",
        "labels": {str(digit): str(digit) for digit in range(10)},
        "modalities": {
            "image": {"type": "image2d", "file": "images.npz", "channels": 1, "encoder": {"name": "resnet3"}},
            "sound": {"type": "array", "file": "sounds.npz", "shape": [1, FRAMES, COEFFICIENTS], "scaling": "none",
                      "encoder": {"name": "resnet3"}},
        },
        "plan": {"batch_size": 64, "head": {"hidden": [], "dropout": 0.0}},
    }
