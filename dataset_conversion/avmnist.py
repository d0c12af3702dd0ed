"""Converter of the 1,500-pair audio-visual MNIST of SMIL, MetaKD and SimMLM, made from MNIST and spoken digits."""
from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from nnmiss.dataset_conversion.kept_rates import keep_share
from nnmiss.dataset_conversion.mnist_files import Digits, Mnist, read_mnist
from nnmiss.dataset_conversion.raw_types import ConversionSummary
from nnmiss.dataset_conversion.sample_folder import provenance_of, write_sample_dataset, write_values
from nnmiss.dataset_conversion.spoken_digits import DIGITS, LICENCE, TAKES, Clip, copy_clips, split_sources
from nnmiss.errors import NnmissError

DESCRIPTION = "1,500 pairs of a written and a spoken digit, as SMIL and MetaKD have them (MNIST and FSDD folders)"
DEFAULT_ID = 850

MODALITIES = ("image", "sound")
SPEAKERS = ("jackson", "nicolas", "theo")  # all that FSDD had when SMIL was published; their order is that of the pairs
TEST_TAKES = 15  # takes 0 to 14 are the test clips of SMIL
TRAIN_IMAGES = len(SPEAKERS) * (TAKES - TEST_TAKES)  # of each digit, 105
TEST_IMAGES = len(SPEAKERS) * TEST_TAKES  # of each digit, 45
VALIDATION_STEP = 7  # every 7th training pair of a digit validates: 15 of 105, 5 of each speaker
RATES = (0.05, 0.10, 0.15, 0.20, 0.30, 0.50)  # MetaKD Table 3 has the first four, SimMLM Fig. A2 all but .15


@dataclass(frozen=True)
class Options:
    """Choices of this converter; the fields are the command's flags.

    Attributes:
        name: of the data set, as in Dataset850_AVMNIST1500.
        mfcc: preset of the sound features: "smil" as published (every third sample, without a filter), or "sane".
        missing_seeds: draws of the missing tables; those of the first are called audio_05, those of seed 3 audio_05_s3.
        num_threads: not used.
        disable_progress_bar: not used; it takes a second.
        overwrite: replace a data set of the same id and name.
    """

    name: str = "AVMNIST1500"
    mfcc: str = "smil"
    missing_seeds: Sequence[int] = (0,)
    num_threads: int = 1
    disable_progress_bar: bool = False
    overwrite: bool = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that become `Options`."""
    parser.add_argument("--name", default=Options.name, help="name of the data set (default %(default)s)")
    parser.add_argument("--mfcc", choices=("smil", "sane"), default=Options.mfcc,
                        help="sound features: as published, or without the decimation that costs them most of their "
                             "content (default %(default)s)")
    parser.add_argument("--missing_seeds", type=int, nargs="+", default=[0], metavar="SEED",
                        help="draws of the missing tables (default 0)")


def convert(sources: Sequence[str | os.PathLike], output: str | os.PathLike, dataset_id: int,
            options: Options) -> ConversionSummary:
    """Writes the 1,500 pairs, split 900/150/450, with missing tables for audio and image rates, and SMIL's 1,050/450.

    Returns the summary; pairs whose recording is absent or damaged are in `failed`, the other pairs stay as they are.
    Raises NnmissError for other folders than one of MNIST and one of recordings, and as `write_sample_dataset` does.
    """
    mnist_folder, recordings = split_sources(sources)
    mnist = read_mnist(mnist_folder)
    rows = published_pairs(mnist)
    manifest = pd.DataFrame({
        "sample_id": [clip.name for clip, _, _ in rows], "split": [split for _, _, split in rows],
        "label": [clip.digit for clip, _, _ in rows], "sound": [f"sound/{clip.name}.wav" for clip, _, _ in rows],
        "speaker": [clip.speaker for clip, _, _ in rows], "take": [clip.take for clip, _, _ in rows],
        "mnist_index": [index for _, index, _ in rows]})
    halves = {"test": mnist.test.images}

    def fill(folder: Path) -> dict[str, str]:
        bad = copy_clips(recordings, [clip for clip, _, _ in rows], folder / "sound")
        good = [(clip, index, split) for clip, index, split in rows if clip.name not in bad]
        images = np.array([halves.get(split, mnist.train.images)[index] for _, index, split in good], np.uint8)
        write_values(folder / "images.npz", [clip.name for clip, _, _ in good], images.reshape(-1, 28, 28))
        return bad

    training = [clip for clip, _, split in rows if split == "train"]
    smil = {"train": [clip.name for clip, _, split in rows if split != "test"],
            "test": [clip.name for clip, _, split in rows if split == "test"]}
    return write_sample_dataset(
        output, dataset_id, options.name, dataset_json(options.mfcc), manifest, fill, notes=mnist.notes(),
        splits={"smil": smil}, missing=rate_tables(training, options.missing_seeds), overwrite=options.overwrite,
        provenance=provenance_of("avmnist", sources, options, recordings="Free Spoken Digit Dataset", rates=list(RATES)))


def published_pairs(mnist: Mnist) -> list[tuple[Clip, int, str]]:
    """(clip, position of its image in MNIST's train or t10k file, "train" | "val" | "test") of the 1,500 pairs.

    SMIL's loaders pair the j-th image of a digit with its j-th clip. Images come from files named POSITION.png, sorted as
    text: of MNIST's training images of a digit the first 105, of its test images the last 45. Clips are sorted by file name
    as text; those for training speaker by speaker.

    Raises NnmissError when MNIST holds fewer images of a digit.
    """
    pairs = []
    for digit in range(10):
        clips = [Clip(digit, speaker, take) for speaker in SPEAKERS
                 for take in sorted(range(TEST_TAKES, TAKES), key=lambda take: f"{take}.wav")]
        for j, (clip, image) in enumerate(zip(clips, _as_listed(mnist.train, digit, TRAIN_IMAGES)[:TRAIN_IMAGES])):
            pairs.append((clip, image, "val" if j % VALIDATION_STEP == VALIDATION_STEP - 1 else "train"))
    for digit in range(10):
        clips = sorted((Clip(digit, speaker, take) for speaker in SPEAKERS for take in range(TEST_TAKES)),
                       key=lambda clip: f"{clip.name}.wav")
        images = _as_listed(mnist.test, digit, TEST_IMAGES)[-TEST_IMAGES:]
        pairs += [(clip, image, "test") for clip, image in zip(clips, images)]
    return pairs


def _as_listed(half: Digits, digit: int, needed: int) -> list[int]:
    """Positions of a digit's images, sorted as the names of their files."""
    positions = sorted(half.positions(digit), key=lambda position: f"{position}.png")
    if len(positions) < needed:
        raise NnmissError(f"MNIST holds {len(positions)} images of the digit {digit}, the pairs need {needed}: give the "
                          "folder with all four published files")
    return positions


def rate_tables(training: list[Clip], seeds: Sequence[int]) -> dict[str, pd.DataFrame]:
    """audio_05 ... audio_50 and visual_05 ... visual_50: which training pairs keep sound, or image, for every seed."""
    return {f"{name}_{round(100 * rate):02d}{'' if number == 0 else f'_s{seed}'}":
            keep_share(training, rate, modality, MODALITIES, seed)
            for number, seed in enumerate(seeds) for name, modality in (("audio", "sound"), ("visual", "image"))
            for rate in RATES}


def dataset_json(mfcc: str) -> dict:
    """dataset.json with SMIL's networks as hints."""
    normalisation = "half_raw" if mfcc == "smil" else "zscore"
    return {
        "description": "Audio-visual MNIST of 1,500 pairs (SMIL, MetaKD, SimMLM); not the set of 60,000 pairs of that name",
        "licence": LICENCE,
        "reference": "Ma et al., SMIL: Multimodal Learning with Severely Missing Modality, AAAI 2021; LeCun et al., MNIST; "
                     "Jackson et al., Free Spoken Digit Dataset",
        "task": "multiclass",
        "labels": DIGITS,
        "modalities": {
            "image": {"type": "image2d", "file": "images.npz", "channels": 1, "normalisation": "half",
                      "encoder": {"name": "lenet"}},
            "sound": {"type": "audio", "feature": {"kind": "mfcc", "preset": mfcc}, "normalisation": normalisation,
                      "encoder": {"name": "sound_net"}},
        },
        "plan": {"batch_size": 64, "feature_dim": 320, "head": {"hidden": [64], "dropout": 0.5}},
    }
