"""Converter of CREMA-D: six emotions in the voice and the face of 91 actors."""
from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from nnmiss.dataset_conversion.cremad_files import CLIP, EMOTIONS, find_frames, find_recordings, read_list
from nnmiss.dataset_conversion.drawing import shuffled
from nnmiss.dataset_conversion.media_files import find_problems, image_problem, place_files
from nnmiss.dataset_conversion.raw_cases import NUM_THREADS
from nnmiss.dataset_conversion.raw_types import ConversionSummary
from nnmiss.dataset_conversion.sample_folder import provenance_of, write_sample_dataset
from nnmiss.dataset_conversion.spoken_digits import wav_problem
from nnmiss.errors import NnmissError, shortened

DESCRIPTION = "CREMA-D: emotions in voice and face (folders AudioWAV and Image-01-FPS)"
DEFAULT_ID = 853

HELD_OUT = 0.15  # of the clips, for validation and for test each


@dataclass(frozen=True)
class Options:
    """Choices of this converter; the fields are the command's flags.

    Attributes:
        name: of the data set, as in Dataset853_CREMAD.
        split: "actor": 70/15/15 % of the actors, who are the subjects; "random": of the clips, as MIND (actors in several
            splits); "lists": train.csv and test.csv of OGM-GE found in the sources, a part of the former validating.
        frame: which frame of a clip is its image: "first", "middle" or "last".
        image_size: side of the square that images are resized to when read, in pixels.
        channels: 1 grey, 3 colour.
        seed: of the split.
        copy: "copy" or "link".
        num_threads: files at once.
        disable_progress_bar: prints none.
        overwrite: replace a data set of the same id and name.
    """

    name: str = "CREMAD"
    split: str = "actor"
    frame: str = "middle"
    image_size: int = 112
    channels: int = 1
    seed: int = 0
    copy: str = "copy"
    num_threads: int = NUM_THREADS
    disable_progress_bar: bool = False
    overwrite: bool = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that become `Options`."""
    add = parser.add_argument
    add("--name", default=Options.name, help="name of the data set (default %(default)s)")
    add("--split", choices=("actor", "random", "lists"), default=Options.split,
        help="70/15/15 %% by actor; at random over clips, as MIND; or by train.csv and test.csv of OGM-GE, whose folder -i "
             "then takes, too (default %(default)s)")
    add("--frame", choices=("first", "middle", "last"), default=Options.frame,
        help="which frame of a clip is its image (default %(default)s)")
    add("--image_size", type=int, default=Options.image_size, metavar="PIXELS",
        help="side that images are resized to when read (default %(default)s)")
    add("--channels", type=int, choices=(1, 3), default=Options.channels, help="1 grey, 3 colour (default %(default)s)")
    add("--seed", type=int, default=Options.seed, help="of the split (default %(default)s)")
    add("--copy", choices=("copy", "link"), default=Options.copy,
        help="hard links save space but share the source's content (default %(default)s)")


def convert(sources: Sequence[str | os.PathLike], output: str | os.PathLike, dataset_id: int,
            options: Options) -> ConversionSummary:
    """Writes a sample for every clip of which there is a recording, frames, or both.

    Returns the summary; clips with a damaged file are in `failed`. Raises NnmissError when recordings or frames are not
    found, for lists that do not fit, and as `write_sample_dataset` does.
    """
    sounds, frames = find_recordings(sources), find_frames(sources, options.frame)
    clips = sorted(set(sounds) | set(frames))
    split, notes = split_clips(clips, sources, options)
    paths = [*sounds.values(), *frames.values()]
    wrong = find_problems(paths, lambda path: wav_problem(path) if path.suffix.lower() == ".wav" else image_problem(path),
                          options.num_threads, options.disable_progress_bar)
    bad = {clip: "; ".join(wrong[p] for p in (sounds.get(clip), frames.get(clip)) if p in wrong)
           for clip in clips if sounds.get(clip) in wrong or frames.get(clip) in wrong}
    used = [clip for clip in clips if clip in split]
    good = [clip for clip in used if clip not in bad]
    emotions = list(EMOTIONS)
    manifest = pd.DataFrame({
        "sample_id": good, "split": [split[clip] for clip in good],
        "label": [emotions.index(CLIP.fullmatch(clip)[3]) for clip in good],
        "image": [f"image/{clip}{frames[clip].suffix.lower()}" if clip in frames else None for clip in good],
        "sound": [f"sound/{clip}.wav" if clip in sounds else None for clip in good],
        "actor" if options.split != "actor" else "subject_id": [clip[:4] for clip in good]})
    for kind, there in (("recording", sounds), ("frame", frames)):
        lacking = [clip for clip in used if clip not in there]
        if lacking:
            notes.append(f"{len(lacking)} clips have no {kind}: {shortened(lacking, 5)}")

    def fill(folder: Path) -> None:
        files = {folder / f"sound/{clip}.wav": sounds[clip] for clip in good if clip in sounds}
        files |= {folder / f"image/{clip}{frames[clip].suffix.lower()}": frames[clip] for clip in good if clip in frames}
        notes.extend(place_files(files, options.copy, options.num_threads, options.disable_progress_bar))

    summary = write_sample_dataset(
        output, dataset_id, options.name, dataset_json(options), manifest, fill, overwrite=options.overwrite,
        failed={clip: message for clip, message in bad.items() if clip in split},
        provenance=provenance_of("cremad", sources, options))
    summary.notes += notes
    return summary


def split_clips(clips: list[str], sources: Sequence[str | os.PathLike],
                options: Options) -> tuple[dict[str, str], list[str]]:
    """Clip -> "train", "val" or "test", and notes. Clips that no list names are left out and noted."""
    if options.split == "lists":
        lists = {part: read_list(sources, part) for part in ("train", "test")}
        named = {clip: part for part, names in lists.items() for clip in names if clip in set(clips)}
        training = shuffled([clip for clip, part in named.items() if part == "train"], "cremad", options.seed)
        named |= dict.fromkeys(training[: round(HELD_OUT * len(training))], "val")
        left = sorted(set(clips) - set(named))
        lost = sorted({clip for names in lists.values() for clip in names} - set(clips))
        notes = [f"{len(names)} clips {what}: {shortened(names, 5)}" for what, names in
                 (("are in neither train.csv nor test.csv and were left out", left), ("of the lists are not there", lost))
                 if names]
        return named, [*notes, "actors are in several splits: results say nothing about unseen people"]
    if options.split == "random":
        order, held = shuffled(clips, "cremad", options.seed), round(HELD_OUT * len(clips))
        parts = {"test": order[:held], "val": order[held: 2 * held], "train": order[2 * held:]}
        return ({clip: part for part, members in parts.items() for clip in members},
                ["actors are in several splits: results say nothing about unseen people"])
    actors = sorted({clip[:4] for clip in clips})
    order, held = shuffled(actors, "cremad", options.seed), max(1, round(HELD_OUT * len(actors)))
    if len(actors) < 3:
        raise NnmissError(f"a split by actor needs three of them or more, there are {len(actors)}: give --split random")
    part_of = {actor: "test" if i < held else "val" if i < 2 * held else "train" for i, actor in enumerate(order)}
    return {clip: part_of[clip[:4]] for clip in clips}, []


def dataset_json(options: Options) -> dict:
    """dataset.json with the inputs of OGM-GE and the networks of MIND's Appendix C as hints."""
    return {
        "description": "CREMA-D: acted emotions, a frame of the face and the recording of the voice",
        "licence": "Open Database License 1.0 (ODbL), contents: Database Contents License",
        "reference": "Cao et al. 2014, doi:10.1109/TAFFC.2014.2336244",
        "task": "multiclass",
        "labels": {str(i): name for i, name in enumerate(EMOTIONS.values())},
        "modalities": {
            "image": {"type": "image2d", "channels": options.channels, "size": [options.image_size] * 2,
                      "encoder": {"name": "resnet6"}},
            "sound": {"type": "audio", "feature": {"kind": "log_spectrogram"}, "encoder": {"name": "resnet6"}},
        },
        "plan": {"batch_size": 64, "head": {"hidden": [], "dropout": 0.0}},
    }
