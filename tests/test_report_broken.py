"""nnmiss_report: what is broken, absent or wrongly asked for is named, and the rest makes the page."""
from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from report_pages import MODALITIES, REGIONS, check_page, make_results, page_of, subset_rows

from nnmiss.availability import all_subsets, subset_name
from nnmiss.cli import report as cli
from nnmiss.errors import NnmissError
from nnmiss.evaluation.tables import SUPPRESSED
from nnmiss.report.case_choice import rank_cases
from nnmiss.report.sources import read_source


def test_a_broken_folder_is_named_and_the_others_make_the_page(tmp_path, capsys):
    make_results(tmp_path / "good")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "results.csv").write_text("case,subset\nx,flair\n")
    (tmp_path / "worse").mkdir()
    (tmp_path / "worse" / "results.csv").write_bytes(b"\xff\xfe\x00")
    out = tmp_path / "report.html"
    code = cli.run(["-i", *(str(tmp_path / n) for n in ("bad", "good", "worse", "absent")), "-o", str(out), "--no_viewer"])
    assert code == 1
    told = capsys.readouterr().err
    parsed = check_page(out.read_text(encoding="utf-8"))
    for name in ("bad", "worse", "absent"):
        assert str(tmp_path / name) in told and str(tmp_path / name) in parsed.text
    assert "3 results could not be read" in parsed.text
    assert [p.name for p in tmp_path.glob(".*")] == []


def test_nothing_readable_leaves_an_earlier_page_as_it_is(tmp_path):
    out = tmp_path / "report.html"
    out.write_text("earlier")
    with pytest.raises(NnmissError, match="absent"):
        cli.run(["-i", str(tmp_path / "absent"), "-o", str(out)])
    assert out.read_text() == "earlier"


@pytest.mark.parametrize("arguments, said", [
    (["-o", "report.pdf"], "html"), (["-o", "report.html", "--max_mb", "0"], "max_mb"),
    (["-o", "report.html", "--max_mb", "inf"], "max_mb"), (["-o", "report.html", "--max_mb", "nan"], "max_mb"),
    (["-o", "report.html", "--max_mb", "1e308"], "max_mb"), (["-o", "report.html", "--cases", "\u00b2"], "\u00b2"),
    (["-o", "report.html", "--images", "nowhere"], "nowhere"), (["-o", "report.html", "--cases", "zzz"], "zzz"),
    (["-o", "report.html", "--model", "nope"], "--model nope is not a folder"),
    (["-o", "report.html", "--cases", "case_0001", "8"], "--cases case_0001 8: 8 is no case, .* must stand alone")])
def test_wrong_arguments_are_refused(tmp_path, monkeypatch, arguments, said):
    make_results(tmp_path / "ours")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NnmissError, match=said):
        cli.run(["-i", "ours", *arguments])
    assert not list(tmp_path.glob("*.html"))


def test_results_without_a_summary(tmp_path):
    make_results(tmp_path / "ours")
    (tmp_path / "ours" / "summary.json").unlink()
    parsed = check_page(page_of(tmp_path / "ours").html)
    assert "conventions" in parsed.text.lower() and "not known" in parsed.text
    assert set(subset_rows(parsed)) == {subset_name(s, MODALITIES) for s in all_subsets(4)}


def test_everything_that_is_absent_is_said_in_a_sentence(tmp_path):
    make_results(tmp_path / "ours")
    page = page_of(tmp_path / "ours", viewer=True)
    parsed = check_page(page.html)
    for text in ("No images of case_", "No calibration of ours", "no training is shown", "training cases have is not"):
        assert text in parsed.text
        assert any(text in sentence for sentence in page.missing)


def test_portal_results_have_lesion_wise_values_only(tmp_path):
    make_results(tmp_path / "portal", metrics=("lesion_dice", "lesion_hd95"), sources={"portal": ["/x/scores.csv"]})
    parsed = check_page(page_of(tmp_path / "portal", viewer=True).html)
    assert "lesion-wise Dice (%)" in parsed.text and "heat map, box plots" in parsed.text
    assert len(subset_rows(parsed)) == 15 and "portal" in parsed.text


def test_a_region_that_only_some_metrics_have(tmp_path):
    column = "enhancing_tumor" + SUPPRESSED
    make_results(tmp_path / "ours", regions={**REGIONS, column: (3,)})
    path = tmp_path / "ours" / "results.csv"
    results = pd.read_csv(path)
    results[~((results["region"] == column) & (results["metric"] == "hd95"))].to_csv(path, index=False)
    parsed = check_page(page_of(tmp_path / "ours").html)
    rows = subset_rows(parsed)
    assert {len(cells) for cells in rows.values()} == {1 + 5 + 4}
    dice = results[(results["metric"] == "dice") & (results["subset"] == "t1")].groupby("region")["value"].mean() * 100
    assert float(rows["t1"][2]) == pytest.approx(dice[column], abs=0.051)
    assert float(rows["t1"][5]) == pytest.approx(dice[list(REGIONS)].mean(), abs=0.051)  # it does not count twice
    slow = results[(results["metric"] == "dice") & (results["region"] != column)].groupby("case")["value"].mean().idxmin()
    assert rank_cases(read_source(str(tmp_path / "ours")), "dice")[0].name == slow


def test_undefined_values_are_dashes(tmp_path):
    make_results(tmp_path / "ours", 2)
    path = tmp_path / "ours" / "results.csv"
    results = pd.read_csv(path)
    results.loc[(results["subset"] == "t1") & (results["region"] == "tumor_core"), "value"] = np.nan
    results.to_csv(path, index=False)
    assert subset_rows(check_page(page_of(tmp_path / "ours").html))["t1"][:3] == ["0\u20132", *cells_of(results, "t1")]


def cells_of(results: pd.DataFrame, subset: str) -> list[str]:
    """ET and TC of a row."""
    dice = results[(results["metric"] == "dice") & (results["subset"] == subset)].groupby("region")["value"].mean() * 100
    return [f"{dice[r]:.1f}" if np.isfinite(dice[r]) else "\u2013" for r in ("enhancing_tumor", "tumor_core")]


def test_one_case_has_no_box_plots(tmp_path):
    make_results(tmp_path / "one", 1)
    make_results(tmp_path / "two", 2)
    one, two = (check_page(page_of(tmp_path / name).html) for name in ("one", "two"))
    assert "Box plots are left out" in one.text and "boxes" not in one.ids and "bycount" in one.ids
    assert "Box plots are left out" not in two.text and "boxes" in two.ids
