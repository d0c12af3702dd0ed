"""Repeats the official checks of a BraTS year on a submission, a folder or an archive from anyone's software."""
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from tqdm import tqdm

from nnmiss.bounded_threads import in_threads
from nnmiss.brats_ids import of_others
from nnmiss.brats_years import Challenge
from nnmiss.errors import NnmissError
from nnmiss.export.archive_reading import Submission, open_submission
from nnmiss.export.reference_images import ReferenceImages, find_reference_images
from nnmiss.export.rules import ERROR, RULES, WARNING, Finding, error
from nnmiss.export.submission_images import check_image, no_reference
from nnmiss.export.submission_names import ENDING, SubmittedFile, by_portal_id, identify_files, portal_id
from nnmiss.export.submission_voxels import reason_of


@dataclass
class Report:
    """What a submission is and which rules it breaks, by rule and case."""

    path: Path
    kind: str
    """"folder", "zip", "tar", or "file" for what is none of these."""
    challenge: Challenge
    cases: list[str]
    """Those that have a segmentation here, sorted."""
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What could not be checked, and why."""

    @property
    def errors(self) -> list[Finding]:
        """What would be rejected, penalised, or scored as something else than meant."""
        return [f for f in self.findings if f.severity == ERROR]

    @property
    def warnings(self) -> list[Finding]:
        """What would pass, but is probably not meant."""
        return [f for f in self.findings if f.severity == WARNING]

    def as_dict(self) -> dict:
        """For JSON: submission, challenge, cases, counts, findings, notes."""
        return {"submission": str(self.path), "kind": self.kind, "year": self.challenge.year,
                "challenge": self.challenge.name, "cases": self.cases, "num_errors": len(self.errors),
                "num_warnings": len(self.warnings), "findings": [f.as_dict() for f in self.findings],
                "notes": self.notes}


def validate_submission(path: str | Path, challenge: Challenge, references: str | Path | ReferenceImages | None = None,
                        ids: Sequence[str] | None = None, num_threads: int = 1, progress: bool = False) -> Report:
    """Checks a folder, zip or tar of segmentations by the rules of `challenge`, see `rules.RULES`.

    Archives are read one file at a time; nothing is unpacked but into a temporary folder, under names of our own.

    Args:
        references: folder of the cases' images (nnU-Net's or the official download), or what was found there. For the
            geometry, and for the known ids where `ids` is not given.
        ids: the official cases of this submission; all of them are demanded, of `references` only those without a
            segmentation.
        num_threads: images checked at once.
        progress: show a bar.

    Raises:
        NnmissError: nothing is at `path`, it holds several submissions, `references` holds no image, an empty list,
            known ids of another challenge, or of which the portal reads two as one.
    """
    if references is not None and not isinstance(references, ReferenceImages):
        references = find_reference_images(references)
    known = list(dict.fromkeys(ids)) if ids is not None else None if references is None else list(references.found)
    if known is not None and not known:
        raise NnmissError("the list of known case ids is empty: give the official cases, or none")
    if whose := of_others(known or (), challenge):
        raise NnmissError(f"the known ids, as {known[0]}, are {whose}, not of {challenge.title}: give the year of the "
                          "images (-r) or of the list (--ids)")
    _one_submission(Path(path))
    with open_submission(path, challenge.portal) as submission:
        demanded = references.demanded if ids is None and references else known
        files, named = identify_files(submission, challenge, known, demanded)
        imaged = by_portal_id(references.found if references else (), challenge)

        def check(file: SubmittedFile, local: Path) -> list[Finding]:
            key = portal_id(file.case + ENDING, challenge) or file.case
            image, findings = None, []
            if key in imaged:
                try:
                    image = references.of(imaged[key])
                except NnmissError as problem:
                    findings = [no_reference(str(problem), {"case": file.case, "file": file.shown})]
            return findings + check_image(local, challenge, image, file.case, file.shown, file.uncertainty is not None)

        read = list(_check_all(submission, files, check, num_threads, progress))
        cases = sorted({file.case for file in files if file.uncertainty is None})
        report = Report(Path(path), submission.kind, challenge, cases, submission.findings + named + read)
    order = list(RULES)
    report.findings.sort(key=lambda f: (order.index(f.rule), f.severity, f.case or "", f.file or ""))
    report.notes = _unchecked(report, known, references is not None, imaged)
    if known and not demanded:
        report.notes.append("missing cases were not checked: the cases of -r are training cases; give a list (--ids)")
    return report


def _check_all(submission: Submission, files: list[SubmittedFile],
               check: Callable[[SubmittedFile, Path], list[Finding]], num_threads: int,
               progress: bool) -> Iterator[Finding]:
    """Findings on all images. At most `num_threads` + 1 copies lie in the temporary folder at a time."""
    def check_and_drop(fetched: tuple[SubmittedFile, Path | Finding]) -> list[Finding]:
        file, local = fetched
        if isinstance(local, Finding):
            return [replace(local, case=file.case)]
        try:
            return check(file, local)
        except Exception as problem:  # a header so broken that no check foresaw it stops only its own file
            return [error("unreadable", f"cannot be checked ({reason_of(problem, local)})", RULES["unreadable"].demand,
                          "write the segmentation again", file.case, file.shown)]
        finally:
            if submission.archive is not None:
                local.unlink(missing_ok=True)

    with TemporaryDirectory(prefix="nnmiss_validate_") as folder:
        bar = tqdm(files, desc="checking", unit=" files", disable=not (progress and files))
        fetched = ((file, submission.fetch(file.member, Path(folder), number)) for number, file in enumerate(bar))
        with closing(in_threads(check_and_drop, fetched, num_threads)) as checked:
            for _, future in checked:
                yield from future.result()


def _one_submission(path: Path) -> None:
    """Refuses folders of several submissions, as nnmiss_export_brats and nnmiss_predict --all_subsets write: sub-folders
    with the same files, or archives and no segmentation. One folder per case is a submission in a poor form."""
    if not path.is_dir() or any(p.name.endswith((".nii.gz", ".nii")) for p in path.iterdir()):
        return
    folders = {p: {f.name for f in p.glob("*.nii.gz")} for p in sorted(path.iterdir()) if p.is_dir()}
    archives = sorted(p for p in path.iterdir() if p.name.endswith((".zip", ".tar", ".tar.gz", ".tgz")))
    names = [name for files in folders.values() for name in files]
    if archives or len(set(names)) < len(names):
        inner = [*(p for p, files in folders.items() if files), *archives]
        listed = " ".join(map(str, inner[:3])) + (" ..." if len(inner) > 3 else "")
        raise NnmissError(f"{path} holds {len(inner)} folders and archives of segmentations, not one submission: give them "
                          f"instead, as -i {listed}")


def _unchecked(report: Report, known: list[str] | None, with_images: bool, imaged: dict[str, str]) -> list[str]:
    """What the official checks look at and this one could not, in words."""
    challenge, cases, notes = report.challenge, report.cases, []
    if not cases:
        return notes
    if known is None and challenge.validation_cases and len(cases) != challenge.validation_cases:
        notes.append(f"found {len(cases)} of {challenge.validation_cases} cases, if these are of the official validation "
                     "set")
    if known is None:
        notes.append("known ids and missing cases were not checked: give the images (-r) or a list (--ids)")
    without = [c for c in cases if with_images and (portal_id(c + ENDING, challenge) or c) not in imaged]
    if without:
        notes.append(f"{len(without)} case(s) have no image to compare geometry with: {', '.join(without[:5])}"
                     f"{' ...' if len(without) > 5 else ''}")
    if not with_images and challenge.geometry == "reference":
        notes.append("origin, spacing and direction were not compared: give the images (-r)")
    if not challenge.portal.archive and report.kind != "folder":
        notes.append("the portal of 2018 to 2020 (IPP) took the files; whether it takes an archive is not documented")
    return notes
