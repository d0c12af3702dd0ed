"""Finds image files that a case would lack in silence because they are called otherwise than nnU-Net wants."""
from __future__ import annotations

import os
import re
import unicodedata

IMAGE_ENDINGS = (".nii", ".gz", ".nrrd", ".mha", ".mhd", ".mgz", ".img", ".hdr", ".gipl", ".dcm", ".png", ".tif", ".bmp",
                 ".npy", ".npz")


def is_utf8(name: str) -> bool:
    """Whether a file's name can be printed and written into tables."""
    return name == printable(name)


def printable(name: str) -> str:
    """A file's name with the bytes that are not UTF-8 as \\xNN."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def misnamed_files(names: list[str], cases: dict[str, dict[int, str]], file_ending: str) -> dict[str, list[str]]:
    """What is wrong with the names in a folder of images, by the case that may be concerned.

    These would be passed over, or make a case of their own, and the case they belong to would count as lacking a modality:
    a file with the ending but without the channel index; CASE_XXXX with another image ending or none, where the file
    itself is absent; one case under two names that differ by letter case or spaces; a name that is not UTF-8. Notes beside
    an image, as CASE_0000.json, are let be.

    Args:
        names: all file names.
        cases: case -> its channels, of the files that are named as they should be.
        file_ending: as in dataset.json.

    Returns:
        Case -> sentences. A file that belongs to no known case is a case of its own name.
    """
    problems: dict[str, list[str]] = {}
    if not any(file.endswith(file_ending) for file in names):
        return problems  # not the files are wrong but the ending, and that is told
    numbered = re.compile(r"(.+)_(\d{4})(\W.*)?", re.DOTALL)
    for file in names:
        match = numbered.fullmatch(file)
        if not is_utf8(file):
            wrong = "is not named in UTF-8"
        elif file.endswith(file_ending):
            if re.fullmatch(r".+_\d{4}", file[: -len(file_ending)], re.DOTALL):
                continue
            wrong = "lacks the channel index _0000, _0001, ..."
        elif match and _is_image(match[3] or "") and int(match[2]) not in cases.get(match[1], {}):
            wrong = f"does not end in {file_ending}"
        else:
            continue
        case = _case_of(file, cases) or printable(match[1] if match else file.removesuffix(file_ending))
        problems.setdefault(case, []).append(f"case {case}: {printable(file)} {wrong}")
    _add_split_cases(problems, cases)
    return problems


def _is_image(rest: str) -> bool:
    return not rest or rest.lower().startswith(IMAGE_ENDINGS)


def _case_of(file: str, cases: dict) -> str | None:
    """The known case with the longest name that stands, as a whole word, in a file's name, at its start if there is one."""
    folded = _folded(file)
    fitting = [c for c in cases if re.search(rf"(?<![^\W_]){re.escape(_folded(c))}(?![^\W_])", folded)]
    return max(fitting, key=lambda c: (folded.startswith(_folded(c)), len(c)), default=None)


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold().strip()


def _add_split_cases(problems: dict[str, list[str]], cases: dict[str, dict[int, str]]) -> None:
    """Cases whose names differ by letter case or spaces only and that share no channel are one, half of it misnamed."""
    groups: dict[str, list[str]] = {}
    for case in cases:
        groups.setdefault(_folded(case), []).append(case)
    for group in groups.values():
        channels = [c for case in group for c in cases[case]]
        if len(group) > 1 and len(set(channels)) == len(channels):
            for case in group:
                others = ", ".join(repr(c) for c in group if c != case)
                problems.setdefault(case, []).append(
                    f"case {case}: has files under the name {case!r} and under {others}, and no channel twice: one case")
