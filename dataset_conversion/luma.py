"""Converter of LUMA (Bezirganyan et al. 2024): images, recordings and texts of 50 classes, aligned by its own tool."""
from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from nnmiss.dataset_conversion.drawing import check_share
from nnmiss.dataset_conversion.embedding_file import read_embeddings
from nnmiss.dataset_conversion.luma_rows import CLASSES, compiled_rows, drawn_pairs, image_array, recording_path
from nnmiss.dataset_conversion.media_files import find_problems, place_files
from nnmiss.dataset_conversion.raw_cases import NUM_THREADS
from nnmiss.dataset_conversion.raw_types import ConversionSummary
from nnmiss.dataset_conversion.sample_folder import provenance_of, write_sample_dataset, write_values
from nnmiss.dataset_conversion.spoken_digits import wav_problem
from nnmiss.errors import NnmissError

DESCRIPTION = "LUMA: images, spoken words and texts of 50 classes (the folder `data` of its compilation tool)"
DEFAULT_ID = 854


@dataclass(frozen=True)
class Options:
    """Choices of this converter; the fields are the command's flags.

    Attributes:
        name: of the data set, as in Dataset854_LUMA.
        protocol: "compiled": the rows of the tool's train and test files, which it aligned; "mind": pairs of image and
            recording drawn from the unaligned files, the same number of each frequent class, split at random.
        pairs: mind: of each class.
        val, test: mind: shares of the pairs; compiled: share of the training rows that validates (test is the tool's).
        text_embeddings: npz of `ids` (as the samples, train_00000 ...) and `values`, compiled only; None leaves texts out.
        label_noise: keeps rows whose modalities have different labels, with the image's, as LUMA's loader does.
        channels: of the images, 1 grey or 3 colour.
        seed: of the draws.
        copy: "copy" or "link", for recordings.
        num_threads: files at once.
        disable_progress_bar: prints none.
        overwrite: replace a data set of the same id and name.
    """

    name: str = "LUMA"
    protocol: str = "compiled"
    pairs: int = 1500
    val: float | None = None
    test: float | None = None
    text_embeddings: str | None = None
    label_noise: bool = False
    channels: int = 3
    seed: int = 0
    copy: str = "copy"
    num_threads: int = NUM_THREADS
    disable_progress_bar: bool = False
    overwrite: bool = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that become `Options`."""
    add = parser.add_argument
    add("--name", default=Options.name, help="name of the data set (default %(default)s)")
    add("--protocol", choices=("compiled", "mind"), default=Options.protocol,
        help="the train and test files of LUMA's tool, or MIND's draw of 1,500 pairs a class from the unaligned ones "
             "(default %(default)s)")
    add("--pairs", type=int, default=Options.pairs, metavar="N", help="mind: of each class (default %(default)s)")
    add("--val", type=float, metavar="SHARE", help="that validates (default: compiled .1 of the training rows, mind 4/33)")
    add("--test", type=float, metavar="SHARE", help="mind: of the pairs that is held out (default 4/33)")
    add("--text_embeddings", metavar="FILE", help="compiled: npz with ids (train_00000, ..., test_00000, ...: row numbers "
                                                  "of the text tables) and values; without it texts are left out")
    add("--label_noise", action="store_true", help="keep rows whose modalities have different labels (a setting of LUMA's "
                                                   "tool), with the label of the image")
    add("--channels", type=int, choices=(1, 3), default=Options.channels, help="1 grey, 3 colour (default %(default)s)")
    add("--seed", type=int, default=Options.seed, help="of the draws (default %(default)s)")
    add("--copy", choices=("copy", "link"), default=Options.copy,
        help="hard links save space but share the source's content (default %(default)s)")


def convert(sources: Sequence[str | os.PathLike], output: str | os.PathLike, dataset_id: int,
            options: Options) -> ConversionSummary:
    """Writes the aligned samples of LUMA's tool, or pairs drawn as MIND describes.

    The tables of images are pickles; they are read by `frame_pickles.read_frame`, which runs nothing of them.

    Returns the summary; rows with a damaged recording, image or label are in `failed`. Raises NnmissError for files that
    are absent, refused or of different lengths, and as `write_sample_dataset` does.
    """
    if len(sources) != 1:
        raise NnmissError(f"-i takes one folder, LUMA's `data`, got {len(sources)}")
    if options.protocol == "mind" and options.text_embeddings:
        raise NnmissError("--text_embeddings goes with --protocol compiled: MIND's pairs have no texts")
    folder = Path(sources[0])
    if options.protocol == "compiled":
        val, test = 0.1 if options.val is None else options.val, 0.0
    else:
        val, test = (4 / 33 if share is None else share for share in (options.val, options.test))
    for share, flag in ((val, "--val"), (test, "--test"), (val + test, "--val and --test together:")):
        check_share(share, flag)
    rows = compiled_rows(folder, val, options.seed) if options.protocol == "compiled" else \
        drawn_pairs(folder, options.pairs, val, test, options.seed)
    rows["file"] = [recording_path(folder / "audio", cell) for cell in rows["path"]]
    wrong = find_problems([p for p in rows["file"] if p], wav_problem, options.num_threads, options.disable_progress_bar)
    bad = {row.sample_id: problem for row in rows.itertuples() if (problem := _problem(row, wrong, options))}
    good = rows[~rows["sample_id"].isin(list(bad))]
    classes = [name for name in CLASSES if name in set(good["label"])]
    modalities = dataset_json(classes, options)
    embeddings = read_embeddings(options.text_embeddings, set(good["sample_id"])) if options.text_embeddings else None
    manifest = pd.DataFrame({
        "sample_id": good["sample_id"], "split": good["split"], "label": [classes.index(name) for name in good["label"]],
        "sound": [f"sound/{name}.wav" for name in good["sample_id"]], "recording": good["path"]})

    def fill(target: Path) -> None:
        write_values(target / "images.npz", list(good["sample_id"]), np.stack(list(good["image"])))
        if embeddings:
            write_values(target / "text.npz", *embeddings)
        pairs = {target / f"sound/{name}.wav": path for name, path in zip(good["sample_id"], good["file"])}
        notes.extend(place_files(pairs, options.copy, options.num_threads, options.disable_progress_bar))

    notes: list[str] = []
    if not len(good):
        raise NnmissError("no row of LUMA could be used:\n  " + "\n  ".join(f"{k}: {v}" for k, v in list(bad.items())[:10]))
    summary = write_sample_dataset(output, dataset_id, options.name, modalities, manifest, fill, failed=bad,
                                   provenance=provenance_of("luma", sources, options), overwrite=options.overwrite)
    summary.notes += notes
    return summary


def _problem(row, wrong: dict[Path, str], options: Options) -> str | None:
    """What is wrong with a row."""
    if image_array(row.image) is None:
        return f"its image is no array (32, 32, 3) of uint8 but {getattr(row.image, 'shape', type(row.image).__name__)}"
    if row.label not in CLASSES:
        return f"its label {row.label!r} is none of LUMA's classes"
    if row.sound_label != row.label and not options.label_noise:
        return (f"its image is labelled {row.label}, its recording {row.sound_label}: the files are of different runs, or "
                "label noise was asked for (then give --label_noise)")
    return f"its recording {row.path!r} lies outside the folder audio" if row.file is None else wrong.get(row.file)


def dataset_json(classes: list[str], options: Options) -> dict:
    """dataset.json with the networks of MIND's Appendix C as hints: ResNet-3 encoders, one linear layer on all."""
    texts = {"text": {"type": "embedding", "file": "text.npz"}} if options.text_embeddings else {}
    return {
        "description": "LUMA: images of CIFAR-10/100, spoken class names" + (", texts as embeddings" if texts else ""),
        "licence": "recordings: CC BY-SA 4.0, CC BY 4.0 and CC0 by their folder; generated images: Apache-2.0; CIFAR: none "
                   "stated",
        "reference": "Bezirganyan et al. 2024, arXiv:2406.09864",
        "task": "multiclass",
        "labels": {str(i): name for i, name in enumerate(classes)},
        "modalities": {
            "image": {"type": "image2d", "file": "images.npz", "channels": options.channels,
                      "encoder": {"name": "resnet3"}},
            "sound": {"type": "audio", "encoder": {"name": "resnet3"},
                      "feature": {"kind": "mel_spectrogram", "sample_rate": 16000, "n_fft": 512, "hop": 256}},
            **texts,
        },
        "plan": {"batch_size": 64, "head": {"hidden": [], "dropout": 0.0}},
    }
