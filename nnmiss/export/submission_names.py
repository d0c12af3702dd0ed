"""Which case each file of a BraTS submission is, by its name alone: names, unique and known ids, completeness."""
from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from nnmiss.brats_ids import id_form, of_others
from nnmiss.brats_years import Challenge
from nnmiss.errors import NnmissError
from nnmiss.export.archive_reading import REPACK, Member, Submission, printable
from nnmiss.export.rules import Finding, error, warning

UNCERTAINTY_MAPS = ("unc_whole", "unc_core", "unc_enhance")
ENDING = ".nii.gz"


@dataclass(frozen=True)
class SubmittedFile:
    """One image of a submission: the case it is taken for, and which uncertainty map it is (None: the segmentation)."""

    member: Member
    case: str
    uncertainty: str | None = None

    @property
    def shown(self) -> str:
        """Its name for messages."""
        return printable(self.member.path)


def portal_id(name: str, challenge: Challenge) -> str | None:
    """What the portal takes for the id in a file name: the digits of 2021 and later, the whole name before; else None."""
    if challenge.name_pattern is None:
        return name.removesuffix(ENDING) if name.endswith(ENDING) else None
    found = re.search(challenge.name_pattern, name)
    return found.group(1) if found else None


def by_portal_id(cases: Iterable[str], challenge: Challenge) -> dict[str, str]:
    """Portal id (the name itself where the portal finds none) -> case. Raises NnmissError for two cases with one id."""
    found: dict[str, str] = {}
    for case in cases:
        other = found.setdefault(portal_id(case + ENDING, challenge) or case, case)
        if other != case:
            raise NnmissError(f"{other} and {case} are the same case for the portal of {challenge.year}, which reads the "
                              f"numbers only: give the cases of {challenge.title} alone")
    return found


def identify_files(submission: Submission, challenge: Challenge,
                   known: Iterable[str] | None,
                   demanded: Iterable[str] | None = None) -> tuple[list[SubmittedFile], list[Finding]]:
    """The images of a submission with their cases, and findings of the rules archive (folders), name, duplicate,
    unknown-id, missing-case and uncertainty (completeness).

    Args:
        known: the official case ids; None where nobody said, which leaves out unknown-id and missing-case.
        demanded: those of them that must be there; None: all. A submission that could not be listed misses none.

    Raises NnmissError as `by_portal_id`.
    """
    by_key = None if known is None else by_portal_id(known, challenge)
    demanded = by_key if demanded is None else by_portal_id(demanded, challenge)
    files, findings, keys = [], _nested(submission, challenge), {}
    for member in submission.members:
        file, key, problem = _identify(member, challenge, by_key)
        if problem:
            findings.append(problem)
        if file is None:
            continue
        files.append(file)
        if key is None:
            continue
        place = (key, file.uncertainty)
        if place in keys:
            findings.append(error("duplicate", f"{printable(keys[place])} and {file.shown} are the same case "
                                  f"{printable(key)}", "one file per case", "leave one of them out", file.case, file.shown))
        else:
            keys[place] = member.path
            if by_key is not None and key not in by_key:
                findings.append(error("unknown-id", f"id {printable(key)} is not among the {len(by_key)} known cases",
                                      f"ids as {next(iter(by_key.values()))}", "leave the file out, or name it as the "
                                      "official case is called", file.case, file.shown))
    found = {key for key, uncertainty in keys if uncertainty is None}
    for key, case in (demanded or {}).items() if submission.listed else ():
        if key not in found:
            findings.append(error("missing-case", "no segmentation", "a segmentation of every case",
                                  "predict and add it; from 2025 on it scores Dice 0, before the means are over fewer "
                                  "cases", case))
    return files, findings + _incomplete_maps(files)


def _identify(member: Member, challenge: Challenge,
              by_key: Mapping[str, str] | None) -> tuple[SubmittedFile | None, str | None, Finding | None]:
    """The image (None: not one), its portal id (None: the portal finds none), and what is wrong with its name."""
    name, shown = member.name, printable(member.path)
    stem = name.removesuffix(ENDING)
    if not name.endswith(ENDING):
        return _other_file(member, challenge)
    uncertainty = next((u for u in UNCERTAINTY_MAPS if stem.endswith("_" + u)), None)
    if uncertainty and challenge.uncertainty:
        stem = stem.removesuffix("_" + uncertainty)
    elif uncertainty:
        problem = error("name", "an uncertainty map", f"segmentations only: {challenge.title} takes no maps",
                        "leave it out", printable(stem), shown)
        return None, None, problem
    key = portal_id(stem + ENDING, challenge)
    official = challenge.is_id(stem) or (by_key is not None and by_key.get(key) == stem)
    if key is None or (challenge.name_pattern is None and not official):
        problem = error("name", f"not a name of {challenge.title}{_whose(stem, challenge)}", _form(challenge),
                        "name the file as the official case is called", printable(stem), shown)
        return SubmittedFile(member, printable(stem), uncertainty), None, problem
    problem = None
    if not official:
        problem = warning("name", f"taken for case {key}, but not called as official cases are"
                          f"{_whose(stem, challenge)}", _form(challenge), "use the official name", printable(stem), shown)
    return SubmittedFile(member, (by_key or {}).get(key, printable(stem)), uncertainty), key, problem


def _other_file(member: Member, challenge: Challenge) -> tuple[SubmittedFile | None, None, Finding]:
    """A file that does not end in .nii.gz. Portals since 2021 refuse the whole archive for one."""
    shown = printable(member.path)
    if member.name.endswith(".nii"):
        stem = printable(member.name.removesuffix(".nii"))
        return SubmittedFile(member, stem), None, error("name", "an uncompressed .nii", "files ending in .nii.gz",
                                                        "compress it: gzip FILE", stem, shown)
    found = error if challenge.portal.archive else warning
    return None, None, found("name", "not a segmentation", "files ending in .nii.gz only", "leave it out", file=shown)


def _form(challenge: Challenge) -> str:
    return f"names as {id_form(challenge)}{ENDING}"


def _whose(stem: str, challenge: Challenge) -> str:
    """'; it is one of BraTS 2023 GLI (--year 2023)' where another challenge calls its cases so."""
    whose = of_others([stem], challenge)
    return f"; it is one {whose}" if whose else ""


def _nested(submission: Submission, challenge: Challenge) -> list[Finding]:
    """Folders inside: pointless everywhere, impossible where files were uploaded one by one (2018 to 2020)."""
    folders = sorted({printable(m.path.rsplit("/", 1)[0]) for m in submission.members if "/" in m.path})
    if not folders:
        return []
    listed = ", ".join(folders[:5]) + (" ..." if len(folders) > 5 else "")
    if not challenge.portal.archive:
        return [error("archive", f"files in folders: {listed}", "the files themselves, which were uploaded to IPP",
                      REPACK)]
    return [warning("archive", f"files in folders: {listed}", "a flat archive",
                    f"{REPACK} (the portal of {challenge.year} {challenge.portal.folders})")]


def _incomplete_maps(files: list[SubmittedFile]) -> list[Finding]:
    """Findings on cases whose three maps are not all there, once any case has one."""
    cases: dict[str, set[str | None]] = {}
    for file in files:
        cases.setdefault(file.case, set()).add(file.uncertainty)
    if not any(present - {None} for present in cases.values()):
        return []
    wanted = {None: "segmentation", **{u: u for u in UNCERTAINTY_MAPS}}
    return [error("uncertainty", f"no {', '.join(what for u, what in wanted.items() if u not in present)}",
                  "segmentation and three maps of every case, or no map at all", "add what is missing, or leave out all "
                  "maps", case)
            for case, present in sorted(cases.items()) if set(wanted) - present]
