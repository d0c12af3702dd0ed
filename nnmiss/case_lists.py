"""Reads a file that lists cases: test_cases.json, a JSON list, or text with one name a line."""
from __future__ import annotations

import json
import re
from pathlib import Path

from nnmiss.atomic_files import read_at_most
from nnmiss.errors import NnmissError
from nnmiss.nifti_files import stem

LARGEST = 2**26  # bytes


def read_case_list(path: str | Path) -> list[str]:
    """The names in a file, each once, without .nii.gz: a JSON list, an object with a list "cases", or text with one a line.

    Which it is says the content. In text, '#' at the start of a line or behind a space begins a comment. Raises NnmissError
    when the file is absent, holds something else, or no name.
    """
    try:
        text = read_at_most(path, LARGEST)
        if text is None:
            raise NnmissError(f"list of cases {path} is larger than {LARGEST >> 20} MB: it is no such list")
        text = text.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as problem:
        why = problem.strerror if isinstance(problem, OSError) else "not UTF-8"
        raise NnmissError(f"list of cases {path} is not a readable text file ({why}): give one case name a line, or a JSON "
                          "list") from None
    if text.lstrip().startswith(("[", "{")):
        try:
            names = json.loads(text)
        except (ValueError, RecursionError) as problem:
            raise NnmissError(f"list of cases {path} is not valid JSON ({problem}): repair it") from None
        names = names.get("cases") if isinstance(names, dict) else names
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise NnmissError(f'list of cases {path} must hold a list of case names, or an object with "cases", such a '
                              "list; of a splits_final.json write the wanted names into a file of their own")
    else:
        names = [re.sub(r"(^|\s)#.*", "", line) for line in text.splitlines()]
    names = [stem(name.strip()) or name.strip() for name in names if name.strip()]
    if not names:
        raise NnmissError(f"{path} lists no case: give one case name a line")
    return list(dict.fromkeys(names))
