"""nnmiss_validate_brats: correct submissions of every year pass, each rule broken once is caught, archives cannot harm."""
from __future__ import annotations

import gzip
import io
import json
import sys
import tarfile
import zipfile
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from nnmiss.brats_years import CHALLENGES, find_challenge
from nnmiss.cli import validate_brats as command
from nnmiss.errors import NnmissError
from nnmiss.export.rules import RULES
from nnmiss.export.submission_names import read_ids
from nnmiss.export.validation import validate_submission
from nnmiss.export.validation_text import report_text

SHAPE = (7, 6, 5)
QFORM = np.array([[-1.0, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1]])  # every BraTS image until 2023
FORMS = ("Brats18_CBICA_AA{}_1", "BraTS19_CBICA_AA{}_1", "BraTS20_Validation_00{}", "BraTS2021_0000{}",
         "BraTS-MEN-RT-000{}-1", "BraTS-NAME-0000{}-000", "BraTS-NAME-0000{}")
KINDS = ("folder", "zip", "tar", "tar.gz")


def small(year, name="GLI"):
    """A challenge with small images; the shape is compared all the same."""
    challenge = find_challenge(year, name)
    return replace(challenge, shape=SHAPE if challenge.shape else None)


def case_of(challenge, k):
    return next(case for form in FORMS if challenge.is_id(case := form.format(k).replace("NAME", challenge.name)))


def labels_of(challenge):
    """A segmentation with every label of the challenge."""
    labels = np.zeros(SHAPE, np.uint8)
    for k, value in enumerate(challenge.labels.values()):
        labels[1 + k, 2:4] = value
    return labels


def save(array, path, affine=QFORM, header=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(array, affine, header)
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    nib.save(image, path)


def submission(folder, challenge, number=3):
    """Correct segmentations in folder/sub, images in folder/images; returns the cases."""
    cases = [case_of(challenge, k) for k in range(1, number + 1)]
    for case in cases:
        save(labels_of(challenge), folder / "sub" / f"{case}.nii.gz")
        save(np.ones(SHAPE, np.int16), folder / "images" / case / f"{case}_flair.nii.gz")
    return cases


def packed(folder, kind):
    """folder as it is, or packed beside it."""
    if kind == "folder":
        return folder
    target = folder.with_name(f"{folder.name}.{kind}")
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    if kind == "zip":
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in files:
                archive.write(file, file.relative_to(folder).as_posix())
    else:
        with tarfile.open(target, "w:gz" if kind == "tar.gz" else "w") as archive:
            for file in files:
                archive.add(file, file.relative_to(folder).as_posix())
    return target


def broken(report):
    """{(rule, severity, case)} of a report."""
    return {(f.rule, f.severity, f.case) for f in report.findings}


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["nnmiss_validate_brats", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        command.main()
    return stop.value.code


@pytest.mark.parametrize(("year", "name"), sorted(CHALLENGES))
def test_correct_submissions_of_every_challenge_pass(tmp_path, year, name):
    challenge = small(year, name)
    cases = submission(tmp_path, challenge)
    for kind in KINDS:
        report = validate_submission(packed(tmp_path / "sub", kind), challenge, tmp_path / "images")
        assert report.findings == [] and report.cases == cases, (kind, report.findings)
        assert "0 errors and 0 warnings in 3 cases: would pass" in report_text(report)


def test_full_size_needs_no_images(tmp_path):
    challenge = find_challenge(2023)
    labels = np.zeros(challenge.shape, np.uint8)
    labels[50:60, 50:60, 50:60] = 3
    save(labels, tmp_path / "BraTS-GLI-00001-000.nii.gz")
    report = validate_submission(tmp_path, challenge)
    assert report.findings == []
    assert report.notes[0].startswith("found 1 of 219 cases")
    save(labels[1:], tmp_path / "BraTS-GLI-00001-000.nii.gz")
    (finding,) = validate_submission(tmp_path, challenge).findings
    assert finding.rule == "shape" and finding.came == "239x240x155 voxels" and "240x240x155" in finding.expected


SHIFTED = QFORM + np.array([[0, 0, 0, 1e-4], [0] * 4, [0] * 4, [0] * 4])
FAR = QFORM + np.array([[0, 0, 0, 3.0], [0] * 4, [0] * 4, [0] * 4])


def break_content(rule, path, challenge):
    """Makes the file at `path` break one rule."""
    labels = labels_of(challenge)
    if rule == "unreadable: cut short":
        path.write_bytes(path.read_bytes()[:-20])
    elif rule == "unreadable: no gzip":
        path.write_bytes(gzip.decompress(path.read_bytes()))
    elif rule == "unreadable: bit flip":
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(content)
    elif rule == "unreadable: voxels missing":
        path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-10]))
    elif rule == "unreadable: empty file":
        path.write_bytes(b"")
    elif rule == "dimensions: 4D":
        save(np.stack([labels, labels], -1), path)
    elif rule == "dimensions: trailing axis":
        save(labels[..., None], path)
    elif rule == "shape: cropped":
        save(labels[:-1], path)
    elif rule == "type: probabilities":
        save(labels * np.float32(0.3), path)
    elif rule == "type: NaN":
        save(np.where(labels == 0, np.nan, labels).astype(np.float32), path)
    elif rule == "type: complex":
        save(labels.astype(np.complex64), path)
    elif rule == "labels: foreign":
        labels[0, 0, 0] = 7
        save(labels, path)
    elif rule == "labels: negative":
        save(-labels.astype(np.int16), path)
    else:
        raise AssertionError(rule)


@pytest.mark.parametrize("kind", ["folder", "zip", "tar.gz"])
@pytest.mark.parametrize("rule", ["unreadable: cut short", "unreadable: no gzip", "unreadable: bit flip",
                                  "unreadable: voxels missing", "unreadable: empty file", "dimensions: 4D",
                                  "dimensions: trailing axis", "shape: cropped", "type: probabilities", "type: NaN",
                                  "type: complex", "labels: foreign", "labels: negative"])
@pytest.mark.parametrize(("year", "name"), [(2020, "GLI"), (2021, "GLI"), (2023, "GLI"), (2024, "PED"), (2024, "MEN-RT"),
                                            (2026, "MET")])
def test_one_bad_file_is_named_and_the_others_pass(tmp_path, year, name, rule, kind):
    challenge = small(year, name)
    cases = submission(tmp_path, challenge)
    break_content(rule, tmp_path / "sub" / f"{cases[1]}.nii.gz", challenge)
    report = validate_submission(packed(tmp_path / "sub", kind), challenge, tmp_path / "images")
    assert broken(report) == {(rule.split(":")[0], "error", cases[1])}
    assert cases[1] in report_text(report)


@pytest.mark.parametrize(("year", "wrong", "meant"), [(2018, 3, 4), (2020, 3, 4), (2021, 3, 4), (2023, 4, 3)])
def test_the_label_of_another_year_says_which_is_meant(tmp_path, year, wrong, meant):
    challenge = small(year)
    cases = submission(tmp_path, challenge)
    labels = labels_of(challenge)
    labels[labels == meant] = wrong
    save(labels, tmp_path / "sub" / f"{cases[0]}.nii.gz")
    (finding,) = validate_submission(tmp_path / "sub", challenge, tmp_path / "images").findings
    assert finding.rule == "labels" and finding.came == f"holds {wrong} (10 voxels)"
    assert f"write label {meant} for the enhancing tumour" in finding.todo


@pytest.mark.parametrize(("year", "name", "affine", "severity"), [
    (2020, "GLI", SHIFTED, "error"), (2021, "GLI", SHIFTED, "error"), (2023, "MEN", SHIFTED, "error"),
    (2026, "PED", SHIFTED, "error"), (2019, "GLI", SHIFTED, None), (2024, "GLI", SHIFTED, None),
    (2019, "GLI", FAR, "warning"), (2024, "SSA", FAR, "warning"), (2025, "PED", FAR, "warning"),
    (2020, "GLI", np.eye(4), "error"), (2024, "MET", np.eye(4), "warning")])
def test_geometry_is_as_strict_as_the_years_portal(tmp_path, year, name, affine, severity):
    challenge = small(year, name)
    cases = submission(tmp_path, challenge)
    save(labels_of(challenge), tmp_path / "sub" / f"{cases[2]}.nii.gz", affine)
    for kind in ("folder", "zip"):
        report = validate_submission(packed(tmp_path / "sub", kind), challenge, tmp_path / "images")
        assert broken(report) == ({("geometry", severity, cases[2])} if severity else set())


def test_2026_allows_what_panoptica_does(tmp_path):
    challenge = small(2026, "MET")
    cases = submission(tmp_path, challenge)
    near = QFORM.copy()
    near[1, 3] += 5e-6
    save(labels_of(challenge), tmp_path / "sub" / f"{cases[0]}.nii.gz", near)
    assert validate_submission(tmp_path / "sub", challenge, tmp_path / "images").findings == []


@pytest.mark.parametrize(("year", "rule", "severity"), [(2020, "name", "error"), (2018, "name", "error"),
                                                        (2021, "name", "error"), (2023, "name", "error")])
def test_names(tmp_path, year, rule, severity):
    challenge = small(year)
    cases = submission(tmp_path, challenge)
    (tmp_path / "sub" / f"{cases[0]}.nii.gz").rename(tmp_path / "sub" / "patient one.nii.gz")
    report = validate_submission(tmp_path / "sub", challenge, tmp_path / "images")
    assert broken(report) == {(rule, severity, "patient one"), ("missing-case", "error", cases[0])}


def test_names_that_the_portal_reads_though_not_official_are_warnings(tmp_path):
    challenge = small(2021)
    cases = submission(tmp_path, challenge)
    (tmp_path / "sub" / f"{cases[0]}.nii.gz").rename(tmp_path / "sub" / "tumor_00001.nii.gz")
    report = validate_submission(tmp_path / "sub", challenge, tmp_path / "images")
    assert broken(report) == {("name", "warning", "tumor_00001")} and report.cases == cases


def test_names_of_another_year_say_which(tmp_path):
    submission(tmp_path, small(2021))
    report = validate_submission(tmp_path / "sub", small(2023))
    assert {f.rule for f in report.errors} == {"name", "labels"}
    assert "it is one of BraTS 2021 GLI" in report_text(report)


@pytest.mark.parametrize(("year", "severity"), [(2020, "warning"), (2021, "error"), (2024, "error")])
def test_other_files(tmp_path, year, severity):
    challenge = small(year)
    cases = submission(tmp_path, challenge)
    (tmp_path / "sub" / f"{cases[0]}.json").write_text("{}")
    save(labels_of(challenge), tmp_path / "sub" / f"{cases[1]}.nii")
    (tmp_path / "sub" / f"{cases[1]}.nii.gz").unlink()
    report = validate_submission(packed(tmp_path / "sub", "zip"), challenge, tmp_path / "images")
    assert broken(report) == {("name", severity, None), ("name", "error", cases[1]), ("missing-case", "error", cases[1])}


@pytest.mark.parametrize("year", [2020, 2021, 2023, 2025])
def test_unknown_missing_and_doubled_cases(tmp_path, year):
    challenge = small(year)
    cases = submission(tmp_path, challenge, 4)
    ids = [*cases[:2], case_of(challenge, 9)]
    report = validate_submission(tmp_path / "sub", challenge, ids=ids)
    assert broken(report) == {("unknown-id", "error", cases[2]), ("unknown-id", "error", cases[3]),
                              ("missing-case", "error", ids[2])}
    folder = tmp_path / "sub" / "again"
    save(labels_of(challenge), folder / f"{cases[0]}.nii.gz")
    report = validate_submission(packed(tmp_path / "sub", "zip"), challenge, ids=cases)
    assert broken(report) == {("duplicate", "error", cases[0]),
                              ("archive", "error" if year == 2020 else "warning", None)}


def test_the_same_digits_are_the_same_case(tmp_path):
    challenge = small(2023)
    cases = submission(tmp_path, challenge)
    save(labels_of(challenge), tmp_path / "sub" / "zz-00001-000.nii.gz")
    report = validate_submission(tmp_path / "sub", challenge, tmp_path / "images")
    assert broken(report) == {("duplicate", "error", cases[0]), ("name", "warning", "zz-00001-000")}


def test_a_zip_that_holds_a_name_twice(tmp_path):
    challenge = small(2021)
    cases = submission(tmp_path, challenge)
    path = packed(tmp_path / "sub", "zip")
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning):
        archive.write(tmp_path / "sub" / f"{cases[0]}.nii.gz", f"{cases[0]}.nii.gz")
    assert broken(validate_submission(path, challenge, tmp_path / "images")) == {("duplicate", "error", cases[0])}


def test_type_and_empty_warnings(tmp_path):
    challenge = small(2021)
    cases = submission(tmp_path, challenge)
    save(labels_of(challenge).astype(np.float32), tmp_path / "sub" / f"{cases[0]}.nii.gz")
    save(np.zeros(SHAPE, np.uint8), tmp_path / "sub" / f"{cases[1]}.nii.gz")
    save(labels_of(challenge).astype(">i2"), tmp_path / "sub" / f"{cases[2]}.nii.gz")  # big-endian is no fault
    report = validate_submission(tmp_path / "sub", challenge, tmp_path / "images")
    assert broken(report) == {("type", "warning", cases[0]), ("empty", "warning", cases[1])}
    assert report_text(report).splitlines()[-1] == "0 errors and 2 warnings in 3 cases: would pass"


def test_uncertainty_maps(tmp_path):
    challenge = small(2020)
    cases = submission(tmp_path, challenge)
    for case in cases:
        for which in ("whole", "core", "enhance"):
            save(np.full(SHAPE, 40, np.uint8), tmp_path / "sub" / f"{case}_unc_{which}.nii.gz")
    assert validate_submission(tmp_path / "sub", challenge, tmp_path / "images").findings == []
    save(np.full(SHAPE, 0.4, np.float32), tmp_path / "sub" / f"{cases[0]}_unc_core.nii.gz")
    save(np.full(SHAPE, 101, np.uint8), tmp_path / "sub" / f"{cases[1]}_unc_core.nii.gz")
    (tmp_path / "sub" / f"{cases[2]}_unc_core.nii.gz").unlink()
    report = validate_submission(tmp_path / "sub", challenge, tmp_path / "images")
    assert broken(report) == {("uncertainty", "warning", cases[0]), ("uncertainty", "error", cases[1]),
                              ("uncertainty", "error", cases[2])}
    report = validate_submission(tmp_path / "sub", small(2018))
    assert sum("uncertainty map" in f.came for f in report.errors) == 8  # 2018 had none


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


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut short", gzip.compress(b"x" * 2000)])
def test_what_is_no_archive(tmp_path, content):
    path = tmp_path / "a.zip"
    path.write_bytes(content)
    assert {f.rule for f in validate_submission(path, small(2021)).errors} == {"archive"}


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


def test_threads_find_the_same(tmp_path):
    challenge = small(2021)
    cases = submission(tmp_path, challenge, 9)
    for k, rule in enumerate(("type: NaN", "labels: foreign", "unreadable: cut short")):
        break_content(rule, tmp_path / "sub" / f"{cases[2 * k]}.nii.gz", challenge)
    for kind in ("folder", "zip"):
        path = packed(tmp_path / "sub", kind)
        one, four = (validate_submission(path, challenge, tmp_path / "images", num_threads=n) for n in (1, 4))
        assert one.findings == four.findings and len(one.errors) == 3


def test_command(tmp_path, monkeypatch, capsys):
    challenge = find_challenge(2021)  # with images, their shape is what counts in 2021
    cases = submission(tmp_path, challenge)
    packed(tmp_path / "sub", "zip")
    common = ["--year", 2021, "-r", tmp_path / "images", "--json", tmp_path / "out.json"]
    assert run(monkeypatch, "-i", tmp_path / "sub", tmp_path / "sub.zip", *common, "-np", 2) == 0
    assert capsys.readouterr().out.count("0 errors and 0 warnings in 3 cases: would pass") == 4
    (tmp_path / "ids.txt").write_text(f"{cases[0]}\n{cases[1]}.nii.gz  # with ending\n\n")
    assert run(monkeypatch, "-i", tmp_path / "sub", *common, "--ids", tmp_path / "ids.txt") == 1
    out = capsys.readouterr().out
    assert "error: unknown-id (only cases of the official set)" in out and "expected: ids as BraTS2021_00001" in out
    (report,) = json.loads((tmp_path / "out.json").read_text())["submissions"]
    assert report["num_errors"] == 1 and report["findings"][0]["case"] == cases[2] and report["cases"] == cases
    for wrong, message in ((["-i", tmp_path / "nowhere"], "does not exist"), (["-np", "0"], "at least 1"),
                           (["--year", "2022"], "give year 2021"), (["--challenge", "XYZ"], "no BraTS challenge"),
                           (["--ids", tmp_path / "none.txt"], "cannot be read")):
        assert run(monkeypatch, "-i", tmp_path / "sub", *common, *wrong) == 1
        captured = capsys.readouterr()
        assert message in captured.err and "Traceback" not in captured.err


def test_several_submissions_in_one_folder_are_told_apart(tmp_path):
    challenge = small(2021)
    cases = submission(tmp_path, challenge)
    both = tmp_path / "both"
    for subset in ("flair", "flair+t1"):
        for case in cases:
            save(labels_of(challenge), both / subset / f"{case}.nii.gz")
    with pytest.raises(NnmissError, match=r"2 folders and archives of segmentations, not one submission"):
        validate_submission(both, challenge)
    packed(both / "flair", "zip")
    with pytest.raises(NnmissError, match=r"3 folders and archives"):
        validate_submission(both, challenge)
    for case in cases:  # one folder per case is one submission, though not flat
        save(labels_of(challenge), tmp_path / "each" / case / f"{case}.nii.gz")
    report = validate_submission(tmp_path / "each", challenge, tmp_path / "images")
    assert broken(report) == {("archive", "warning", None)} and report.cases == cases


def test_read_ids(tmp_path):
    path = tmp_path / "ids"
    path.write_text('["a", "b.nii.gz", "a"]')
    assert read_ids(path) == ["a", "b"]
    path.write_text('{"cases": ["a", "b"]}')
    assert read_ids(path) == ["a", "b"]
    for content, message in (("{}", "must be a JSON list"), ("[1]", "must be a JSON list"), ("[", "not valid JSON"),
                             ("\n#x\n", "is empty")):
        path.write_text(content)
        with pytest.raises(NnmissError, match=message):
            read_ids(path)


def test_every_rule_is_documented():
    from pathlib import Path

    page = (Path(__file__).parents[1] / "documentation" / "reference" / "brats_validation.md").read_text()
    assert all(f"`{rule}`" in page for rule in RULES)
