"""Which cases are to be predicted, which subsets of them, and into which folder."""
from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from nnmiss.atomic_files import read_json
from nnmiss.availability import Present, subset_name
from nnmiss.errors import NnmissError, nearest_names


@dataclass(frozen=True)
class Wanted:
    """What the user asked for.

    Attributes:
        shown: show only these modalities, if the case has them (`--modalities`); None: each case's own.
        subsets: predict each of these into its own sub-folder (`--subsets`, `--all_subsets`); None: one prediction.
    """

    shown: Present | None = None
    subsets: tuple[Present, ...] | None = None

    def of_case(self, case: str, available: Present,
                modalities: list[str]) -> tuple[dict[str, Present], list[str]]:
        """(sub-folder -> subset, messages) of one case; the sub-folder is "" for a single prediction.

        A modality of `shown` that the case lacks is left out with a message. A subset the case does not have in full
        is not predicted, with a message, because its folder would say something untrue.

        Raises:
            NnmissError: nothing of what was asked for can be predicted.
        """
        has = subset_name(available, modalities)
        if self.subsets is not None:
            possible = [s for s in self.subsets if not any(w and not a for w, a in zip(s, available))]
            if not possible:
                raise NnmissError(f"case {case} has {has} and none of the requested subsets in full")
            left_out = len(self.subsets) - len(possible)
            notes = [f"case {case} has {has}: {left_out} of {len(self.subsets)} subsets need more and are left out"]
            return {subset_name(s, modalities): s for s in possible}, notes if left_out else []
        if self.shown is None:
            return {"": available}, []
        present = tuple(w and a for w, a in zip(self.shown, available))
        asked = subset_name(self.shown, modalities)
        if not any(present):
            raise NnmissError(f"case {case} has {has} and none of the requested modalities {asked}")
        if present != self.shown:
            return {"": present}, [f"warning: case {case} lacks part of {asked}: predicted with "
                                   f"{subset_name(present, modalities)}"]
        return {"": present}, []


def wanted_cases(asked: list[str], cases: Collection[str]) -> tuple[list[str], dict[str, str]]:
    """The cases that --cases names.

    Args:
        asked: names of cases, or files that list them: test_cases.json or another JSON object with "cases", a JSON list,
            or text with one name a line (lines that begin with # are comments). A name of a case comes before a file of
            the same name.
        cases: the cases that there are.

    Returns:
        (names that are among `cases`, each once, in the order of `cases`; unknown name -> message).

    Raises:
        NnmissError: a file that is absent, empty or of another form, or no name at all is among `cases`.
    """
    names: dict[str, str] = {}  # name -> where it stands
    for entry in asked:
        if entry in cases:
            names.setdefault(entry, "")
        elif Path(entry).is_file():
            for name in _listed(Path(entry)):
                names.setdefault(name, entry)
        elif "/" in entry or Path(entry).suffix in (".json", ".txt"):
            raise NnmissError(f"--cases: there is neither a case nor a file {entry}")
        else:
            names.setdefault(entry, "")
    unknown = {name: f"case {name}{f' of {file}' if file else ''} is not in the input folder" for name, file in
               names.items() if name not in cases}
    if len(unknown) == len(names):
        first = next(iter(unknown))
        there = sorted(cases)
        hint = nearest_names(first, there).partition("Known names")[0]
        raise NnmissError(f"--cases: none of the {len(names)} case(s) is in the input folder, such as {first}. {hint}It "
                          f"has {', '.join(there[:3])}{f' and {len(there) - 3} more' if len(there) > 3 else ''}")
    return [case for case in cases if case in names], unknown


def _listed(path: Path) -> list[str]:
    """The names of cases in a file. Raises NnmissError when it holds none or something else."""
    if path.suffix == ".json":
        content = read_json(path, "list of cases")
        names = content.get("cases") if isinstance(content, dict) else content
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise NnmissError(f'--cases: {path} must hold a list of case names, or an object with "cases", such a list; '
                              "of a splits_final.json write the wanted names into a file of their own")
    else:
        try:
            lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise NnmissError(f"--cases: {path} is not a readable text file ({error}): give one with one case name a "
                              "line") from None
        names = [line for line in lines if line and not line.startswith("#")]
    if not names:
        raise NnmissError(f"--cases: {path} lists no case")
    return names
