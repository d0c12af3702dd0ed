"""nnmiss_validate_brats: archives and images can be damaged or hostile; nothing is written, and memory stays bounded."""
from __future__ import annotations

import gzip
import io
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from submission_files import QFORM, broken, case_of, packed, small, submission

from nnmiss.errors import NnmissError
from nnmiss.export.validation import validate_submission
from nnmiss.export.validation_text import report_text


def test_hidden_files_and_folders(tmp_path):
    challenge = small(2023)
    submission(tmp_path, challenge)
    for hidden in ("__MACOSX/._a.nii.gz", ".DS_Store", "._b", ".idea/x.xml"):
        path = tmp_path / "sub" / hidden
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
    report = validate_submission(packed(tmp_path / "sub", "zip"), challenge, tmp_path / "images")
    assert {f.rule for f in report.findings} == {"archive"} and not report.errors and len(report.warnings) == 4
    (tmp_path / "sub" / ".hidden").write_text("x")  # not among those that the portal passes over
    report = validate_submission(packed(tmp_path / "sub", "tar"), challenge, tmp_path / "images")
    assert [(f.rule, f.file) for f in report.errors] == [("name", ".hidden")]


def hostile(kind, path, good, challenge):
    """An archive with one good file and one that must not be taken."""
    case = case_of(challenge, 1)
    name = {"parent": f"../{case}.nii.gz", "absolute": f"/tmp/nnmiss_{case}.nii.gz", "backslash": f"..\\{case}.nii.gz",
            "drive": f"C:/{case}.nii.gz"}.get(kind, f"{case}.nii.gz")
    if path.name.endswith("zip"):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(f"{case_of(challenge, 2)}.nii.gz", good)
            info = zipfile.ZipInfo(name)
            if kind == "link":
                info.external_attr = 0o120777 << 16
            archive.writestr(info, b"/etc/passwd" if kind == "link" else good)
        content = path.read_bytes()
        if kind == "encrypted":  # the flag, in the local header and in the directory
            where = content.rindex(b"PK\x01\x02")
            local = content.rindex(b"PK\x03\x04")
            content = bytearray(content)
            content[where + 8] |= 1
            content[local + 6] |= 1
        elif kind == "huge":  # the size that the directory states
            where = content.rindex(b"PK\x01\x02")
            content = content[:where + 24] + (2**31).to_bytes(4, "little") + content[where + 28:]
        path.write_bytes(content)
        return
    with tarfile.open(path, "w") as archive:
        for member, content in ((f"{case_of(challenge, 2)}.nii.gz", good), (name, good)):
            info = tarfile.TarInfo(member)
            info.size = len(content)
            if member == name and kind in ("link", "device"):
                info.type, info.linkname, info.size = (tarfile.SYMTYPE if kind == "link" else tarfile.FIFOTYPE,
                                                       "/etc/passwd", 0)
            elif member == name and kind == "huge":
                info.size = 2**40
            archive.addfile(info, io.BytesIO(content) if info.size == len(content) else None)


@pytest.mark.parametrize(("kind", "ending"), [(k, e) for e in ("zip", "tar") for k in (
    "parent", "absolute", "backslash", "drive", "link", "huge", "encrypted", "device")
    if (e, k) not in (("zip", "device"), ("tar", "encrypted"))])
def test_hostile_archives_write_nothing(tmp_path, monkeypatch, kind, ending):
    challenge = small(2021)
    submission(tmp_path, challenge, 2)
    work = tmp_path / "deep" / "work"
    work.mkdir(parents=True)
    monkeypatch.chdir(work)
    monkeypatch.setattr("tempfile.tempdir", str(work))
    good = (tmp_path / "sub" / f"{case_of(challenge, 2)}.nii.gz").read_bytes()
    path = tmp_path / f"evil.{ending}"
    hostile(kind, path, good, challenge)
    before = sorted(tmp_path.rglob("*"))
    report = validate_submission(path, challenge, tmp_path / "images")
    assert ("archive", "error", None) in broken(report)
    assert broken(report) - {("archive", "error", None)} == {("missing-case", "error", case_of(challenge, 1))}
    assert sorted(tmp_path.rglob("*")) == before


def test_a_file_that_unpacks_beyond_its_header_is_not_read_on(tmp_path, monkeypatch):
    monkeypatch.setattr("nnmiss.export.submission_voxels.MAX_FILE_BYTES", 10_000)
    challenge = small(2021)
    cases = submission(tmp_path, challenge)
    image = nib.Nifti1Image(np.zeros((200, 200, 200), np.uint8), QFORM)
    nib.save(image, tmp_path / "sub" / f"{cases[0]}.nii.gz")
    report = validate_submission(tmp_path / "sub", replace(challenge, shape=None, geometry="none"))
    (finding,) = report.errors
    assert finding.rule == "unreadable" and "its header promises" in finding.came


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut short", gzip.compress(b"x" * 2000, mtime=0)])
def test_what_is_no_archive(tmp_path, content, capsys):
    path = tmp_path / "a.zip"
    path.write_bytes(content)
    ids = ["BraTS2021_00001"]  # which of them it lacks cannot be told
    assert {f.rule for f in validate_submission(path, small(2021), ids=ids, progress=True).errors} == {"archive"}
    assert "0file" not in capsys.readouterr().err


def test_a_single_image_is_no_submission(tmp_path):
    cases = submission(tmp_path, small(2021))
    with pytest.raises(NnmissError, match=f"is one segmentation: give its folder {tmp_path / 'sub'}"):
        validate_submission(tmp_path / "sub" / f"{cases[0]}.nii.gz", small(2021))


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_archives_cut_short(tmp_path, kind):
    challenge = small(2021)
    submission(tmp_path, challenge)
    path = packed(tmp_path / "sub", kind)
    content = path.read_bytes()
    for part in (0.1, 0.2) if kind == "tar" else (0.3, 0.7, 0.95):  # most of a small tar is padding
        path.write_bytes(content[:int(len(content) * part)])
        report = validate_submission(path, challenge, tmp_path / "images")
        assert report.errors


def test_names_cannot_control_the_terminal(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("\x1b[2J\x1b]0;owned\x07BraTS2021_00001.nii.gz", b"x")
    text = report_text(validate_submission(path, small(2021)))
    assert "\x1b" not in text and "\\x1b[2J" in text


BLOCK = gzip.compress(bytes(2**20))  # gzip files may be put behind each other


def hostile_memory(kind, folder):
    """A few hundred kB that promise, and unpack to, 300 MiB at one place. Returns what to validate."""
    tar, image = folder / "a.tar.gz", folder / "BraTS2021_00001.nii.gz"
    if kind in ("pax header", "long name"):
        info = tarfile.TarInfo("x")
        info.type, info.size = tarfile.XHDTYPE if kind == "pax header" else tarfile.GNUTYPE_LONGNAME, 300 * 2**20
        tar.write_bytes(gzip.compress(info.tobuf(tarfile.USTAR_FORMAT)) + 300 * BLOCK + gzip.compress(bytes(1024)))
        return tar
    header, extension = nib.Nifti1Header(), b"\0\0\0\0"
    header.set_data_shape((2, 2, 2) if kind == "extension" else (600, 600, 800))
    header.set_data_dtype(np.uint8)
    header["magic"], header["vox_offset"] = b"n+1", 352
    if kind == "scaled voxels of another shape":
        header.set_slope_inter(0.5, 0)
    elif kind == "extension":
        header["vox_offset"] = 352 + 300 * 2**20
        extension = b"\1\0\0\0" + np.array([300 * 2**20, 6], "<i4").tobytes()
    image.write_bytes(gzip.compress(header.binaryblock + extension) + 300 * BLOCK)
    return folder


@pytest.mark.parametrize(("kind", "year", "rule", "what"), [
    ("pax header", 2021, "archive", "a header of 314572800 bytes"),
    ("long name", 2021, "archive", "a header of 314572800 bytes"),
    ("extension", 2021, "unreadable", "its voxels begin at byte 314573152"),
    ("scaled voxels of another shape", 2021, "shape", "600x600x800 voxels"),
    ("too many voxels", 2025, "unreadable", "its header promises 288000000 voxels"),
])
def test_memory_stays_bounded_whatever_a_file_promises(tmp_path, kind, year, rule, what):
    script = """if True:
        import resource, sys
        from nnmiss.brats_years import find_challenge
        from nnmiss.export.validation import validate_submission
        peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        before = peak()
        for finding in validate_submission(sys.argv[1], find_challenge(int(sys.argv[2]))).findings:
            print(finding.rule, finding.came)
        print(peak() - before)
        """
    done = subprocess.run([sys.executable, "-c", script, str(hostile_memory(kind, tmp_path)), str(year)],
                          capture_output=True, text=True, check=True)
    *findings, mebibytes = done.stdout.splitlines()
    assert any(line.startswith(rule) and what in line for line in findings), findings
    assert int(mebibytes) < 100


def test_voxels_may_begin_behind_the_header_only(tmp_path):
    """nibabel takes 0 and reads extensions to the end of the file then."""
    challenge = small(2021)
    cases = submission(tmp_path, challenge)
    path = tmp_path / "sub" / f"{cases[0]}.nii.gz"
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[108:112] = np.float32(100).tobytes()
    path.write_bytes(gzip.compress(content))
    assert broken(validate_submission(tmp_path / "sub", challenge)) == {("unreadable", "error", cases[0])}


@pytest.mark.parametrize("ending", ["tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_tars_of_every_compression_are_read(tmp_path, ending):
    challenge = small(2021)
    cases = submission(tmp_path, challenge)
    with tarfile.open(tmp_path / "a", f"w:{ending[4:]}", format=tarfile.PAX_FORMAT) as archive:
        for case in cases:
            archive.add(tmp_path / "sub" / f"{case}.nii.gz", f"{'long' * 60}/{case}.nii.gz")  # in a pax header
    report = validate_submission(tmp_path / "a", challenge, tmp_path / "images")
    assert report.cases == cases and broken(report) == {("archive", "warning", None)}
