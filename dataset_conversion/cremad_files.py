"""Finds the recordings, the frames and the published lists of CREMA-D."""
from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from nnmiss.errors import NnmissError, shortened

EMOTIONS = {"NEU": "neutral", "HAP": "happy", "SAD": "sad", "FEA": "fear", "DIS": "disgust", "ANG": "anger"}
CLIP = re.compile(r"(\d{4})_([A-Z]{3})_(NEU|HAP|SAD|FEA|DIS|ANG)_(XX|LO|MD|HI|X)")  # actor, sentence, emotion, level


def find_recordings(sources: Sequence[str | os.PathLike]) -> dict[str, Path]:
    """Clip -> its wav file, in a source or its folder AudioWAV. Raises NnmissError for none."""
    found = {path.stem: path for source in sources for folder in (Path(source), Path(source) / "AudioWAV")
             for path in sorted(folder.glob("*.wav")) if CLIP.fullmatch(path.stem)}
    if not found:
        raise NnmissError(f"no recordings such as AudioWAV/1001_DFA_ANG_XX.wav in {', '.join(map(str, sources))}: -i takes "
                          "the folder of CREMA-D, and that of the frames if they lie elsewhere")
    return found


def find_frames(sources: Sequence[str | os.PathLike], which: str) -> dict[str, Path]:
    """Clip -> the chosen frame of its folder Image-XX-FPS/CLIP, frames sorted by name. Raises NnmissError for none."""
    found = {}
    for source in map(Path, sources):
        roots = [source] if re.fullmatch(r"Image-\d+-FPS", source.name) else sorted(source.glob("Image-*-FPS"))
        for folder in (folder for root in roots[:1] for folder in sorted(root.iterdir())):
            images = sorted(p for p in folder.glob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png")) \
                if CLIP.fullmatch(folder.name) else []
            if images:
                found[folder.name] = images[{"first": 0, "middle": len(images) // 2, "last": -1}[which]]
    if not found:
        raise NnmissError(
            f"no frames such as Image-01-FPS/1001_DFA_ANG_XX/00000.jpg in {', '.join(map(str, sources))}: CREMA-D holds "
            "Flash videos; take frames out of them first, with ffmpeg for each:\n"
            "  mkdir -p Image-01-FPS/CLIP && ffmpeg -i VideoFlash/CLIP.flv -vf fps=1 Image-01-FPS/CLIP/%05d.jpg")
    return found


def read_list(sources: Sequence[str | os.PathLike], part: str) -> list[str]:
    """The clips in PART.csv ("train" or "test"), lines of CLIP,EMOTION without a header. Raises NnmissError for others."""
    path = next((Path(source) / f"{part}.csv" for source in sources if (Path(source) / f"{part}.csv").is_file()), None)
    if path is None:
        raise NnmissError(f"--split lists needs {part}.csv of OGM-GE (lines such as 1001_IEO_NEU_XX,NEU): give its folder "
                          "with -i, too")
    try:
        table = pd.read_csv(path, header=None, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (ValueError, OSError) as error:  # pandas' own errors are ValueErrors
        raise NnmissError(f"{path} cannot be read as csv ({error})") from None
    clips = table.iloc[:, 0].str.strip().tolist()
    strange = [clip for clip in clips if not CLIP.fullmatch(clip)]
    if strange:
        raise NnmissError(f"{path} lists what is no clip's name: {shortened(strange, 5)}")
    return clips
