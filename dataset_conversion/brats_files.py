"""Says which case and which modality each file of a BraTS download is, by the ids and file names of a challenge."""
from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from nnmiss.brats_years import CHALLENGES, KIND_OF, Challenge
from nnmiss.nifti_files import NiftiFile

HELD_OUT = re.compile(r"validat|(?<![a-z])(val|valid|test|testing)(data|set)?(?![a-z])")  # in lower-cased folder names


@dataclass
class FoundCase:
    """The files of one case: kind ("flair", ..., "label") -> files, normally one. problems: sentences about others.

    unofficial: files that were recognised by their folder's id, not by their own name. unlabelled_source: nothing in the
    source folder it came from has a segmentation. folder: of a case without any file, its folder and those above it.
    """

    name: str
    files: dict[str, list[NiftiFile]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    unofficial: list[NiftiFile] = field(default_factory=list)
    unlabelled_source: bool = False
    folder: tuple[str, ...] = ()

    def any_file(self) -> NiftiFile:
        """Some file of the case."""
        return next(files[0] for files in self.files.values())

    def held_out(self, with_source: bool = True) -> bool:
        """Whether the id or the folders (innermost first) say validation or test rather than training.

        with_source: the source folder's own name counts too.
        """
        if re.search("Validation|Testing", self.name):
            return True
        folders = (self.any_file().folders if self.files else self.folder)[0 if with_source else 1:]
        for folder in reversed([f.lower() for f in folders]):
            says = ("train" in folder, bool(HELD_OUT.search(folder)))
            if says[0] != says[1]:
                return says[1]
        return False

    def grade(self) -> str | None:
        """'HGG' or 'LGG' when a folder is called so."""
        folders = self.any_file().folders if self.files else ()
        return next((f.upper() for f in folders if f.upper() in ("HGG", "LGG")), None)


@dataclass
class Download:
    """What lies in the source folders: cases by id, and the NIfTI files that are none of them.

    wordless: id -> files that it or their folder begins with, but whose name has no known word of a modality.
    foreign: id of another year or challenge -> which ("BraTS 2021 GLI"), only the year's that the folders state if any.
    """

    cases: dict[str, FoundCase] = field(default_factory=dict)
    wordless: dict[str, list[NiftiFile]] = field(default_factory=dict)
    unused: list[NiftiFile] = field(default_factory=list)
    foreign: dict[str, list[Challenge]] = field(default_factory=dict)


def sort_files(files: Iterable[NiftiFile], rules: Challenge) -> Download:
    """Every file put to its case. Nothing is read; doubtful ones become problems of their case, or `unused`."""
    download = Download()
    for file in files:
        own, rest = _leading_id(file.name, rules)
        claimed = own or _foreign_id(file.name)[0]
        named = (_leading_id(folder, rules) for folder in reversed(file.folders))
        folder = next((case for case, more in named if case and not more), None)
        # Without an id of its own a file is known by its last word: W39_1998.09.19_Segm in BraTS20_Training_355.
        word = re.sub(r"[\s_.\-]", "", rest) if own else re.split(r"[\s_.\-]", file.name)[-1]
        kind = KIND_OF.get(word.lower())
        if kind is None and claimed == own and (own or folder):
            download.wordless.setdefault(own or folder, []).append(file)
        elif kind is None or not (own or folder):
            _note_unused(download, file, rules)
        elif folder and claimed not in (None, folder):
            message = f"{file.path} lies in the folder of {folder} but is named {claimed}: move or rename it"
            for name in (own, folder) if own else (folder,):
                download.cases.setdefault(name, FoundCase(name)).problems.append(message)
        else:
            found = download.cases.setdefault(own or folder, FoundCase(own or folder))
            found.files.setdefault(kind, []).append(file)
            if not own:
                found.unofficial.append(file)
    unlabelled = not any("label" in case.files for case in download.cases.values())
    for case in download.cases.values():
        case.unlabelled_source = unlabelled
    return download


def empty_cases(source: Path, folders: Iterable[tuple[str, ...]], known: Download, rules: Challenge) -> list[FoundCase]:
    """A case with its problem for each folder that is called by an id, but of which no file is an image of that case.

    folders: the names of a folder and those above it, below `source`. known: what all sources hold.
    """
    found: dict[str, FoundCase] = {}
    unlabelled = not any("label" in case.files for case in known.cases.values())
    for names in [(), *folders]:  # the source itself may be a case
        above = (source.absolute().name, *names)
        case, rest = _leading_id(above[-1], rules)
        if case and not rest and case not in known.cases and case not in found:
            path = source.joinpath(*names)
            problem = (f"none of the NIfTI files in {path} has a name that tells a modality" if case in known.wordless
                       else f"its folder {path} holds no .nii or .nii.gz file: unpack or download it again")
            found[case] = FoundCase(case, problems=[problem], unlabelled_source=unlabelled, folder=above)
    return list(found.values())


def merge(download: Download, one: Download) -> None:
    """Adds to `download` what another source folder holds."""
    for name, case in one.cases.items():
        known = download.cases.setdefault(name, case)
        if known is not case:
            for kind, files in case.files.items():
                known.files.setdefault(kind, []).extend(files)
            known.problems += case.problems
            known.unofficial += case.unofficial
            known.unlabelled_source &= case.unlabelled_source
    for name, files in one.wordless.items():
        download.wordless.setdefault(name, []).extend(files)
    download.unused += one.unused
    download.foreign |= one.foreign


def _note_unused(download: Download, file: NiftiFile, rules: Challenge) -> None:
    for name in (file.name, *reversed(file.folders)):
        case, others = _foreign_id(name)
        if case and rules not in others:
            years = set(map(stated_year, file.folders))
            stated = [other for other in others if other.year in years]
            download.foreign[case] = stated or others
            return
    download.unused.append(file)


@cache
def stated_year(folder: str) -> int | None:
    """2023 for BraTS2023-GLI-TrainingData; None for folders that say no year, or are called by a case's id."""
    match = re.search(r"brats\D*(20[12]\d)(?!\d)", folder, re.IGNORECASE)
    return int(match[1]) if match and not _foreign_id(folder)[0] else None


def _leading_id(name: str, rules: Challenge) -> tuple[str | None, str]:
    """The id that `name` begins with, and the rest of it; (None, name) when there is none.

    The id's first word may be in upper or lower case (BraTS18_2013_10_1); it is returned in the official spelling.
    """
    word = re.match(r"[\w-]+", rules.id_pattern)[0]
    if name[:len(word)].lower() == word.lower():
        name = word + name[len(word):]
    match = _pattern(rules.id_pattern).match(name)
    return (match[1], name[match.end():]) if match else (None, name)


def _foreign_id(name: str) -> tuple[str | None, list[Challenge]]:
    """The id of any challenge that `name` begins with, and the challenges whose id it is."""
    found = [(_leading_id(name, other)[0], other) for other in CHALLENGES.values()]
    found = [(case, other) for case, other in found if case]
    return (found[0][0], [other for _, other in found]) if found else (None, [])


@cache
def _pattern(id_pattern: str) -> re.Pattern:
    return re.compile(rf"({id_pattern})(?![A-Za-z0-9])")
