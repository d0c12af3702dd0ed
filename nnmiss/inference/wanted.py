"""Which cases are to be predicted, which subsets of them, and into which folder."""
from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from nnmiss.availability import Present, subset_name
from nnmiss.case_lists import read_case_list
from nnmiss.errors import NnmissError, nearest_names, shortened


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
        asked: names of cases, or files that list them (`read_case_list`). A name of a case comes before a file of the
            same name.
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
            for name in read_case_list(entry):
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
                          f"has {shortened(there, 3)}")
    return [case for case in cases if case in names], unknown
