"""nnmiss_validate_brats: which case each file of a submission is, by its name; what is missing, unknown or there twice."""
from __future__ import annotations

import zipfile

import pytest
from submission_files import broken, case_of, labels_of, packed, save, small, submission

from nnmiss.errors import NnmissError
from nnmiss.export.validation import validate_submission
from nnmiss.export.validation_text import report_text


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
    assert "it is one of BraTS 2021 GLI (--year 2021)" in report_text(report)
    with pytest.raises(NnmissError, match=r"known ids, as BraTS2021_00001, are of BraTS 2021 GLI .*, not of BraTS 2023"):
        validate_submission(tmp_path / "sub", small(2023), tmp_path / "images")


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
    (twice,) = (f for f in report.findings if f.rule == "duplicate")
    assert {f"{cases[0]}.nii.gz", f"again/{cases[0]}.nii.gz"} <= set(twice.came.split())


def test_training_cases_of_a_download_are_not_demanded(tmp_path):
    challenge = small(2021)
    cases = submission(tmp_path, challenge)
    save(labels_of(challenge), tmp_path / "images" / cases[0] / f"{cases[0]}_seg.nii.gz")
    (tmp_path / "sub" / f"{cases[0]}.nii.gz").unlink()
    assert validate_submission(tmp_path / "sub", challenge, tmp_path / "images").findings == []
    report = validate_submission(tmp_path / "sub", challenge, tmp_path / "images", ids=cases)
    assert broken(report) == {("missing-case", "error", cases[0])}
    for case in cases[1:]:
        save(labels_of(challenge), tmp_path / "images" / case / f"{case}_seg.nii.gz")
    report = validate_submission(tmp_path / "sub", challenge, tmp_path / "images")
    assert report.findings == [] and "missing cases were not checked" in report.notes[-1]


def test_the_same_digits_are_the_same_case(tmp_path):
    challenge = small(2023)
    cases = submission(tmp_path, challenge)
    save(labels_of(challenge), tmp_path / "sub" / "zz-00001-000.nii.gz")
    report = validate_submission(tmp_path / "sub", challenge, tmp_path / "images")
    assert broken(report) == {("duplicate", "error", cases[0]), ("name", "warning", "zz-00001-000")}


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


def test_two_known_cases_with_the_same_digits_are_refused(tmp_path):
    """The portal cannot tell them apart; one would hide the other."""
    challenge = small(2025)
    cases = submission(tmp_path, challenge)
    other = cases[0].replace("GLI", "MET")
    message = f"{cases[0]} and {other} are the same case for the portal of 2025"
    with pytest.raises(NnmissError, match=message):
        validate_submission(tmp_path / "sub", challenge, ids=[*cases, other])
    save(labels_of(challenge), tmp_path / "images" / f"{other}_flair.nii.gz")
    with pytest.raises(NnmissError, match=message):
        validate_submission(tmp_path / "sub", challenge, tmp_path / "images", ids=cases)


def test_a_case_with_two_images_is_that_cases_problem(tmp_path):
    challenge = small(2020)
    cases = submission(tmp_path, challenge)
    save(labels_of(challenge), tmp_path / "images" / "again" / f"{cases[1]}_flair.nii.gz")
    report = validate_submission(tmp_path / "sub", challenge, tmp_path / "images")
    assert broken(report) == {("geometry", "error", cases[1])} and "images in" in report.errors[0].came


@pytest.mark.parametrize(("year", "names"), [(2024, True), (2025, True), (2023, False)])
def test_short_numbers_are_read_since_2024(tmp_path, year, names):
    """--pred_pattern of the workflows: four or five digits, a hyphen, one to three."""
    challenge = small(year)
    save(labels_of(challenge), tmp_path / "sub" / "1234-12.nii.gz")
    severity = "warning" if names else "error"
    assert ("name", severity, "1234-12") in broken(validate_submission(tmp_path / "sub", challenge))


def test_a_zip_that_holds_a_name_twice(tmp_path):
    challenge = small(2021)
    cases = submission(tmp_path, challenge)
    path = packed(tmp_path / "sub", "zip")
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning):
        archive.write(tmp_path / "sub" / f"{cases[0]}.nii.gz", f"{cases[0]}.nii.gz")
    assert broken(validate_submission(path, challenge, tmp_path / "images")) == {("duplicate", "error", cases[0])}
