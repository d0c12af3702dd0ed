"""Converter of spoken and written digits from all of FSDD and MNIST: MIND's S-MNIST task with data that can be had."""
from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from nnmiss.dataset_conversion.drawing import shuffled
from nnmiss.dataset_conversion.kept_rates import spread
from nnmiss.dataset_conversion.mnist_files import Mnist, read_mnist
from nnmiss.dataset_conversion.raw_types import ConversionSummary
from nnmiss.dataset_conversion.sample_folder import provenance_of, write_sample_dataset, write_values
from nnmiss.dataset_conversion.spoken_digits import DIGITS, LICENCE, Clip, copy_clips, find_clips, split_sources
from nnmiss.errors import NnmissError

DESCRIPTION = "spoken and written digits: all recordings of FSDD, each with an image of MNIST (both folders)"
DEFAULT_ID = 851


@dataclass(frozen=True)
class Options:
    """Choices of this converter; the fields are the command's flags.

    Attributes:
        name: of the data set, as in Dataset851_FSDDSMNIST.
        mfcc: preset of the sound features: "sane", or "smil" as in AV-MNIST.
        test_takes: takes 0 to this less one of every digit and speaker are the test clips.
        val_takes: so many takes after them validate; the others train.
        pairs: so many training clips get an image, evenly over digits and speakers; the others are rows with sound only.
            None: all.
        extra_images: rows with an image only, added to the training rows.
        seed: of drawing images, pairs and extra images.
        num_threads: not used.
        disable_progress_bar: not used; it takes a second.
        overwrite: replace a data set of the same id and name.
    """

    name: str = "FSDDSMNIST"
    mfcc: str = "sane"
    test_takes: int = 10
    val_takes: int = 5
    pairs: int | None = None
    extra_images: int = 0
    seed: int = 0
    num_threads: int = 1
    disable_progress_bar: bool = False
    overwrite: bool = False


@dataclass(frozen=True)
class Row:
    """One sample. clip: None for an image alone. image: position in MNIST's train file (t10k for test rows), or None."""

    sample: str
    split: str
    digit: int
    clip: Clip | None
    image: int | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that become `Options`."""
    add = parser.add_argument
    add("--name", default=Options.name, help="name of the data set (default %(default)s)")
    add("--mfcc", choices=("sane", "smil"), default=Options.mfcc, help="sound features (default %(default)s)")
    add("--test_takes", type=int, default=Options.test_takes, metavar="N",
        help="takes 0 to N-1 of every digit and speaker are test clips (default %(default)s; FSDD's own test set is 5)")
    add("--val_takes", type=int, default=Options.val_takes, metavar="N",
        help="the N takes after them validate, all others train (default %(default)s)")
    add("--pairs", type=int, metavar="N", help="give only N of the training clips an image; the others become rows with "
                                               "sound only, which teachers can use (default: all)")
    add("--extra_images", type=int, default=Options.extra_images, metavar="N",
        help="add N training rows with an image only, which teachers can use (default %(default)s)")
    add("--seed", type=int, default=Options.seed, help="of drawing the images (default %(default)s)")


def convert(sources: Sequence[str | os.PathLike], output: str | os.PathLike, dataset_id: int,
            options: Options) -> ConversionSummary:
    """Writes a sample for every recording, its split decided by its take, with an image of its digit drawn from MNIST.

    Returns the summary; recordings that are damaged are in `failed`. Raises NnmissError for other folders than one of
    MNIST and one of recordings, for numbers that do not fit them, and as `write_sample_dataset` does.
    """
    mnist_folder, recordings = split_sources(sources)
    mnist = read_mnist(mnist_folder)
    clips, notes = find_clips(recordings)
    rows = draw_rows(clips, mnist, options)
    manifest = pd.DataFrame({
        "sample_id": [row.sample for row in rows], "split": [row.split for row in rows],
        "label": [row.digit for row in rows],
        "sound": [f"sound/{row.clip.name}.wav" if row.clip else None for row in rows],
        "speaker": [row.clip.speaker if row.clip else None for row in rows],
        "take": [row.clip.take if row.clip else None for row in rows], "mnist_index": [row.image for row in rows]})

    def fill(folder: Path) -> dict[str, str]:
        bad = copy_clips(recordings, [row.clip for row in rows if row.clip], folder / "sound")
        shown = [row for row in rows if row.image is not None and row.sample not in bad]
        images = [(mnist.test if row.split == "test" else mnist.train).images[row.image] for row in shown]
        write_values(folder / "images.npz", [row.sample for row in shown], np.array(images, np.uint8).reshape(-1, 28, 28))
        return bad

    return write_sample_dataset(
        output, dataset_id, options.name, dataset_json(options.mfcc), manifest, fill, notes=[*mnist.notes(), *notes],
        provenance=provenance_of("fsdd_smnist", sources, options), overwrite=options.overwrite)


def draw_rows(clips: list[Clip], mnist: Mnist, options: Options) -> list[Row]:
    """A row for every clip and every extra image.

    The images of test clips come from MNIST's test file, all others from its training file; no image is drawn twice.
    Raises NnmissError when there are too few images or clips.
    """
    first_val, first_train = options.test_takes, options.test_takes + options.val_takes
    split = {clip: "test" if clip.take < first_val else "val" if clip.take < first_train else "train" for clip in clips}
    lacking = [part for part in ("train", "val", "test") if part not in split.values()]
    if lacking or options.test_takes < 1 or options.val_takes < 1:
        raise NnmissError(f"--test_takes {options.test_takes} and --val_takes {options.val_takes} leave no clip for "
                          f"{', '.join(lacking) or 'one of the splits'}: takes go from {min(c.take for c in clips)} to "
                          f"{max(c.take for c in clips)}")
    training = [clip for clip in clips if split[clip] == "train"]
    number = len(training) if options.pairs is None else options.pairs
    if not 0 <= number <= len(training):
        raise NnmissError(f"--pairs {number}: there are {len(training)} training clips")
    paired = set(spread(training, options.seed, "pairs")[:number])
    piles = {name: {digit: shuffled(half.positions(digit), "fsdd_smnist", options.seed, name) for digit in range(10)}
             for name, half in (("train", mnist.train), ("test", mnist.test))}
    rows = []
    for clip in clips:
        image = None
        if split[clip] != "train" or clip in paired:
            pile = piles["test" if split[clip] == "test" else "train"][clip.digit]
            if not pile:
                raise NnmissError(f"MNIST has fewer images of the digit {clip.digit} than there are clips of it")
            image = pile.pop()
        rows.append(Row(clip.name, split[clip], clip.digit, clip, image))
    left = shuffled([(image, digit) for digit, pile in piles["train"].items() for image in pile],
                    "fsdd_smnist", options.seed)
    if not 0 <= options.extra_images <= len(left):
        raise NnmissError(f"--extra_images {options.extra_images}: {len(left)} training images of MNIST are left")
    return rows + [Row(f"mnist_{image:05d}", "train", digit, None, image)
                   for image, digit in sorted(left[: options.extra_images])]


def dataset_json(mfcc: str) -> dict:
    """dataset.json with the networks of MIND's S-MNIST as hints: ResNet-3 encoders, one linear layer on both."""
    normalisation = "half_raw" if mfcc == "smil" else "zscore"
    return {
        "description": "Spoken digits of FSDD, each with a written digit of MNIST (the task of MIND's S-MNIST)",
        "licence": LICENCE,
        "reference": "Jackson et al., Free Spoken Digit Dataset; LeCun et al., MNIST; Khacef et al. 2019 (S-MNIST)",
        "task": "multiclass",
        "labels": DIGITS,
        "modalities": {
            "image": {"type": "image2d", "file": "images.npz", "channels": 1, "encoder": {"name": "resnet3"}},
            "sound": {"type": "audio", "feature": {"kind": "mfcc", "preset": mfcc}, "normalisation": normalisation,
                      "encoder": {"name": "resnet3"}},
        },
        "plan": {"batch_size": 64, "head": {"hidden": [], "dropout": 0.0}},
    }
