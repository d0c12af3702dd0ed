"""Reads the files of a submission, a folder, zip or tar, one at a time and without trusting what an archive says."""
from __future__ import annotations

import gzip
import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from nnmiss.brats_portals import Portal
from nnmiss.errors import NnmissError
from nnmiss.export.bounded_tar import MAX_READ, open_tar
from nnmiss.export.rules import Finding, error, warning
from nnmiss.nifti_files import stem

MAX_FILE_BYTES = 2**30  # of one file in an archive; a segmentation of 240x240x155 is 9 MB even uncompressed
MAX_FILES = 20_000  # four files for each of 5,000 cases
HIDDEN = ("__", "._", "~", ".DS_Store")  # what the official unpacking passes over, by the start of the file's name
DAMAGED = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, EOFError, OSError,
           NotImplementedError, RuntimeError, ValueError)
REPACK = "pack the .nii.gz files again into a flat zip: zip -j submission.zip FOLDER/*.nii.gz"


@dataclass(frozen=True)
class Member:
    """One plain file of a submission. `path` is its name there, with '/'; `handle` is for `Submission.fetch`."""

    path: str
    handle: object

    @property
    def name(self) -> str:
        """Without folders."""
        return self.path.rsplit("/", 1)[-1]


@dataclass
class Submission:
    """What a folder or archive holds: its files, and findings on those that cannot be taken."""

    path: Path
    kind: str
    """"folder", "zip" or "tar"."""
    members: list[Member] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    archive: zipfile.ZipFile | tarfile.TarFile | None = None
    listed: bool = True
    """False where it could not be listed to the end, or is empty: what is missing cannot be told."""

    def __enter__(self) -> Submission:
        return self

    def __exit__(self, *_: object) -> None:
        if self.archive is not None:
            self.archive.close()
            if self.kind == "tar":
                self.archive.fileobj.close()

    def fetch(self, member: Member, folder: Path, number: int) -> Path | Finding:
        """The file on disk: itself for a folder, else a copy under a name of our own in `folder`, which the caller
        deletes. A finding where the archive is damaged there."""
        if self.archive is None:
            return member.handle
        copy = folder / f"{number}{'.nii' if member.name.endswith('.nii') else '.nii.gz'}"
        try:
            opened = (self.archive.open(member.handle) if self.kind == "zip"
                      else self.archive.extractfile(member.handle))
            with opened as source, open(copy, "wb") as target:
                shutil.copyfileobj(source, target, MAX_READ)
        except DAMAGED as problem:
            copy.unlink(missing_ok=True)
            return error("unreadable", f"the archive is damaged there ({printable(str(problem)[:200])})",
                         "a file that can be unpacked", REPACK, file=printable(member.path))
        return copy


def open_submission(path: str | Path, portal: Portal) -> Submission:
    """Lists the files of a folder, zip or tar, as that portal would; reads none of them.

    Raises NnmissError when nothing or a single image is there. An archive that is none, links, passwords, paths that lead
    outside and files beyond `MAX_FILE_BYTES` become findings.
    """
    path = Path(path)
    if path.is_dir():
        return _listed(path, "folder", None, _of_folder(path), portal)
    if not path.is_file():
        raise NnmissError(f"submission {path} does not exist: give a folder of segmentations, a zip or a tar")
    if stem(path.name):
        raise NnmissError(f"submission {path} is one segmentation: give its folder {path.absolute().parent}")
    try:
        if zipfile.is_zipfile(path):
            archive: zipfile.ZipFile | tarfile.TarFile = zipfile.ZipFile(path)
            return _listed(path, "zip", archive, _of_zip(archive), portal)
        archive = open_tar(path)
        return _listed(path, "tar", archive, _of_tar(archive), portal)
    except DAMAGED as problem:
        finding = error("archive", f"no zip or tar that can be read ({printable(str(problem)[:200])})",
                        "a zip, tar or tar.gz of .nii.gz files, or a folder of them", REPACK)
        return Submission(path, "file", [], [finding], listed=False)


def printable(text: str) -> str:
    """`text` without control characters, which a hostile name could send to the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


Listed = Iterator[tuple[str, object, str | None]]  # name, handle, what is wrong with it (None: nothing)


def _of_folder(folder: Path) -> Listed:
    for root, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            file = Path(root) / name
            problem = None if file.is_file() else "a dangling link" if file.is_symlink() else "not a plain file"
            yield file.relative_to(folder).as_posix(), file, problem
        for name in [f for f in folders if (Path(root) / f).is_symlink()]:
            yield (Path(root) / name).relative_to(folder).as_posix(), None, "a link to a folder, which is not followed"


def _of_zip(archive: zipfile.ZipFile) -> Listed:
    for info in archive.infolist():
        if info.is_dir():
            continue
        problem = None
        if stat.S_ISLNK(info.external_attr >> 16):
            problem = "a link, not a file"
        elif info.flag_bits & 1:
            problem = "encrypted with a password"
        elif info.file_size > MAX_FILE_BYTES:
            problem = f"{info.file_size / 2**30:.1f} GiB unpacked"
        yield info.filename, info, problem


def _of_tar(archive: tarfile.TarFile) -> Listed:
    for info in archive:  # one header at a time: behind a huge file nothing is read
        if info.isdir():
            continue
        problem = None if info.isfile() else "a link, not a file" if info.issym() or info.islnk() else "not a plain file"
        if problem is None and info.size > MAX_FILE_BYTES:
            yield info.name, info, f"{info.size / 2**30:.1f} GiB unpacked; what follows it was not read"
            return
        info.pax_headers.clear()  # used already; tarfile would keep those of all files
        yield info.name.removeprefix("./"), info, problem


def _listed(path: Path, kind: str, archive: zipfile.ZipFile | tarfile.TarFile | None, entries: Listed,
            portal: Portal) -> Submission:
    submission = Submission(path, kind, archive=archive)
    try:
        for count, (name, handle, problem) in enumerate(entries, start=1):
            if count > MAX_FILES:
                submission.findings.append(error("archive", f"more than {MAX_FILES} files", "one file per case", REPACK))
                break
            _sort_in(submission, name, handle, problem, portal)
    except DAMAGED as failure:
        submission.listed = False
        submission.findings.append(error("archive", f"damaged: {printable(str(failure)[:200])}; what follows could not "
                                         "be listed", "an archive that can be unpacked", REPACK))
    if not submission.members:
        submission.listed = False
        submission.findings.append(error("archive", "no file to score", "at least one .nii.gz file", REPACK))
    return submission


def _sort_in(submission: Submission, name: str, handle: object, problem: str | None, portal: Portal) -> None:
    """Adds a file to the members, or says why it cannot be taken."""
    shown, plain = printable(name), name.replace("\\", "/")
    parts = plain.split("/")
    if ".." in parts or plain.startswith("/") or (len(plain) > 1 and plain[1] == ":") or "\\" in name:
        submission.findings.append(error("archive", "a path that leads outside, or with a backslash or drive",
                                         "a file name without folders", REPACK, file=shown))
    elif parts[-1].startswith(HIDDEN) or any(part in name for part in portal.passed_over):
        submission.findings.append(warning("archive", "a hidden file", "segmentations only",
                                           "nothing has to be done: the portal passes over it", file=shown))
    elif problem:
        submission.findings.append(error("archive", problem, "plain files of segmentations", REPACK, file=shown))
    else:
        submission.members.append(Member(name, handle))
