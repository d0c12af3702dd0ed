"""What a user is told about a BraTS download: what was found, what was left, and what to try when it is another one."""
from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence

from nnmiss.brats_years import CHALLENGES, Challenge
from nnmiss.dataset_conversion.brats_files import Download
from nnmiss.dataset_conversion.raw_types import SourceCase, shortened
from nnmiss.nifti_files import NiftiFile, describe

EXAMPLES = {2018: "Brats18_2013_10_1", 2019: "BraTS19_2013_10_1", 2020: "BraTS20_Training_001", 2021: "BraTS2021_00000"}


MAX_NOTES = 10  # of one sort


def found_notes(download: Download, cases: list[SourceCase], rules: Challenge) -> list[str]:
    """What lay in the folders: numbers of cases and grades, misnamed files, files that were not used."""
    with_label = [case.name for case in cases if case.label]
    grades = Counter(filter(None, (download.cases[name].grade() for name in with_label if download.cases[name].files)))
    counted = f" ({', '.join(f'{n} {grade}' for grade, n in sorted(grades.items()))})" if grades else ""
    without = len(cases) - len(with_label)
    notes = [f"found {len(cases)} cases: {len(with_label)} with segmentation{counted}, {without} without"]
    held_out = [case.name for case in cases if case.test and case.label]
    if held_out:
        notes.append("their folder or id says validation or test though they have a segmentation, so they went to "
                     f"imagesTs and labelsTs: {shortened(held_out)}")
    taken = [file.relative for case in download.cases.values() for file in case.unofficial]
    if taken:
        notes.append(f"took files that are not named by their case, by the name of their folder: {shortened(taken)}")
    incomplete = {case.name for case in cases
                  if len(case.images) < len(rules.modalities) or not (case.label or case.test)}
    guilty = {case: files for case, files in sorted(download.wordless.items()) if case in incomplete}
    notes += [_wordless_note(case, files) for case, files in list(guilty.items())[:MAX_NOTES]]
    if len(guilty) > MAX_NOTES:
        notes.append(f"and {len(guilty) - MAX_NOTES} more cases that lack something have such files")
    unused = download.unused + [f for case, files in download.wordless.items() if case not in guilty for f in files]
    if unused:
        names = shortened([file.relative for file in unused], 5)
        notes.append(f"{len(unused)} NIfTI files were not used, their names tell no case or modality: {names}")
    return notes


def _wordless_note(case: str, files: list[NiftiFile]) -> str:
    """Why a case lacks something that seems to be there."""
    return (f"{case} lacks something, but {shortened([file.relative for file in files], 5)} was not used: it has no known "
            f"modality word behind the id, as in {case}_t2.nii.gz")


def year_notes(files: list[NiftiFile], rules: Challenge) -> list[str]:
    """A warning where a folder's name says a year in which an integer of the labels meant something else."""
    here = {value: label for label, value in rules.labels.items()}
    for folder in dict.fromkeys(folder for file in files for folder in file.folders):
        match = re.search(r"brats\D*(20[12]\d)(?!\d)", folder, re.IGNORECASE)
        other = CHALLENGES.get((int(match[1]), rules.name)) if match else None
        there = {value: label for label, value in other.labels.items()} if other else {}
        if any(there[value] != here.get(value, there[value]) for value in there):
            return [f"the folder {folder} says {other.year}, whose labels were {there}; they were read as those of "
                    f"{rules.year}, {here}: check that this is the right converter"]
    return []


def nothing_found(sources: Sequence[str | os.PathLike], rules: Challenge, download: Download) -> str:
    """The message for folders without a case of the challenge: what was expected, what is there, what to do."""
    example = "BraTS-MEN-RT-0000-1" if rules.name == "MEN-RT" else f"BraTS-{rules.name}-00000-000"
    example = EXAMPLES.get(rules.year, example)
    if download.foreign:
        return f"no case of {rules.title} (as {example}); {foreign_hint(download, rules)}"
    if download.wordless:
        return f"no case of {rules.title}: {_wordless_note(*min(download.wordless.items()))}"
    there = "; ".join(describe(source) for source in sources)
    return (f"no case of {rules.title}: expected files or folders named as {example}, but {there}. For data with other "
            "names use the converter `folder`")


def foreign_hint(download: Download, rules: Challenge) -> str:
    """Whose ids the foreign ones are and which command takes them, the same year's if that has them."""
    others = {(other.year, other.name) for others in download.foreign.values() for other in others if other.year <= 2025}
    others = {key for key in others if key[0] == rules.year} or others
    commands = [f"brats{year}" + (f" --challenge {name}" if name != "GLI" else "") for year, name in sorted(others)]
    count = len(download.foreign)
    return (f"{count} case{'s have' if count > 1 else ' has'} an id of another year or challenge than {rules.title} "
            f"({shortened(sorted(download.foreign), 3)}): convert with {' or '.join(commands)}")
