"""The table of BraTS years, against the documentation's tables and literals of the official data sets."""
from __future__ import annotations

import re
from pathlib import Path

import pytest

from nnmiss.brats_ids import id_form, of_others
from nnmiss.brats_years import CHALLENGES, YEARS, canonical_region, find_challenge
from nnmiss.errors import NnmissError
from nnmiss.evaluation.tables import ordered_regions
from nnmiss.export.label_names import label_names

PAGE = Path(__file__).parents[1] / "documentation" / "reference" / "brats.md"


def rows(heading: str) -> list[list[str]]:
    """Cells of the first table below a heading of the page, without the table's head."""
    part = PAGE.read_text(encoding="utf-8").split(f"\n## {heading}\n")[1]
    table = re.search(r"(?:^\|.*\|$\n?)+", part, re.MULTILINE)[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]


def documented_labels() -> dict[str, dict[str, int]]:
    """"classic" -> {"ncr": 1, ...}."""
    names = ("ncr", "ed", "et", "cc", "rc", "gtv")
    return {title.partition(" (")[0]: {name: int(cell) for name, cell in zip(names, cells) if cell}
            for title, *cells in rows("Labels")[:-1]}


def documented_challenges() -> list[tuple]:
    """(challenge, its row) for every year and name in the page's table."""
    return [((int(row[0]), name), row) for row in rows("Challenges") for name in row[1].split(", ")]


def test_the_page_has_every_challenge_once():
    assert sorted(key for key, _ in documented_challenges()) == sorted(CHALLENGES)
    assert YEARS == (2018, 2019, 2020, 2021, 2023, 2024, 2025, 2026)
    assert len(documented_labels()) == 5


@pytest.mark.parametrize(("key", "row"), documented_challenges(), ids=lambda value: "-".join(map(str, value[:2])))
def test_every_cell_of_the_page_is_the_code(key, row):
    challenge = CHALLENGES[key]
    year, name = key
    assert (challenge.year, challenge.name) == key
    assert challenge.labels == documented_labels()[row[2]]
    assert challenge.shape == (None if row[4] == "any" else tuple(map(int, row[4].split(" x "))))
    assert challenge.geometry == row[5]
    cases = re.fullmatch(r"(\d+)(?: \((\w+)\))?", row[6])
    expected = int(cases[1]) if cases and cases[2] in (None, name) else None
    assert challenge.validation_cases == expected
    form = row[3].split("`")[1].replace(f"BraTS-{row[1].split(', ')[0]}-", f"BraTS-{name}-")
    example = re.sub(r"\\d(?:\{(\d)\})?", lambda found: "0123456789"[:int(found[1] or 1)], form)
    example = example.replace("SITE", "TCIA01").replace("_ID_", "_147_")
    for also in ("Training", "Validation", "Testing") if year == 2020 else ("",):
        case = example.replace("Training", also)
        assert challenge.is_id(case), case
        assert not any(challenge.is_id(wrong) for wrong in (case[1:], case[:-1], case + "0", case + ".nii.gz", ""))


def test_labels_after_conversion():
    for challenge in CHALLENGES.values():
        ours = challenge.consecutive_labels()
        for name, cell in zip(("ncr", "ed", "et", "cc", "rc", "gtv"), rows("Labels")[-1][1:]):
            words = cell.split(", with cc ")
            if name in ours:
                assert ours[name] == int(words[-1 if "cc" in ours else 0]), (challenge.title, name)


@pytest.mark.parametrize(("case", "challenges"), [
    ("Brats18_2013_10_1", ["2018 GLI"]), ("Brats18_WashU_S036_1", ["2018 GLI"]),
    ("BraTS19_TMC_06290_1", ["2019 GLI"]), ("BraTS19_TCIA01_147_1", ["2019 GLI"]),
    ("BraTS20_Training_355", ["2020 GLI"]), ("BraTS20_Validation_125", ["2020 GLI"]), ("BraTS2021_01666", ["2021 GLI"]),
    ("BraTS-GLI-00002-000", ["2023 GLI", "2024 GLI", "2025 GLI"]),
    ("BraTS-GLI-02064-100", ["2023 GLI", "2024 GLI", "2025 GLI"]),
    ("BraTS-MET-00086-000", ["2023 MET", "2024 MET", "2025 MET", "2026 MET"]),
    ("BraTS-PED-00001-000", ["2023 PED", "2024 PED", "2025 PED", "2026 PED"]),
    ("BraTS-MEN-00004-000", ["2023 MEN", "2025 MEN"]), ("BraTS-SSA-00002-000", ["2023 SSA", "2024 SSA", "2025 SSA"]),
    ("BraTS-MEN-RT-0000-1", ["2024 MEN-RT", "2025 MEN-RT"]), ("patient_1", []), ("BraTS22_Training_001", []),
])
def test_real_ids(case, challenges):
    assert [c.title for c in CHALLENGES.values() if c.is_id(case)] == [f"BraTS {c}" for c in challenges]


def test_ids_in_words():
    assert [id_form(find_challenge(*key)) for key in ((2018,), (2020,), (2023, "PED"), (2024, "MEN-RT"))] == [
        "Brats18_*_*_1", "BraTS20_*_NNN", "BraTS-PED-NNNNN-NNN", "BraTS-MEN-RT-NNNN-N"]
    here = find_challenge(2026, "PED")
    assert of_others(["BraTS-MEN-00004-000"], here) == ("of BraTS 2023 MEN (--year 2023 --challenge MEN) or BraTS 2025 MEN "
                                                        "(--year 2025 --challenge MEN)")
    assert of_others(["anna"], here) is of_others(["BraTS2021_00001", "BraTS-PED-00001-000"], here) is None


@pytest.mark.parametrize(("year", "accepted", "refused"), [
    (2021, ["12345.nii.gz"], ["1234.nii.gz", "00001-000.nii.gz", "12345.nii"]),
    (2023, ["00001-000.nii.gz"], ["1234-12.nii.gz", "0001-000.nii.gz"]),
    (2024, ["00001-000.nii.gz", "1234-12.nii.gz", "1234-1.nii.gz"], ["123-12.nii.gz", "00001.nii.gz"]),
    (2025, ["00001-000.nii.gz", "1234-12.nii.gz", "1234-1.nii.gz"], ["123-12.nii.gz", "00001.nii.gz"]),
    (2026, ["00001-000.nii.gz", "00001.nii.gz"], ["1234-12.nii.gz", "00001-00.nii.gz"]),
])
def test_which_names_the_portal_reads(year, accepted, refused):
    for challenge in (c for c in CHALLENGES.values() if c.year == year):
        assert all(re.search(challenge.name_pattern, f"BraTS-{name}") for name in accepted)
        assert not any(re.search(challenge.name_pattern, f"BraTS-{name}") for name in refused)
    assert all(c.name_pattern is None for c in CHALLENGES.values() if c.year < 2021)


def test_what_differs_between_portals():
    """Literals; the page on validation says the same in words."""
    assert [y for y in YEARS if not find_challenge(y, "PED" if y == 2026 else "GLI").portal.archive] == [2018, 2019, 2020]
    portals = {c.year: c.portal for c in CHALLENGES.values()}
    assert [y for y in YEARS if portals[y].fixed_shape] == [2023, 2024]
    assert [y for y in YEARS if portals[y].passed_over == (".idea",)] == [2023, 2024, 2025, 2026]
    assert [y for y in YEARS if "drops" in portals[y].folders] == [2025, 2026]
    assert {y: portals[y].tolerance for y in YEARS if portals[y].tolerance} == {2026: 1e-5}
    assert [y for y in YEARS if any(c.uncertainty for c in CHALLENGES.values() if c.year == y)] == [2019, 2020]
    pooled = {(c.year, c.name) for c in CHALLENGES.values() if c.hd95 == "brats2020"}
    assert pooled == {(2018, "GLI"), (2019, "GLI"), (2020, "GLI"), (2021, "GLI"), (2025, "MET"),
                      (2026, "MET"), (2026, "PED")}
    assert {c.hd95 for c in CHALLENGES.values()} == {"brats2020", "brats2023"}


def test_challenges_that_are_not_there():
    for year, name, message in ((2022, "GLI", "give year 2021"), (2024, "MEN", "no BraTS challenge MEN of 2024")):
        with pytest.raises(NnmissError, match=message):
            find_challenge(year, name)


@pytest.mark.parametrize(("names", "region"), [
    (("WT", "whole tumor", "Whole-Tumour", "whole_tumor", "whole"), "whole_tumor"),
    (("TC", "tumor  core", "tumour_core", "core"), "tumor_core"),
    (("ET", "enhancing tumour", "Enhancing", "enhancing_tumor", "enhancing tissue"), "enhancing_tumor"),
    (("RC", "Resection-Cavity", "cavity"), "resection_cavity"), (("CC", "cyst"), "cystic_component"),
    (("GTV", "gross tumor volume"), "gross_tumor_volume"), (("ncr", "edema", "NETC", "SNFH", "liver", ""), None)])
def test_regions_in_the_usual_spellings(names, region):
    assert {canonical_region(name) for name in names} == {region}


def test_one_list_of_spellings_serves_tables_and_labels():
    assert ordered_regions(["Whole", "cavity", "Core", "enhancing tissue"]) == {
        "enhancing tissue": "ET", "Core": "TC", "Whole": "WT", "cavity": "cavity"}
    assert label_names({"labels": {"whole": [1, 2, 3], "core": [2, 3], "enhancing": [3]}}) == {"ed": 1, "ncr": 2, "et": 3}
