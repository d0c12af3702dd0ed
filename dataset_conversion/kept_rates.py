"""Draws a share of spoken digits evenly over digits and speakers, and writes it as missing tables."""
from __future__ import annotations

import pandas as pd

from nnmiss.dataset_conversion.drawing import shuffled
from nnmiss.dataset_conversion.sample_folder import missing_table
from nnmiss.dataset_conversion.spoken_digits import Clip


def keep_share(clips: list[Clip], rate: float, modality: str, modalities: tuple[str, str], seed: int) -> pd.DataFrame:
    """The table in which `rate` of the pairs keep `modality` and all keep the other one.

    The number kept, `rate` times the pairs to the nearest whole number, is dealt out over (digit, speaker) cells: each gets
    as many as another or one more, and those with one more are spread over digits and speakers. Which pairs of a cell they
    are is drawn with the seed. The pairs of a smaller rate are among those of a larger one. Two modalities draw
    independently.

    Args:
        clips: the training pairs; a clip's name is the id of its sample.
        rate: share of the training pairs, above 0 to 1.
        modality: whose presence is cut.
        modalities: both names.
        seed: another seed is another draw.
    """
    kept = {clip.name for clip in spread(clips, seed, modality)[: round(rate * len(clips))]}
    other = [m for m in modalities if m != modality]
    return missing_table({clip.name: [*other, modality] if clip.name in kept else other for clip in clips}, modalities)


def spread(clips: list[Clip], seed: int, purpose: str) -> list[Clip]:
    """The clips in an order of which every beginning is spread evenly over digits and speakers, drawn with the seed."""
    cells: dict[tuple[int, str], list[Clip]] = {}
    for clip in sorted(clips):
        cells.setdefault((clip.digit, clip.speaker), []).append(clip)
    for cell, members in cells.items():
        place = {name: i for i, name in enumerate(shuffled([clip.name for clip in members], "spread", seed, purpose))}
        cells[cell] = sorted(members, key=lambda clip, place=place: place[clip.name])
    diagonal = _diagonal(list(cells), seed, purpose)
    deepest = max(map(len, cells.values()), default=0)
    return [cells[cell][depth] for depth in range(deepest) for cell in diagonal if depth < len(cells[cell])]


def _diagonal(cells: list[tuple[int, str]], seed: int, purpose: str) -> list[tuple[int, str]]:
    """The cells in an order in which every run of them is spread over digits and speakers."""
    digits = shuffled({digit for digit, _ in cells}, "spread", seed, purpose)
    speakers = shuffled({speaker for _, speaker in cells}, "spread", seed, purpose)
    there = set(cells)
    order = [(digit, speakers[(turn + i) % len(speakers)]) for turn in range(len(speakers))
             for i, digit in enumerate(digits)]
    return [cell for cell in order if cell in there]
