"""Converter of UPMC Food-101: photographs of dishes and the titles of the web pages they were on."""
from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from nnmiss.dataset_conversion.drawing import check_share, shuffled
from nnmiss.dataset_conversion.embedding_file import read_embeddings
from nnmiss.dataset_conversion.food101_files import find_images, read_titles
from nnmiss.dataset_conversion.media_files import find_problems, image_problem, place_files
from nnmiss.dataset_conversion.raw_cases import NUM_THREADS
from nnmiss.dataset_conversion.raw_types import ConversionSummary
from nnmiss.dataset_conversion.sample_folder import provenance_of, write_sample_dataset, write_values
from nnmiss.dataset_conversion.title_embeddings import embed_texts
from nnmiss.errors import NnmissError, shortened

DESCRIPTION = "UPMC Food-101: dishes in photographs and page titles (folders images and texts)"
DEFAULT_ID = 855


@dataclass(frozen=True)
class Options:
    """Choices of this converter; the fields are the command's flags.

    Attributes:
        name: of the data set, as in Dataset855_Food101.
        text_embeddings: npz of `ids` (names of the images without ending) and `values` (n, D).
        text_encoder: folder of a language model that encodes the titles; one of the two is needed.
        image_size: side of the square that images are resized to when read, in pixels.
        val: share of the training samples of each class that validates, unless the source has a split.json.
        seed: of that draw.
        copy: "copy" or "link".
        num_threads: files at once.
        disable_progress_bar: prints none.
        overwrite: replace a data set of the same id and name.
    """

    name: str = "Food101"
    text_embeddings: str | None = None
    text_encoder: str | None = None
    image_size: int = 128
    val: float = 0.1
    seed: int = 0
    copy: str = "copy"
    num_threads: int = NUM_THREADS
    disable_progress_bar: bool = False
    overwrite: bool = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that become `Options`."""
    add = parser.add_argument
    add("--name", default=Options.name, help="name of the data set (default %(default)s)")
    text = parser.add_mutually_exclusive_group()  # one is needed, which `convert` says
    text.add_argument("--text_embeddings", metavar="FILE",
                      help="embeddings of the titles: npz with ids (names of the images without ending) and values")
    text.add_argument("--text_encoder", metavar="FOLDER",
                      help="or a language model to make them with, as transformers saves it (nothing is downloaded)")
    add("--image_size", type=int, default=Options.image_size, metavar="PIXELS",
        help="side that images are resized to when read (default %(default)s)")
    add("--val", type=float, default=Options.val, metavar="SHARE",
        help="of the training samples of each class that validates, where there is no split.json (default %(default)s)")
    add("--seed", type=int, default=Options.seed, help="of that draw (default %(default)s)")
    add("--copy", choices=("copy", "link"), default=Options.copy,
        help="hard links save space but share the source's content (default %(default)s)")


def convert(sources: Sequence[str | os.PathLike], output: str | os.PathLike, dataset_id: int,
            options: Options) -> ConversionSummary:
    """Writes a sample for every image and every title, joined by the image's name; either may be absent.

    Returns the summary; samples with a damaged image are in `failed`. Raises NnmissError for folders of another form, for
    unusable embeddings or encoders, and as `write_sample_dataset` does.
    """
    if len(sources) != 1:
        raise NnmissError(f"-i takes one folder, that of images and texts, got {len(sources)}")
    if bool(options.text_embeddings) == bool(options.text_encoder):
        raise NnmissError("give the titles' embeddings with --text_embeddings FILE, or a model with --text_encoder FOLDER")
    check_share(options.val, "--val")
    images, (titles, bad) = find_images(Path(sources[0])), read_titles(Path(sources[0]))
    notes = []
    samples = sorted({**titles, **images})
    part = {name: (images.get(name) or titles[name])[0] for name in samples}
    label = {name: (images.get(name) or titles[name])[1] for name in samples}
    for what, lacking in (("image", set(titles) - set(images)), ("title", set(images) - set(titles))):
        if lacking:
            notes.append(f"{len(lacking)} samples have no {what}: {shortened(sorted(lacking), 5)}")
    wrong = find_problems([path for _, _, path in images.values()], image_problem, options.num_threads,
                          options.disable_progress_bar)
    bad |= {name: wrong[path] for name, (_, _, path) in images.items() if path in wrong}
    bad |= {name: f"its image is of {'/'.join(images[name][:2])}, its title of {'/'.join(titles[name][:2])}"
            for name in images if name in titles and images[name][:2] != titles[name][:2]}
    good = [name for name in samples if name not in bad]
    classes = sorted(set(label.values()))
    split = _split(Path(sources[0]), {name: (part[name], label[name]) for name in good}, options)
    if len(split) < len(good):
        notes.append(f"{len(good) - len(split)} samples that split.json does not name were left out")
    good = [name for name in good if name in split]
    targets = {name: f"image/{label[name]}/{name}{images[name][2].suffix.lower()}" for name in good if name in images}
    manifest = pd.DataFrame({
        "sample_id": good, "split": [split[name] for name in good], "label": [classes.index(label[name]) for name in good],
        "image": [targets.get(name) for name in good],
        "title": [titles[name][2] if name in titles else None for name in good]})
    if options.text_encoder:
        named = [name for name in good if name in titles]
        embeddings = named, embed_texts([titles[name][2] for name in named], options.text_encoder,
                                        options.disable_progress_bar)
    else:
        embeddings = read_embeddings(options.text_embeddings, set(good))

    def fill(folder: Path) -> None:
        write_values(folder / "text.npz", *embeddings)
        notes.extend(place_files({folder / target: images[name][2] for name, target in targets.items()}, options.copy,
                                 options.num_threads, options.disable_progress_bar))

    summary = write_sample_dataset(output, dataset_id, options.name, dataset_json(classes, options), manifest, fill,
                                   failed=bad, provenance=provenance_of("food101", sources, options),
                                   overwrite=options.overwrite)
    summary.notes += notes
    return summary


def _split(root: Path, samples: dict[str, tuple[str, str]], options: Options) -> dict[str, str]:
    """Name -> "train", "val" or "test": as split.json names them if there is one, else a share of each class validates."""
    split = {name: part for name, (part, _) in samples.items()}
    path = root / "split.json"
    if path.is_file():
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            parts = {part: {Path(image).stem for image in content[part]} for part in ("train", "val", "test")}
        except (ValueError, KeyError, TypeError) as error:
            raise NnmissError(f'{path} must map "train", "val" and "test" to lists of image names ({error!r})') from None
        named = {name: part for part, names in parts.items() for name in names}
        twice = sorted(name for name in named if sum(name in names for names in parts.values()) > 1)
        if twice:
            raise NnmissError(f"{path} has images in more than one part: {shortened(twice, 5)}")
        return {name: named[name] for name in samples if name in named}
    for label in sorted({label for _, label in samples.values()}):
        members = shuffled([name for name, s in samples.items() if s == ("train", label)], "food101", options.seed)
        split.update(dict.fromkeys(members[: round(options.val * len(members))], "val"))
    return split


def dataset_json(classes: list[str], options: Options) -> dict:
    """dataset.json with an image network and a small one on the embeddings as hints."""
    return {
        "description": "UPMC Food-101: photographs of dishes and titles of their web pages, as embeddings",
        "licence": "for research; the images belong to the owners of the web pages",
        "reference": "Wang et al., Recipe recognition with large multimodal food dataset, ICME workshops 2015",
        "task": "multiclass",
        "labels": {str(i): name for i, name in enumerate(classes)},
        "modalities": {
            "image": {"type": "image2d", "size": [options.image_size] * 2, "normalisation": "imagenet",
                      "encoder": {"name": "resnet18"}},
            "text": {"type": "embedding", "file": "text.npz"},
        },
        "plan": {"batch_size": 64},
    }
