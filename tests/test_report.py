"""nnmiss_report: the page is whole and refers to nothing outside, and its numbers are those of the results."""
from __future__ import annotations

import re
import time

import numpy as np
import pandas as pd
import pytest
from report_pages import HOSTILE, MODALITIES, check_page, make_results, page_of, subset_rows, write_evaluation

from nnmiss.availability import all_subsets, subset_name
from nnmiss.errors import NnmissError
from nnmiss.report.case_choice import choose_cases, rank_cases
from nnmiss.report.sources import read_source

# ---- numbers --------------------------------------------------------------------------------------------------------

def test_the_table_holds_the_summarys_numbers_and_n_of_every_row(tmp_path):
    summary = make_results(tmp_path / "ours", 12, gaps=True)
    parsed = check_page(page_of(tmp_path / "ours").html)
    rows = subset_rows(parsed)
    assert list(rows) == [s for s in (subset_name(p, MODALITIES) for p in all_subsets(4)) if s in summary["subsets"]]
    order = ["enhancing_tumor", "tumor_core", "whole_tumor"]  # ET, TC, WT
    for subset, cells in rows.items():
        of_subset = summary["subsets"][subset]
        dice = [100 * of_subset["regions"][r]["dice"]["mean"] for r in order]
        hd95 = [of_subset["regions"][r]["hd95"]["mean"] for r in order]
        expected = [*dice, np.mean(dice), *hd95, np.mean(hd95)]
        assert [float(c) for c in cells[1:]] == pytest.approx(expected, abs=0.051)
        assert int(cells[0]) == of_subset["n"]  # right after the circles, where a narrow screen shows it
    assert len({int(cells[0]) for cells in rows.values()}) > 1  # gaps make rows differ
    table = next(t for t in parsed.tables if t["class"] == "subsets")
    average = [100 * summary["mean_over_subsets"][r]["dice"] for r in order]
    assert [float(c) for c in table["rows"][-1][1:4]] == pytest.approx(average, abs=0.051)
    assert re.search(rf"Mean Dice \(%\)\s*{np.mean(average):.1f}", parsed.text)


def test_circles_say_in_words_which_modalities_are_there(tmp_path):
    make_results(tmp_path / "ours")
    html = page_of(tmp_path / "ours").html
    row = re.search(r'<tr><th scope="row"[^>]*>2<span class="unseen"> t1\+t2</span></th>.*?</tr>', html)[0]
    assert re.findall(r'aria-label="([^"]*)"', row) == ["flair: missing", "t1: there", "t1ce: missing", "t2: there"]
    assert re.findall("[●○]", row) == ["○", "●", "○", "●"]


def test_the_colour_scale_goes_from_worst_to_best(tmp_path):
    make_results(tmp_path / "ours")
    html = page_of(tmp_path / "ours").html
    body = re.search(r'<table class="subsets">.*?</table>', html, re.DOTALL)[0]
    cells = [[(float(v), float(s)) for s, v in re.findall(r'--share:([\d.]+)">([\d.]+)<', line)]
             for line in body.splitlines() if "--share" in line]
    for columns, best in ((slice(0, 4), max), (slice(4, 8), min)):  # Dice, HD95
        values = [pair for line in cells for pair in line[columns]]
        assert best(v for v, _ in values) == max(values, key=lambda p: p[1])[0]
        assert {min(s for _, s in values), max(s for _, s in values)} == {0.0, 1.0}


def test_cases_are_ranked_by_the_mean_over_subsets_and_regions(tmp_path):
    make_results(tmp_path / "ours", 25, gaps=True)
    results = pd.read_csv(tmp_path / "ours" / "results.csv")
    dice = results[results["metric"] == "dice"]
    slow = sorted((float(np.mean(rows["value"])), case) for case, rows in dice.groupby("case"))
    source = read_source(str(tmp_path / "ours"))
    ranked = rank_cases(source, "dice")
    assert [c.name for c in ranked] == [case for _, case in slow]
    worst = ranked[0]
    of_case = dice[dice["case"] == worst.name]
    lowest = of_case.loc[of_case["value"].idxmin()]
    assert (worst.worst_subset, worst.worst_region) == (lowest["subset"], lowest["region"])
    parsed = check_page(page_of(tmp_path / "ours").html)
    table = next(t for t in parsed.tables if "worst of 25 cases" in t["caption"])
    assert [row[1] for row in table["rows"][1:]] == [case for _, case in slow[:10]]
    assert [float(row[2]) for row in table["rows"][1:]] == pytest.approx([100 * m for m, _ in slow[:10]], abs=0.051)


def test_hd95_alone_ranks_the_largest_first(tmp_path):
    make_results(tmp_path / "ours", metrics=("hd95",))
    source = read_source(str(tmp_path / "ours"))
    ranked = rank_cases(source, source.main_metric)
    assert ranked[0].mean == max(c.mean for c in ranked) and ranked[0].worst >= ranked[0].mean
    check_page(page_of(tmp_path / "ours").html)


# ---- which cases ----------------------------------------------------------------------------------------------------

def test_choice_of_cases(tmp_path):
    make_results(tmp_path / "ours", 9)
    ranked = rank_cases(read_source(str(tmp_path / "ours")), "dice")
    names = [c.name for c in ranked]
    there = set(names)
    assert choose_cases(ranked, [], there) == [names[0], names[4], names[8]]
    assert choose_cases(ranked, ["1"], there) == [names[0]]
    assert choose_cases(ranked, ["5"], there) == [names[0], names[4], names[8], names[1], names[2]]
    assert choose_cases(ranked, ["100"], there) == [names[0], names[4], names[8], *names[1:4], *names[5:8]]
    assert choose_cases(ranked, [names[3], names[3], names[2]], there) == [names[3], names[2]]
    assert choose_cases(ranked, ["7"], {*there, "7"}) == ["7"]  # a case of that name
    with pytest.raises(NnmissError, match="case_0003"):
        choose_cases(ranked, ["case_003"], there)
    with pytest.raises(NnmissError, match="Did you mean case_0999") as error:  # the last of a thousand
        choose_cases(ranked, ["CASE_00999"], {f"case_{i:04d}" for i in range(1000)})
    assert len(str(error.value)) < 500


# ---- sizes and hostile names ----------------------------------------------------------------------------------------

def test_a_thousand_cases(tmp_path):
    make_results(tmp_path / "big", 1000)
    start = time.process_time()
    page = page_of(tmp_path / "big")
    assert time.process_time() - start < 20
    assert len(page.html.encode()) < 5_000_000
    parsed = check_page(page.html)
    plot = re.search(r'<figure id="cases-plot">.*?</figure>', page.html, re.DOTALL)[0]
    assert plot.count("<title>") == 3000  # every case, every region
    assert len(re.findall(r'<a href="#case-\d"', plot)) == 30  # the worst ones lead to their row
    assert all(len(t["rows"]) < 40 for t in parsed.tables)
    assert "The 10 worst of 1,000 cases" in parsed.text


def test_hostile_names_stay_text(tmp_path):
    regions = {"<b>core</b>": (2, 3), "a & b": (3,)}
    make_results(tmp_path / "one", HOSTILE, name=HOSTILE[0], regions=regions)
    make_results(tmp_path / "two", HOSTILE, seed=1, name=HOSTILE[3], regions=regions)
    page = page_of(tmp_path / "one", tmp_path / "two", title="</title><script>")
    parsed = check_page(page.html)
    assert not [tag for tag, _ in parsed.tags if tag in ("script", "img")]
    assert not [a for _, a in parsed.tags if any(k.startswith("on") for k in a)]
    for text in [*HOSTILE, *regions, "</title><script>"]:
        assert text in parsed.text
    assert [m[1:3] for m in (t["rows"][1] for t in parsed.tables if "worst first" in t["caption"])]


def test_many_modalities_show_the_subsets_of_reports(tmp_path):
    names = [f"m{i}" for i in range(7)]
    rows = [(case, subset_name(s, names), "lesion", "dice", 0.5 + 0.05 * sum(s) + 0.01 * i)
            for i, case in enumerate("ab") for s in all_subsets(7)]
    results = pd.DataFrame(rows, columns=["case", "subset", "region", "metric", "value"])
    write_evaluation(tmp_path / "wide", results, "wide", names, {"lesion": (1,)})
    parsed = check_page(page_of(tmp_path / "wide").html)
    table = next(t for t in parsed.tables if t["class"] == "subsets")
    assert len(table["rows"]) == 2 + 7 + 7 + 1 + 1
    assert "Average of 127 rows" in parsed.text and "wide has 127 subsets" in parsed.text


# ---- several methods ------------------------------------------------------------------------------------------------

def test_methods_side_by_side_with_tests(tmp_path):
    summaries = {name: make_results(tmp_path / name, 8, seed=i) for i, name in enumerate(("ours", "theirs"))}
    page = page_of(tmp_path / "ours", f"Baseline={tmp_path / 'theirs'}")
    parsed = check_page(page.html)
    for place, name in enumerate(summaries):  # a panel for each
        first = 100 * summaries[name]["subsets"]["flair"]["regions"]["enhancing_tumor"]["dice"]["mean"]
        assert float(subset_rows(parsed, place)["flair"][1]) == pytest.approx(first, abs=0.051)
    assert sum(a.get("type") == "radio" for _, a in parsed.tags) == 2
    compared = next(t for t in parsed.tables if t["class"] == "compared")
    assert compared["rows"][1][4:6] == ["ours", "Baseline"] and compared["rows"][0][1] == "n"
    assert {row[4] for row in compared["rows"][2:-1]} == {"8"}
    tests = next(t for t in parsed.tables if "ours minus the other" in t["caption"])
    assert len(tests["rows"]) == 1 + 6 and {row[2] for row in tests["rows"][1:]} == {"Baseline"}
    assert {row[3] for row in tests["rows"][1:]} == {"8"}
    dice = {name: pd.read_csv(tmp_path / name / "results.csv").query("metric == 'dice' and region == 'tumor_core'")
            for name in summaries}
    means = {name: rows.groupby("case")["value"].mean() for name, rows in dice.items()}
    said = next(row for row in tests["rows"] if row[:2] == ["Dice (%)", "TC"])
    difference = 100 * (means["ours"] - means["theirs"]).mean()
    assert float(said[4].replace("\u2212", "-")) == pytest.approx(difference, abs=0.0051)


def test_methods_that_cannot_be_compared_are_shown_and_named(tmp_path):
    make_results(tmp_path / "ours")
    make_results(tmp_path / "regions", regions={"lesion": (1,)})
    make_results(tmp_path / "apart", ["x", "y"])
    page = page_of(tmp_path / "ours", tmp_path / "regions", tmp_path / "apart")
    parsed = check_page(page.html)
    assert "regions is not compared" in parsed.text and "apart is not compared" in parsed.text
    assert not [t for t in parsed.tables if t["class"] == "compared"]


def test_the_same_name_twice_is_told_apart(tmp_path):
    for place in ("a", "b"):
        make_results(tmp_path / place, name="net")
    parsed = check_page(page_of(tmp_path / "a", tmp_path / "b").html)
    assert "net (2)" in parsed.text
