"""nnmiss_validate_brats: correct submissions of every year pass, each rule that a file can break is caught."""
from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from submission_files import KINDS, QFORM, SHAPE, break_content, broken, labels_of, packed, save, small, submission

from nnmiss.brats_years import CHALLENGES, find_challenge
from nnmiss.cli import validate_brats as command
from nnmiss.export.rules import RULES
from nnmiss.export.validation import validate_submission
from nnmiss.export.validation_text import report_text


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


def test_full_size_of_treated_gliomas_needs_no_images(tmp_path):
    labels = np.zeros((182, 218, 182), np.uint8)
    labels[50:60, 50:60, 50:60] = 4
    save(labels, tmp_path / "BraTS-GLI-02064-100.nii.gz")
    assert validate_submission(tmp_path, find_challenge(2024)).findings == []


@pytest.mark.parametrize(("year", "name"), [(2019, "GLI"), (2020, "GLI"), (2025, "PED"), (2026, "MET")])
@pytest.mark.parametrize("kind", ["fourth axis", "gzip called .nii", ".NII"])
def test_images_of_odd_form_are_compared_all_the_same(tmp_path, year, name, kind):
    challenge = small(year, name)
    cases = submission(tmp_path, challenge)
    path = tmp_path / "images" / cases[0] / f"{cases[0]}_flair.nii.gz"
    if kind == "fourth axis":
        save(np.ones((*SHAPE, 1), np.int16), path)
    else:
        content = path.read_bytes()
        path.unlink()
        path = path.with_name(f"{cases[0]}_flair{'.nii' if 'gzip' in kind else '.NII'}")
        path.write_bytes(content if "gzip" in kind else gzip.decompress(content))
    assert validate_submission(tmp_path / "sub", challenge, tmp_path / "images").findings == []
    save(labels_of(challenge), tmp_path / "sub" / f"{cases[0]}.nii.gz", FAR)
    (finding,) = validate_submission(tmp_path / "sub", challenge, tmp_path / "images").findings
    assert (finding.rule, finding.case) == ("geometry", cases[0]) and "-0," not in finding.came
    save(labels_of(challenge)[:-1], tmp_path / "sub" / f"{cases[0]}.nii.gz")
    (finding,) = validate_submission(tmp_path / "sub", challenge, tmp_path / "images").findings
    assert finding.rule == "shape" and "7x6x5, as the case's image" in finding.expected


SHIFTED = QFORM + np.array([[0, 0, 0, 1e-4], [0] * 4, [0] * 4, [0] * 4])
FAR = QFORM + np.array([[0, 0, 0, 3.0], [0] * 4, [0] * 4, [0] * 4])


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
                           (["--ids", tmp_path / "none.txt"], "not a readable text file")):
        assert run(monkeypatch, "-i", tmp_path / "sub", *common, *wrong) == 1
        captured = capsys.readouterr()
        assert message in captured.err and "Traceback" not in captured.err


def test_every_rule_is_documented():
    page = (Path(__file__).parents[1] / "documentation" / "reference" / "brats_validation.md").read_text()
    assert all(f"`{rule}`" in page for rule in RULES)
