"""The recordings of the Free Spoken Digit Dataset: found by name, checked, copied."""
from __future__ import annotations

import os
import re
import shutil
import wave
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from nnmiss.dataset_conversion.mnist_files import is_mnist_folder
from nnmiss.errors import NnmissError, shortened

SAMPLE_RATE = 8000  # Hz, of every recording
TAKES = 50  # of each digit by each speaker, numbered from 0
LICENCE = "MNIST: CC BY-SA 3.0; Free Spoken Digit Dataset: CC BY-SA 4.0"
DIGITS = {str(d): str(d) for d in range(10)}  # "labels" of dataset.json


@dataclass(frozen=True, order=True)
class Clip:
    """A recording by its name, DIGIT_SPEAKER_TAKE.wav; ordered by digit, speaker and take."""

    digit: int
    speaker: str
    take: int

    @property
    def name(self) -> str:
        """The name of its file without .wav, which is also the id of its sample."""
        return f"{self.digit}_{self.speaker}_{self.take}"


def split_sources(sources: Iterable[str | os.PathLike]) -> tuple[Path, Path]:
    """(folder of MNIST's idx files, folder of the recordings), in whichever order they were given.

    Raises NnmissError unless there is exactly one of each.
    """
    folders = [Path(source) for source in sources]
    for folder in folders:
        if not folder.is_dir():
            raise NnmissError(f"source folder {folder} does not exist")
    mnist = [folder for folder in folders if is_mnist_folder(folder)]
    spoken = [folder for folder in map(_recordings_folder, folders) if folder]
    if len(folders) != 2 or len(mnist) != 1 or len(spoken) != 1:
        raise NnmissError("-i takes two folders: that of MNIST's idx files (train-images-idx3-ubyte.gz, ...) and that of "
                          "the recordings of the Free Spoken Digit Dataset (0_jackson_0.wav, ...); got "
                          + ", ".join(f"{folder} ({_what(folder, mnist)})" for folder in folders))
    return mnist[0], spoken[0]


def find_clips(folder: Path) -> tuple[list[Clip], list[str]]:
    """The recordings in `folder`, sorted, and notes about wav files with other names. Raises NnmissError for none."""
    found, strange = [], []
    for path in folder.glob("*.wav"):
        match = re.fullmatch(r"(\d)_([a-z]+)_(\d+)", path.stem)
        if match:
            found.append(Clip(int(match[1]), match[2], int(match[3])))
        else:
            strange.append(path.name)
    if not found:
        raise NnmissError(f"{folder} holds no recording named DIGIT_SPEAKER_TAKE.wav, as 0_jackson_0.wav")
    notes = [f"wav files that are not named DIGIT_SPEAKER_TAKE.wav were not used: {shortened(sorted(strange), 5)}"]
    return sorted(found), notes if strange else []


def copy_clips(source: Path, clips: Iterable[Clip], target: Path) -> dict[str, str]:
    """Copies the recordings into the folder `target`. Returns {clip name: what is wrong with its file}."""
    target.mkdir(parents=True, exist_ok=True)
    bad = {}
    for clip in clips:
        path = source / f"{clip.name}.wav"
        problem = wav_problem(path, SAMPLE_RATE)
        if problem:
            bad[clip.name] = problem
        else:
            shutil.copyfile(path, target / path.name)
    return bad


def wav_problem(path: Path, sample_rate: int | None = None) -> str | None:
    """What is wrong with a wav file, naming it; None when it is whole, not silent and of the rate (Hz).

    Wav files of other than plain integer samples are left to the integrity check of nnmiss_plan_and_preprocess.
    """
    if not path.is_file():
        return f"{path} does not exist"
    try:
        with wave.open(str(path), "rb") as file:
            rate, frames = file.getframerate(), file.getnframes()
            content = file.readframes(frames)
            expected = frames * file.getnchannels() * file.getsampwidth()
    except (wave.Error, EOFError, OSError) as error:
        if str(error).startswith("unknown format"):
            return None
        return f"{path} is no whole wav file ({error or 'it ends in its header'}): download it again"
    if not frames or len(content) < expected:
        return f"{path} holds {len(content)} of {expected} bytes of sound: it is empty or truncated, download it again"
    if len(set(content)) == 1:
        return f"{path} is silent from end to end"
    if sample_rate and rate != sample_rate:
        return f"{path} has {rate} samples a second, expected {sample_rate}"
    return None


def _recordings_folder(folder: Path) -> Path | None:
    """`folder`, or its sub-folder recordings, whichever holds wav files."""
    return next((f for f in (folder, folder / "recordings") if next(f.glob("*.wav"), None)), None)


def _what(folder: Path, mnist: list[Path]) -> str:
    return "MNIST" if folder in mnist else "recordings" if _recordings_folder(folder) else "neither"
