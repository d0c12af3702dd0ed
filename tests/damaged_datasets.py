"""Every kind of damage with how it must end, and data sets damaged at random from a seed."""
from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import damaged_files as files
import damaged_images as images
import numpy as np
from damaged_base import CHANNELS, TEST, TRAINING, TWINS, Place, copy_dataset, replace
from damaged_files import Random

SAME = "same"  # as if nothing had happened
ABSENT = "absent"  # the modality is missing; the case's other files are used
MESSAGE = "message"  # the case is refused; the message names the case and the file, the other cases finish
WARNING = "warning"  # the file is used; a warning names the case and the file
BLIND = "blind"  # nothing in the files can tell: the case comes out otherwise, the other cases do not
EITHER = "either"  # same or message: readers of different versions may differ
STRIDE = 37  # through the tables; prime, and no divisor of their length
BOTH, TRAIN = ("train", "test"), ("train",)


@dataclass(frozen=True)
class Damage:
    """What is done to a file, how it must end, to which cases, and what the message must name besides the case."""

    apply: Callable[[Place, Random], None]
    end: str
    where: tuple[str, ...] = BOTH
    twins: bool = False  # only cases that have one on the same grid
    named: str = "file"  # file, label, case (the case alone), nothing


def _table(module, **ends: str | tuple) -> dict[str, Damage]:
    made = {}
    for name, end in ends.items():
        end, options = (end, {}) if isinstance(end, str) else end
        made[name] = Damage(getattr(module, name), end, **options)
    return made


CASE, ON_TWINS, TRAIN_ONLY = {"named": "case"}, {"twins": True}, {"where": TRAIN}
LABEL = {"where": TRAIN, "named": "label"}
TABLE: dict[str, Damage] = {
    **_table(
        files, absent=ABSENT, all_absent=(MESSAGE, {"where": TRAIN, "named": "case"}), empty=MESSAGE, truncated=MESSAGE,
        truncated_by_a_little=MESSAGE, truncated_then_packed=MESSAGE, flipped_bits=MESSAGE, garbage=MESSAGE,
        packed_garbage=MESSAGE, web_page=MESSAGE, surplus_bytes=EITHER, other_packing=MESSAGE, packed_anew=SAME,
        folder_instead=MESSAGE, dangling_link=MESSAGE, link_to_itself=MESSAGE, pipe=MESSAGE, link_to_the_file=SAME,
        read_only=SAME, unreadable=EITHER, other_letter_case=(MESSAGE, CASE), wrong_ending=(MESSAGE, CASE),
        unknown_channel=(MESSAGE, CASE), no_channel=(MESSAGE, CASE), second_copy=(MESSAGE, CASE),
        space_in_the_name=(MESSAGE, CASE), name_not_in_utf8=(MESSAGE, CASE), hidden_companions=SAME,
        another_name=(BLIND, {"where": ("test",)}), swapped_with_twin=(BLIND, ON_TWINS),
        swapped_with_other_grid=(MESSAGE, ON_TWINS | CASE), swapped_channels=BLIND, copy_of_another_channel=WARNING,
        copy_of_another_case=(WARNING, ON_TWINS), copy_packed_anew=WARNING),
    **_table(
        images, complex_numbers=MESSAGE, colours=MESSAGE, other_kind_same_values=SAME, big_endian=SAME, scaled_storage=SAME,
        odd_scaling=EITHER, odd_bits_per_voxel=EITHER, one_bit_numbers=MESSAGE, eight_bits=BLIND, beyond_float32=MESSAGE,
        not_a_number=MESSAGE, infinite=MESSAGE, all_nan=MESSAGE, constant=WARNING, zero=WARNING, shifted=MESSAGE,
        scaled=MESSAGE, flipped=MESSAGE, turned=MESSAGE, hardly_shifted=SAME, all_shifted=SAME,
        all_in_other_units=(MESSAGE, CASE), nan_affine=EITHER, no_affine=EITHER, no_spacing=EITHER,
        other_shape=MESSAGE, transposed=MESSAGE, two_volumes=MESSAGE,
        fourth_axis_of_one=EITHER, flat=MESSAGE, absurd_shape=MESSAGE,
        label_absent=(MESSAGE, {"where": TRAIN, "named": "case"}), label_truncated=(MESSAGE, LABEL),
        label_unknown=(MESSAGE, LABEL), label_negative=(MESSAGE, LABEL), label_fractions=(MESSAGE, LABEL),
        label_nan=(MESSAGE, LABEL), label_complex=(MESSAGE, LABEL), label_other_shape=(MESSAGE, LABEL),
        label_shifted=(MESSAGE, LABEL), label_other_kind=(SAME, TRAIN_ONLY), label_empty=(BLIND, TRAIN_ONLY),
        label_swapped=(BLIND, {"where": TRAIN, "twins": True}), label_is_the_image=(MESSAGE, LABEL),
        label_wrong_ending=(MESSAGE, {"where": TRAIN, "named": "case"}),
        label_of_nobody=(MESSAGE, {"where": TRAIN, "named": "nothing"}), label_folder=(MESSAGE, LABEL)),
}


# ---- dataset.json: function of (its content, random numbers) -> bytes


def _json(**changes) -> Callable:
    return lambda content, rng: json.dumps({**content, **changes}).encode()


def _without(content: dict, rng: Random) -> bytes:
    gone = rng.choice(["channel_names", "labels", "numTraining", "file_ending"])
    return json.dumps({k: v for k, v in content.items() if k != gone}).encode()


def _cut(content: dict, rng: Random) -> bytes:
    text = json.dumps(content).encode()
    return text[: rng.integers(0, len(text) - 1)]


def _wrong_kind(content: dict, rng: Random) -> bytes:
    key = rng.choice(["channel_names", "labels", "numTraining", "file_ending"])
    return json.dumps({**content, key: [None, [], {}, "x", -1, 1.5, True, [1], {"0": {}}, ""][rng.integers(10)]}).encode()


def _repeated_key(content: dict, rng: Random) -> bytes:
    return json.dumps(content).encode()[:-1] + b', "channel_names": {"0": "t1", "1": "flair", "2": "t2"}}'


JSON_TABLE: dict[str, tuple[Callable, str]] = {
    "numTraining too large": (_json(numTraining=9), MESSAGE),
    "numTraining as text": (_json(numTraining="4"), MESSAGE),
    "unknown keys": (_json(description="x", overwrite_something=[1], licence=None), SAME),
    "channel missing": (_json(channel_names=dict(zip("01", CHANNELS))), MESSAGE),
    "channel surplus": (_json(channel_names=dict(zip("0123", [*CHANNELS, "t3"]))), MESSAGE),
    "channels as a list": (_json(channel_names=list(CHANNELS)), MESSAGE),
    "channels from 1": (_json(channel_names=dict(zip("123", CHANNELS))), MESSAGE),
    "channel twice": (_json(channel_names={"0": "flair", "1": "t1", "2": "Flair"}), MESSAGE),
    "label missing": (_json(labels={"background": 0, "rim": 1}), MESSAGE),
    "labels with a gap": (_json(labels={"background": 0, "rim": 1, "core": 3}), MESSAGE),
    "no background": (_json(labels={"rim": 1, "core": 2}), MESSAGE),
    "other ending": (_json(file_ending=".mha"), MESSAGE),
    "key gone": (_without, MESSAGE),
    "cut": (_cut, MESSAGE),
    "another kind of value": (_wrong_kind, MESSAGE),
    "key twice": (_repeated_key, MESSAGE),
    "byte order mark": (lambda content, rng: b"\xef\xbb\xbf" + json.dumps(content).encode(), EITHER),
    "UTF-16": (lambda content, rng: json.dumps(content).encode("utf-16"), MESSAGE),
    "list": (lambda content, rng: json.dumps([content]).encode(), MESSAGE),
    "not text": (lambda content, rng: rng.bytes(50), MESSAGE),
    "no dataset.json": (lambda content, rng: None, MESSAGE),
}


NAMES = [*TABLE, *JSON_TABLE]
FOUND = ("wrong_ending", "flipped_bits", "complex_numbers", "pipe", "no_spacing", "all_in_other_units", "constant",
         "copy_of_another_channel", "copy_of_another_case", "key twice", "second_copy", "other_letter_case",
         "other_packing", "no_channel", "no_affine")  # kinds that nnmiss once passed over, waited for or broke off at


def first_seed(name: str) -> int:
    """The smallest seed whose first damage is of this kind."""
    return NAMES.index(name) * pow(STRIDE, -1, len(NAMES)) % len(NAMES)


@dataclass(frozen=True)
class Damaged:
    """One damage that was done: its name in a table, and to whom (None: dataset.json)."""

    name: str
    place: Place | None

    @property
    def end(self) -> str:
        return JSON_TABLE[self.name][1] if self.place is None else TABLE[self.name].end


def damage(source: Path, target: Path, ending: str, seed: int) -> list[Damaged]:
    """Copies the data set at `source` and damages one to three things, no two of one case. Equal seeds, equal damage.

    The first damage goes through the tables in strides, so that a run of seeds covers them all; the others are drawn.
    """
    copy_dataset(source, target)
    rng = np.random.default_rng([20, seed])
    done: list[Damaged] = []
    spare = set(TRAINING + TEST)
    chosen = [NAMES[seed * STRIDE % len(NAMES)], *map(str, rng.choice(list(TABLE), rng.integers(0, 3)))]
    for name in chosen:
        if name in JSON_TABLE:
            _damage_json(target, name, rng)
            done.append(Damaged(name, None))
            continue
        kind = TABLE[name]
        cases = [c for c in sorted(spare) if ("train" if c in TRAINING else "test") in kind.where
                 and (not kind.twins or (c in TWINS and TWINS[c] in spare))]
        if "swapped" in name or "copy" in name:  # these touch a second case
            cases = [c for c in cases if {TWINS.get(c, c), *(("b0", "t2") if "grid" in name else ())} <= spare | {c}]
        if not cases:
            continue
        case = str(rng.choice(cases))
        place = Place(target, case, 0, ending)
        place = Place(target, case, int(rng.choice(place.channels)), ending)
        kind.apply(place, rng)
        done.append(Damaged(name, place))
        spare -= {case, TWINS.get(case, case) if "swapped" in name or "copy" in name else case}
        spare -= {"b0", "t2"} if "grid" in name else set()
    return done


def _damage_json(folder: Path, name: str, rng: Random) -> None:
    file = folder / "dataset.json"
    content = json.loads(file.read_text())
    data = JSON_TABLE[name][0](content, rng)
    replace(file)
    if data is not None:
        file.write_bytes(data)
