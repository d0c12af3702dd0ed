"""Patterns of file names with the case's name in them, as {case}/*FLAIR*.nii.gz."""
from __future__ import annotations

import re
from collections.abc import Iterable

from nnmiss.errors import NnmissError
from nnmiss.nifti_files import NiftiFile

# The parts of a pattern that are not taken literally; the longest first.
PARTS = re.compile(r"\{case\}|\*\*/|\*\*|\*|\?|\[!?[^\]/]+\]")
MEANING = {"**/": "(?:[^/]+/)*", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def parse_pattern(pattern: str) -> re.Pattern:
    """The regular expression, with a group `case`, of a path below the source folder.

    {case} is one or more characters without /, the fewest that fit; where it stands twice it is the same. * and ? are
    anything but /, **/ any number of folders, [abc] and [!abc] one character. Raises NnmissError for a pattern without
    {case}, or with a wildcard beside it (which part would be the name?).
    """
    pattern = pattern.strip().removeprefix("./")
    if "{case}" not in pattern:
        raise NnmissError(f"pattern {pattern!r} lacks {{case}}, the part that is the case's name, as in "
                          "'{case}/*FLAIR*.nii.gz'")
    if re.search(r"[*?\]]\{case\}|\{case\}[*?\[{]", pattern):
        raise NnmissError(f"pattern {pattern!r} has a wildcard beside {{case}}, so nobody can tell where the name ends: "
                          "put a character between them, as in '{case}_*.nii.gz'")
    result, end = "", 0
    for part in PARTS.finditer(pattern):
        result += re.escape(pattern[end: part.start()])
        end = part.end()
        if part[0] == "{case}":
            result += "(?P=case)" if "(?P<case>" in result else "(?P<case>[^/]+?)"
        elif part[0].startswith("["):
            result += part[0].replace("[!", "[^").replace("\\", "\\\\")
        else:
            result += MEANING[part[0]]
    try:
        return re.compile(result + re.escape(pattern[end:]))
    except re.error as error:
        raise NnmissError(f"pattern {pattern!r} cannot be understood ({error}): mind its [ and ]") from None


def find_pattern_files(pattern: re.Pattern, files: Iterable[NiftiFile]) -> dict[str, list[NiftiFile]]:
    """Case name -> the files that match, normally one."""
    found: dict[str, list[NiftiFile]] = {}
    for file in files:
        match = pattern.fullmatch(file.relative)
        if match:
            found.setdefault(match["case"], []).append(file)
    return found
