"""What the page says of its means: one mean everywhere, n of values, units, common cases of methods that share metrics."""
from __future__ import annotations

import json
import re
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
from report_pages import HOSTILE, check_page, make_results, page_of, subset_rows

from nnmiss.evaluation import figures
from nnmiss.evaluation.conventions import Conventions
from nnmiss.report import page as page_module
from nnmiss.report.case_plot import axis_names


def edit(folder: Path, change) -> pd.DataFrame:
    """Rewrites results.csv by `change` of its frame."""
    results = change(pd.read_csv(folder / "results.csv"))
    results.to_csv(folder / "results.csv", index=False)
    return results


def where(value: float, **wanted):
    """A change to this value where all columns are as wanted."""
    def change(frame: pd.DataFrame) -> pd.DataFrame:
        chosen = np.logical_and.reduce([frame[column] == content for column, content in wanted.items()])
        return frame.assign(value=frame["value"].mask(chosen, value))
    return change


def set_conventions(folder: Path, **changes) -> None:
    summary = json.loads((folder / "summary.json").read_text())
    summary["conventions"] = Conventions(**changes).as_dict()
    (folder / "summary.json").write_text(json.dumps(summary))


@pytest.fixture
def gaps(tmp_path):
    """Three cases, whose ET is undefined everywhere with t1, else low there, and HD95 of TC of one case with t2."""
    make_results(tmp_path / "ours", 3)
    edit(tmp_path / "ours", where(0.02, subset="t1", metric="dice"))
    edit(tmp_path / "ours", where(np.nan, subset="t1", region="enhancing_tumor", metric="dice"))
    edit(tmp_path / "ours", where(np.nan, subset="t2", region="tumor_core", metric="hd95", case="case_0001"))
    return tmp_path / "ours"


def test_one_mean_wherever_it_is_shown(gaps):
    make_results(gaps.parent / "theirs", 3, seed=1)
    dice = pd.read_csv(gaps / "results.csv").query("metric == 'dice'")
    by_region = {region: np.nanmean([rows["value"].mean() for _, rows in of.groupby("subset")])
                 for region, of in dice.groupby("region")}
    expected = f"{100 * np.mean(list(by_region.values())):.1f}"
    parsed = check_page(page_of(gaps, gaps.parent / "theirs").html)
    assert re.search(r"Mean Dice \(%\)\s*([\d.]+)", parsed.text)[1].startswith(expected)
    overview = next(t for t in parsed.tables if "each method's own cases" in t["caption"])
    assert overview["rows"][1][-1] == expected
    first = next(t for t in parsed.tables if t["class"] == "subsets")
    assert first["rows"][-1][:6][-1] == expected  # label, without n, ET, TC, WT, mean
    compared = next(t for t in parsed.tables if t["class"] == "compared")
    assert compared["rows"][-1][-2] == expected
    of_rows = np.mean([of.groupby("region")["value"].mean().mean() for _, of in dice.groupby("subset")])
    assert f"{100 * of_rows:.1f}" != expected  # the other way to average


def test_n_counts_values_of_each_metric(gaps):
    parsed = check_page(page_of(gaps).html)
    rows = subset_rows(parsed)
    assert (rows["t1"][0], rows["t2"][0], rows["flair"][0]) == ("0\u20133", "3", "3")
    assert (rows["t1"][5], rows["t2"][5], rows["flair"][5]) == ("3", "2\u20133", "3")  # that of HD95, before its block
    make_results(gaps.parent / "theirs", 3, seed=1)
    compared = next(t for t in check_page(page_of(gaps, gaps.parent / "theirs").html).tables if t["class"] == "compared")
    assert [row[4] for row in compared["rows"][2:6]] == ["3", "0\u20133", "3", "3"]


def test_the_hardest_subset_has_its_n(tmp_path):
    make_results(tmp_path / "ours", 4)
    edit(tmp_path / "ours", where(0.01, subset="t1", metric="dice"))
    edit(tmp_path / "ours", where(np.nan, subset="t1", metric="dice", case="case_0000"))
    tile = re.search(r"Hardest subset</span>.*?</div>", page_of(tmp_path / "ours").html)[0]
    assert "t1, 3 cases" in tile


def test_lesion_wise_hd95_is_in_mm_whatever_the_unit_of_hd95(tmp_path):
    make_results(tmp_path / "ours", metrics=("dice", "hd95", "lesion_dice", "lesion_hd95"))
    set_conventions(tmp_path / "ours", hd95_unit="voxels", lesionwise="2023-GLI")
    parsed = check_page(page_of(tmp_path / "ours").html)
    tops = {text for t in parsed.tables if t["class"] == "subsets" for text in t["rows"][0]}
    assert {"HD95 (voxels)", "lesion-wise HD95 (mm)"} <= tops
    assert "lesion-wise HD95 (voxels)" not in parsed.text and "HD95 (mm)" not in parsed.text.replace("lesion-wise HD95", "")


def test_conventions_at_the_top_are_short(tmp_path):
    make_results(tmp_path / "ours", metrics=("dice", "hd95", "lesion_dice", "lesion_hd95"))
    set_conventions(tmp_path / "ours", et_threshold=500, lesionwise="2023-GLI")
    html = page_of(tmp_path / "ours").html
    top = html[html.index("<header>"):html.index("</header>")]
    assert top.count("fewer than 500 voxels") == 1
    shown, folded = re.sub(r"<details>.*?</details>", "", top, flags=re.DOTALL), top[top.index("<details>"):]
    assert "HD95 as BraTS 2020" in shown and "lesion-wise" not in shown and "BraTS 2023 GLI" in folded


def test_a_metric_is_compared_by_those_that_have_it(tmp_path):
    for i, name in enumerate(("ours", "with", "without")):
        make_results(tmp_path / name, 6, seed=i, metrics=("dice",) if name == "without" else ("dice", "hd95"))
    parsed = check_page(page_of(*(tmp_path / n for n in ("ours", "with", "without"))).html)
    tests = next(t for t in parsed.tables if "ours minus the other" in t["caption"])
    assert {(row[0], row[2]) for row in tests["rows"][1:]} == {("Dice (%)", "with"), ("Dice (%)", "without"),
                                                               ("HD95 (mm)", "with")}
    assert "without has no HD95" in parsed.text


def test_methods_that_share_nothing_together_do_not_stop_the_page(tmp_path):
    for name, cases in (("ours", ["a", "b"]), ("x", ["a"]), ("y", ["b"])):
        make_results(tmp_path / name, cases)
    parsed = check_page(page_of(*(tmp_path / n for n in ("ours", "x", "y"))).html)
    compared = next(t for t in parsed.tables if t["class"] == "compared")
    assert compared["rows"][1][4:6] == ["ours", "x"] and "y is not compared" in parsed.text


def test_other_regions_are_not_compared_without_a_summary_either(tmp_path):
    make_results(tmp_path / "ours")
    make_results(tmp_path / "other", regions={"lesion": (1,)})
    (tmp_path / "ours" / "summary.json").unlink()
    assert "other is not compared" in check_page(page_of(tmp_path / "ours", tmp_path / "other").html).text


def test_dice_by_count_is_drawn_on_common_cases(tmp_path, monkeypatch):
    make_results(tmp_path / "ours", [f"c{i}" for i in range(8)], gaps=True)
    make_results(tmp_path / "theirs", ["c1", "c2", "c3", "c4", "c5"], seed=0, gaps=True)
    drawn = {}
    draw = figures.dice_by_count
    monkeypatch.setattr(figures, "dice_by_count", lambda methods, *rest: drawn.update(methods) or draw(methods, *rest))
    parsed = check_page(page_of(tmp_path / "ours", tmp_path / "theirs").html)
    pairs = [set(zip(of["case"], of["subset"])) for of in drawn.values()]
    assert list(drawn) == ["ours", "theirs"] and pairs[0] == pairs[1] and len(pairs[0]) > 3
    assert "n differs between dots" in parsed.text and "on the same cases and subsets" in parsed.text
    make_results(tmp_path / "whole")
    assert "n differs" not in check_page(page_of(tmp_path / "whole").html).text


@pytest.mark.parametrize("names, shown", [
    ([f"BraTS20_Training_{i:03d}" for i in (1, 2, 12)], ["…001", "…002", "…012"]),
    (["case_1", "case_2"], ["case_1", "case_2"]), (["one_very_long_name"], ["one_very_long_name"]),
    (["sub-1_session-baseline_acquisition-3", "sub-2_session-baseline_acquisition-3"],
     ["…1_sessi…eline_acquisition-3", "…2_sessi…eline_acquisition-3"]),
    (["patient_number", "patient_number_2"], ["…number", "…number_2"]),
])
def test_names_on_the_axis_can_be_told_apart(names, shown):
    got = axis_names(names)
    assert len(set(got)) == len(names) and all(len(text) <= 28 for text in got)
    assert got == shown


def test_names_of_cases_stand_on_the_axis(tmp_path):
    make_results(tmp_path / "ours", [f"BraTS20_Training_{i:03d}" for i in range(1, 13)])
    plot = re.search(r'<figure id="cases-plot">.*?</figure>', page_of(tmp_path / "ours").html, re.DOTALL)[0]
    assert all(f">…{i:03d}</text>" in plot for i in range(1, 13))
    make_results(tmp_path / "hostile", HOSTILE)
    check_page(page_of(tmp_path / "hostile").html)


# ---- size -----------------------------------------------------------------------------------------------------------

def test_a_page_above_its_limit_says_so(tmp_path, capsys):
    make_results(tmp_path / "ours")
    page = page_of(tmp_path / "ours", max_mb=0.05)
    assert len(page.html.encode()) > 50_000 and page.missing[0] in check_page(page.html).text
    assert re.match(r"The page takes \d+ kB, above --max_mb 0.05", page.missing[0])
    assert not any("above --max_mb" in text for text in page_of(tmp_path / "ours").missing)


def test_the_whole_page_with_images_keeps_its_limit(tmp_path):
    folder = tmp_path / "ours"
    make_results(folder, [f"c{i}" for i in range(6)])
    rng = np.random.default_rng(0)
    for case in range(6):
        for channel in range(4):
            path = tmp_path / "images" / f"c{case}_{channel:04d}.nii.gz"
            path.parent.mkdir(exist_ok=True)
            nibabel.Nifti1Image(rng.uniform(1, 9, (40, 40, 40)).astype(np.float32), np.eye(4)).to_filename(path)
    options = {"images": str(tmp_path / "images"), "viewer": True, "cases": ["6"]}
    whole = page_of(folder, **options)
    assert whole.embedded == 6
    limit = len(whole.html.encode()) / 1e6 - 0.3
    page = page_of(folder, max_mb=limit, **options)
    assert 3 <= page.embedded <= 6 and limit - 0.4 < len(page.html.encode()) / 1e6 <= limit
    assert not any("above --max_mb" in text for text in page.missing)


def test_the_plot_of_cases_is_drawn_again_only_for_other_links(tmp_path, monkeypatch):
    make_results(tmp_path / "ours")
    drawn, draw = [], page_module.cases_body
    monkeypatch.setattr(page_module, "cases_body", lambda of, embedded: drawn.append(embedded) or draw(of, embedded))
    page_of(tmp_path / "ours")
    assert drawn == [set()]
