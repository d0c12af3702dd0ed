"""What a user is told about a BraTS download: what was found, what was left, and what to try when it is another one."""
from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence

from nnmiss.brats_years import CHALLENGES, Challenge
from nnmiss.dataset_conversion.brats_files import Download, FoundCase, stated_year
from nnmiss.dataset_conversion.raw_types import SourceCase
from nnmiss.errors import shortened
from nnmiss.nifti_files import NiftiFile, describe

EXAMPLES = {2018: "Brats18_2013_10_1", 2019: "BraTS19_2013_10_1", 2020: "BraTS20_Training_001", 2021: "BraTS2021_00000"}


MAX_NOTES = 10  # of one sort
LAST_CONVERTED = 2025
FIRST_YEAR_OF_ALIKE_IDS = 2023  # BraTS-GLI-00000-000 is of 2023, 2024 or 2025


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


def year_notes(download: Download, rules: Challenge) -> list[str]:
    """A warning for every other year that folders of the cases state, where the ids of both years are alike."""
    stating: dict[int, list[str]] = {}
    for case in download.cases.values():
        for folder in {file.folders: None for files in case.files.values() for file in files}:
            years = {stated_year(name): name for name in folder}  # innermost name of each year
            others = [year for year in years if year and year != rules.year]
            if rules.year >= FIRST_YEAR_OF_ALIKE_IDS and rules.year not in years and others:
                stating.setdefault(others[-1], []).append(years[others[-1]])
    return [_year_note(year, list(dict.fromkeys(folders)), rules) for year, folders in sorted(stating.items())]


def _year_note(year: int, folders: list[str], rules: Challenge) -> str:
    """What is wrong when folders say another year: only dataset.json, or the meaning of the labels too."""
    other = CHALLENGES.get((year, rules.name))
    here = {value: label for label, value in rules.labels.items()}
    there = {value: label for label, value in other.labels.items()} if other else {}
    meaning = ""
    if any(there[value] != here.get(value, there[value]) for value in there):
        meaning = f"; its labels were {there}, and were read as those of {rules.year}, {here}"
    say = f"the folder {folders[0]} says" if len(folders) == 1 else f"the folders {shortened(folders, 3)} say"
    return (f"{say} {year}, but the cases in there were converted as {rules.title}, as dataset.json now says (ids do not "
            f"tell the year){meaning}: check that this is the right converter")


def nothing_found(sources: Sequence[str | os.PathLike], rules: Challenge, download: Download,
                  empty: Sequence[FoundCase] = ()) -> str:
    """The message for folders without a case of the challenge: what was expected, what is there, what to do."""
    example = "BraTS-MEN-RT-0000-1" if rules.name == "MEN-RT" else f"BraTS-{rules.name}-00000-000"
    example = EXAMPLES.get(rules.year, example)
    if download.foreign:
        return f"no case of {rules.title} (as {example}); {foreign_hint(download, rules)}"
    if download.wordless:
        return f"no case of {rules.title}: {_wordless_note(*min(download.wordless.items()))}"
    if empty:
        names = shortened([case.name for case in empty], 3)
        return (f"no case of {rules.title}: there are only folders of cases without a file that can be used ({names}): "
                "unpack or download them again")
    there = "; ".join(describe(source) for source in sources)
    return (f"no case of {rules.title}: expected files or folders named as {example}, but {there}. For data with other "
            "names use the converter `folder`")


def foreign_hint(download: Download, rules: Challenge) -> str:
    """Whose ids the foreign ones are and which command takes them: that of the year that folders state, else each."""
    possible = [[other for other in others if other.year <= LAST_CONVERTED] for others in download.foreign.values()]
    commands = [f"brats{year}" + (f" --challenge {name}" if name != "GLI" else "")
                for year, name in sorted({(other.year, other.name) for others in possible for other in others})]
    count = len(download.foreign)
    unsure = ": their ids do not tell the year" if any(len(others) > 1 for others in possible) else ""
    advice = f"convert with {' or '.join(commands)}{unsure}" if commands else "no converter is for their year"
    return (f"{count} case{'s have' if count > 1 else ' has'} an id of another year or challenge than {rules.title} "
            f"({shortened(sorted(download.foreign), 3)}): {advice}")
