"""Damage to files as files: gone, cut, of another kind, under another name, in another's place."""
from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
from damaged_base import TWINS, Place, content, read, replace, write

Random = np.random.Generator


def absent(place: Place, rng: Random) -> None:
    place.file.unlink()


def all_absent(place: Place, rng: Random) -> None:
    for channel in place.channels:
        place.image(channel).unlink()


def empty(place: Place, rng: Random) -> None:
    replace(place.file).touch()


def truncated(place: Place, rng: Random) -> None:
    data = place.file.read_bytes()
    replace(place.file).write_bytes(data[: rng.integers(1, len(data))])


def truncated_by_a_little(place: Place, rng: Random) -> None:
    data = place.file.read_bytes()
    replace(place.file).write_bytes(data[: -rng.integers(1, 12)])


def truncated_then_packed(place: Place, rng: Random) -> None:
    data = content(place.file)
    data = data[: rng.integers(1, len(data))]
    replace(place.file).write_bytes(gzip.compress(data) if place.ending == ".nii.gz" else data)


def flipped_bits(place: Place, rng: Random) -> None:
    """In a packed file anywhere behind gzip's header; in a plain one in the field that says what the voxels are."""
    data = bytearray(place.file.read_bytes())
    low, high = (10, len(data)) if place.ending == ".nii.gz" else (70, 72)
    data[rng.integers(low, high)] ^= 1 << rng.integers(0, 8)
    replace(place.file).write_bytes(data)


def garbage(place: Place, rng: Random) -> None:
    replace(place.file).write_bytes(rng.bytes(int(rng.integers(1, 20_000))))


def packed_garbage(place: Place, rng: Random) -> None:
    replace(place.file).write_bytes(gzip.compress(rng.bytes(int(rng.integers(1, 20_000)))))


def web_page(place: Place, rng: Random) -> None:
    replace(place.file).write_text("<!DOCTYPE html><html><body>404 Not Found</body></html>\n" * 20)


def surplus_bytes(place: Place, rng: Random) -> None:
    data = place.file.read_bytes()
    replace(place.file).write_bytes(data + rng.bytes(int(rng.integers(1, 100))))


def other_packing(place: Place, rng: Random) -> None:
    """A .nii.gz that is not packed, a .nii that is."""
    data = content(place.file)
    replace(place.file).write_bytes(data if place.ending == ".nii.gz" else gzip.compress(data))


def packed_anew(place: Place, rng: Random) -> None:
    data = content(place.file)
    replace(place.file).write_bytes(gzip.compress(data, 9) if place.ending == ".nii.gz" else data)


def folder_instead(place: Place, rng: Random) -> None:
    replace(place.file).mkdir()


def dangling_link(place: Place, rng: Random) -> None:
    replace(place.file).symlink_to(place.folder / "gone.nii.gz")


def link_to_itself(place: Place, rng: Random) -> None:
    replace(place.file).symlink_to(place.file.name)


def pipe(place: Place, rng: Random) -> None:
    os.mkfifo(replace(place.file))


def link_to_the_file(place: Place, rng: Random) -> None:
    elsewhere = place.folder / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    place.file.symlink_to(place.file.rename(elsewhere / place.file.name))


def _own_copy(file: Path) -> Path:
    data = file.read_bytes()
    replace(file).write_bytes(data)
    return file


def read_only(place: Place, rng: Random) -> None:
    _own_copy(place.file).chmod(0o444)


def unreadable(place: Place, rng: Random) -> None:
    _own_copy(place.file).chmod(0)


# ---- names


def other_letter_case(place: Place, rng: Random) -> None:
    place.file.rename(place.images / place.file.name.replace(place.case, place.case.upper()))


def wrong_ending(place: Place, rng: Random) -> None:
    other = {".nii.gz": [".nii", ".nii.gz.gz", ".nii.gz.bak", ".NII.GZ", ".nii.gz.part", ".mha", ".nii.gz~", ".gz", ""],
             ".nii": [".nii.gz", ".NII", ".nii.bak", ".hdr", ".nrrd", ".nii.tmp", ".img", ""]}[place.ending]
    name = place.file.name.removesuffix(place.ending) + other[rng.integers(len(other))]
    place.file.rename(place.images / name)


def unknown_channel(place: Place, rng: Random) -> None:
    number = int(rng.choice([3, 4, 17, 9999]))
    place.file.rename(place.image(number))


def no_channel(place: Place, rng: Random) -> None:
    kinds = [f"{place.case}", f"{place.case}_{place.channel:03d}", f"{place.case}-{place.channel:04d}",
             f"{place.case}_{place.channel:05d}", f"{place.case}_{place.channel:04d}_", f"{place.case}_flair"]
    place.file.rename(place.images / (kinds[rng.integers(len(kinds))] + place.ending))


def second_copy(place: Place, rng: Random) -> None:
    stem = place.file.name.removesuffix(place.ending)
    kinds = [f"{stem} (1)", f"{stem} - Copy", f"{stem}_2", f"{stem}.orig", f"{stem}a"]
    os.link(place.file, place.images / (kinds[rng.integers(len(kinds))] + place.ending))


def space_in_the_name(place: Place, rng: Random) -> None:
    place.file.rename(place.images / place.file.name.replace(place.case, rng.choice([f"{place.case} ", f" {place.case}"])))


def name_not_in_utf8(place: Place, rng: Random) -> None:
    os.rename(place.file, os.fsencode(place.images) + b"/" + place.case.encode() + b"\xe9" + os.fsencode(
        f"_{place.channel:04d}{place.ending}"))


def hidden_companions(place: Place, rng: Random) -> None:
    """What systems and people leave in folders."""
    (place.images / f"._{place.file.name}").write_bytes(b"\0\5\x16\7")
    for name in (".DS_Store", "Thumbs.db", "README.txt", "scans.csv"):
        (place.images / name).write_text("not an image")
    (place.images / "old").mkdir(exist_ok=True)


def another_name(place: Place, rng: Random) -> None:
    place.file.rename(place.image(case=f"x{rng.integers(10, 99)}"))


# ---- in another's place


def swap(first: Path, second: Path) -> None:
    between = first.with_name(".between")
    first.rename(between)
    second.rename(first)
    between.rename(second)


def swapped_with_twin(place: Place, rng: Random) -> None:
    """With the same channel of a case on the same grid: nothing in the files can tell."""
    swap(place.file, place.image(case=TWINS[place.case]))


def swapped_with_other_grid(place: Place, rng: Random) -> None:
    other = {"imagesTr": "b0", "imagesTs": "t2"}[place.images.name]
    channel = 2  # all have it
    swap(place.image(channel), place.image(channel, other))


def swapped_channels(place: Place, rng: Random) -> None:
    swap(place.file, place.image(place.other_channel()))


def _copy_over(source: Path, target: Path, anew: bool) -> None:
    replace(target)
    if anew:
        write(target, *read(source))
    else:
        os.link(source, target)


def copy_of_another_channel(place: Place, rng: Random) -> None:
    _copy_over(place.image(place.other_channel()), place.file, False)


def copy_of_another_case(place: Place, rng: Random) -> None:
    _copy_over(place.image(case=TWINS[place.case]), place.file, False)


def copy_packed_anew(place: Place, rng: Random) -> None:
    source = place.image(place.other_channel())
    data = content(source)
    replace(place.file).write_bytes(gzip.compress(data, 9) if place.ending == ".nii.gz" else data)
