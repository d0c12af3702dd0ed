"""nnmiss_report: the page is whole and refers to nothing outside, numbers are the results', files are found or named."""
from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from nnmiss.atomic_files import write_json
from nnmiss.availability import all_subsets, parse_subset, subset_name
from nnmiss.cli import report as cli
from nnmiss.errors import NnmissError
from nnmiss.evaluation.conventions import Conventions
from nnmiss.evaluation.label_maps import Regions
from nnmiss.evaluation.results import write_results
from nnmiss.evaluation.summary import summarise, without_nan
from nnmiss.evaluation.tables import SUPPRESSED
from nnmiss.report import viewer_part as viewer_module
from nnmiss.report.case_choice import choose_cases, rank_cases
from nnmiss.report.dataset_files import find_places, find_trainings
from nnmiss.report.page import Options, build_page
from nnmiss.report.sources import read_source

MODALITIES = ["flair", "t1", "t1ce", "t2"]
REGIONS = {"whole_tumor": (1, 2, 3), "tumor_core": (2, 3), "enhancing_tumor": (3,)}
VOID = {"meta", "img", "input", "br", "hr", "link", "wbr"}


def make_results(folder: Path, cases: int | list[str] = 3, seed: int = 0, name: str | None = None, gaps: bool = False,
                 regions: dict = REGIONS, metrics: tuple = ("dice", "hd95"), sources: dict | None = None) -> dict:
    """An evaluation as nnmiss_evaluate leaves it, of random values; `gaps`: cases lack modalities. Returns the summary."""
    rng, rows = np.random.default_rng(seed), []
    for case in [f"case_{c:04d}" for c in range(cases)] if isinstance(cases, int) else cases:
        base, have = rng.beta(8, 2), rng.random(len(MODALITIES)) < (0.7 if gaps else 1)
        have[0] |= not have.any()
        for subset in all_subsets(len(MODALITIES)):
            if any(shown and not there for shown, there in zip(subset, have)):
                continue
            for region in regions:
                for metric in metrics:
                    value = rng.uniform(1, 30) if metric.endswith("hd95") else np.clip(base + rng.normal(0, 0.1), 0, 1)
                    rows.append((case, subset_name(subset, MODALITIES), region, metric, value))
    results = pd.DataFrame(rows, columns=["case", "subset", "region", "metric", "value"])
    return write_evaluation(folder, results, name or folder.name, MODALITIES, regions, sources)


def write_evaluation(folder: Path, results: pd.DataFrame, name: str, modalities: list[str], regions: dict,
                     sources: dict | None = None) -> dict:
    """results.csv and summary.json of an evaluation, without its figures, which take their time."""
    folder.mkdir(parents=True, exist_ok=True)
    summary = summarise(results, [], name, modalities, Regions(regions, frozenset(range(4)), None), Conventions())
    summary.update(sources=sources or {}, notes=[], errors=[])
    write_results(results, folder / "results.csv")
    write_json(folder / "summary.json", without_nan(summary))
    return summary


@dataclass
class Parsed(HTMLParser):
    """A page taken apart: open elements at every moment, ids, references, tables as rows of texts, scripts."""

    open: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    references: list[tuple[str, str]] = field(default_factory=list)
    links: list[dict] = field(default_factory=list)
    tags: list[tuple[str, dict]] = field(default_factory=list)
    tables: list[dict] = field(default_factory=list)
    text: str = ""

    def __post_init__(self):
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag, attrs):
        self.note(tag, dict(attrs))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append({"class": dict(attrs).get("class"), "caption": "", "rows": []})
        elif tag == "tr":
            self.tables[-1]["rows"].append([])
        elif tag in ("td", "th"):
            self.tables[-1]["rows"][-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.note(tag, dict(attrs))

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data):
        self.text += data
        if "caption" in self.open:
            self.tables[-1]["caption"] += data
        elif self.open and ("td" in self.open or "th" in self.open):
            self.tables[-1]["rows"][-1][-1] += data

    def note(self, tag, attributes):
        self.tags.append((tag, attributes))
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.references += [(tag, attributes[k]) for k in ("href", "src", "xlink:href", "action") if k in attributes]
        self.links += [attributes] if tag == "a" else []


def parse(html: str) -> Parsed:
    parsed = Parsed()
    parsed.feed(html)
    parsed.close()
    assert parsed.open == [], f"never closed: {parsed.open}"
    return parsed


def check_page(html: str) -> Parsed:
    """What holds for every page."""
    parsed = parse(html)
    assert html.startswith("<!DOCTYPE html>") and '<meta charset="utf-8">' in html
    assert len(parsed.ids) == len(set(parsed.ids)), sorted(i for i in parsed.ids if parsed.ids.count(i) > 1)
    for tag, target in parsed.references:
        assert target.startswith(("#", "data:")), f"{tag} refers to {target}"
        if target.startswith("#"):
            assert target[1:] in parsed.ids, f"{target} leads nowhere"
    assert not re.search(r"url\((?!#|['\"]?data:)|@import", html)
    for reference in re.findall(r"url\(#([^)]+)\)", html):
        assert reference in parsed.ids
    assert all(a.get("scope") in ("col", "row", "colgroup", "rowgroup") for tag, a in parsed.tags if tag == "th")
    assert all(a.get("alt") for tag, a in parsed.tags if tag == "img")
    assert all(a.get("aria-label") for tag, a in parsed.tags if tag == "svg")
    assert all(table["caption"].strip() for table in parsed.tables)
    return parsed


def page_of(*results: Path | str, **options):
    options = {"viewer": False, **options}
    return build_page(Options([str(r) for r in results], **options))


def subset_rows(parsed: Parsed, place: int = 0) -> dict[str, list[str]]:
    """Subset -> texts of its cells after the circles, of the place-th subset table."""
    table = [t for t in parsed.tables if t["class"] == "subsets"][place]
    return {row[0].split(" ", 1)[1]: row[1 + len(MODALITIES):] for row in table["rows"][2:] if row[0][0].isdigit()}


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


HOSTILE = ['<script>alert("1")</script>', '"><img src=x onerror=alert(1)>', "a&b'c", r"$\frac{x$ $", "fälle_Ω_日本"]


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


# ---- broken and absent things ---------------------------------------------------------------------------------------

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
    (["-o", "report.html", "--images", "nowhere"], "nowhere"), (["-o", "report.html", "--cases", "zzz"], "zzz")])
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


# ---- training, data, calibration ------------------------------------------------------------------------------------

def make_fold(model: Path, stages: tuple = ("warmup", "missing"), fold: str = "fold_0") -> Path:
    """fold_K as training leaves it: checkpoints of all stages, run.json, importance weights."""
    folder = model / fold
    for i, stage in enumerate(stages):
        place = folder if i == len(stages) - 1 else folder / f"stage_{stage}"
        place.mkdir(parents=True, exist_ok=True)
        epochs = [float(e) for e in range(4)]
        torch.save({"network_weights": {}, "nnmiss": {"stage": stage, "progress": {"parts": {
            "loss": epochs, "task": epochs, "distillation": epochs}, "tables": {}}}, "logging": {
            "train_losses": epochs, "val_losses": epochs, "mean_fg_dice": [0.1] * 4, "ema_fg_dice": [0.1] * 4,
            "lrs": epochs, "epoch_start_timestamps": [100.0 * i + e for e in range(4)],
            "epoch_end_timestamps": [100.0 * i + e + 0.5 for e in range(4)], "dice_per_class_or_region": [[0.1]] * 4}},
            place / "checkpoint_final.pth")
    (folder / "run.json").write_text(json.dumps({
        "method": "metakd", "preset": "paper", "seed": 3, "fold": 0, "missing": None, "device": "cpu",
        "settings": {stage: {"num_epochs": 4, "batch_size": 2} for stage in stages}, "versions": {"torch": "2.9"}}))
    pd.DataFrame({"iteration": [0, 5], **{m: [0.2, 0.3] for m in MODALITIES}}).to_csv(
        folder / "importance_weights.csv", index=False)
    return folder


def test_training_of_a_final_validation(tmp_path):
    fold = make_fold(tmp_path / "Dataset812_Made" / "nnMissTrainerMetaKD__nnMissPlans-new__3d_fullres")
    make_results(fold / "validation", name="validation")
    parsed = check_page(page_of(fold / "validation").html)
    assert "metakd new fold 0" in parsed.text and "Dataset812_Made" in parsed.text
    for text in ("8 epochs", "training loss", "importance weights", "distillation", "num_epochs", "seed"):
        assert text in parsed.text


def test_training_files_that_are_damaged_or_absent(tmp_path):
    fold = make_fold(tmp_path / "model", ("joint",))
    (fold / "checkpoint_final.pth").write_bytes(b"not a checkpoint")
    (fold / "importance_weights.csv").write_text("iteration,flair\n1,x\n")
    (fold / "run.json").unlink()
    make_results(tmp_path / "ours")
    page = page_of(tmp_path / "ours", models=[str(tmp_path / "model"), str(tmp_path / "nowhere")])
    parsed = check_page(page.html)
    for text in ("checkpoint_final.pth", "importance_weights.csv", "run.json", "nowhere"):
        assert text in parsed.text and any(text in sentence for sentence in page.missing)
    (fold / "checkpoint_final.pth").unlink()
    (fold / "progress.png").write_bytes(b"\x89PNG made up")
    assert 'src="data:image/png;base64,' in page_of(tmp_path / "ours", models=[str(fold)]).html


def test_availability_and_calibration(tmp_path, monkeypatch):
    make_results(tmp_path / "Dataset812_Made" / "ours")
    preprocessed = tmp_path / "nnUNet_preprocessed" / "Dataset812_Made"
    preprocessed.mkdir(parents=True)
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)  # found beside the results
    (preprocessed / "availability.json").write_text(json.dumps({
        "modalities": MODALITIES, "cases": {"a": [True] * 4, "b": [True] * 4, "c": [False, True, False, True]}}))
    pd.DataFrame({"subset": "flair", "region": "tumor_core", "bin": [1, 2], "n": [10, 30], "mean_confidence": [0.6, 0.9],
                  "accuracy": [0.5, 0.9]}).to_csv(tmp_path / "Dataset812_Made" / "ours" / "calibration.csv", index=False)
    parsed = check_page(page_of(tmp_path / "Dataset812_Made" / "ours").html)
    table = next(t for t in parsed.tables if t["caption"].startswith("Training cases: 3 cases"))
    assert [row[5:7] for row in table["rows"][1:-1]] == [["2", "66.7"], ["1", "33.3"]]
    assert table["rows"][-1][1:5] == ["2", "3", "2", "3"]
    assert "1: ECE 2.5 %" in parsed.text  # (10 * |0.5 - 0.6| + 0) / 40
    (tmp_path / "Dataset812_Made" / "ours" / "calibration.csv").write_text("subset,region\nflair,x\n")
    assert "calibration.csv cannot be read" in page_of(tmp_path / "Dataset812_Made" / "ours").html


# ---- images ---------------------------------------------------------------------------------------------------------

@pytest.fixture
def tree(tmp_path, monkeypatch):
    """nnU-Net's folders of a data set with three test cases, one of which lacks t2, and predictions of two subsets."""
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    raw, pred = tmp_path / "nnUNet_raw" / "Dataset812_Made", tmp_path / "pred" / "metakd"
    cases = ["a", "b", "c"]
    for case in cases:
        for channel in range(3 if case == "b" else 4):
            write(raw / "imagesTs" / f"{case}_{channel:04d}.nii.gz")
        write(raw / "labelsTs" / f"{case}.nii.gz")
        for subset in ("flair", "flair+t1"):
            write(pred / subset / f"{case}.nii.gz")
    content = {"channel_names": {str(i): m for i, m in enumerate(MODALITIES)}, "file_ending": ".nii.gz", "numTraining": 3,
               "labels": {"background": 0, **{k: list(v) for k, v in REGIONS.items()}}, "regions_class_order": [1, 2, 3]}
    for folder in (raw, pred):
        (folder / "dataset.json").write_text(json.dumps(content))
    (pred / "plans.json").write_text(json.dumps({"dataset_name": "Dataset812_Made"}))
    make_results(pred, cases)
    return tmp_path


def write(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")


@dataclass
class StubSection:
    html: str
    cases: list[str]
    notes: list[str] = field(default_factory=list)
    bytes: int = 1_500_000


@pytest.fixture
def given(monkeypatch):
    """Stands in for the viewer; keeps what it is given."""
    kept = {}

    def make(cases, max_bytes, colours, modalities):
        kept.update(cases=cases, max_bytes=max_bytes, colours=colours)
        return StubSection('<section id="viewer"><h2>Images</h2></section>', [c.name for c in cases])

    monkeypatch.setattr(viewer_module, "_make", make)
    monkeypatch.setattr(viewer_module, "_colours", lambda sources: {1: ("x", (1, 2, 3))})
    return kept


def test_files_of_the_chosen_cases_reach_the_viewer(tree, given):
    page = page_of(tree / "pred" / "metakd", viewer=True, max_mb=10)
    cases = {case.name: case for case in given["cases"]}
    raw = tree / "nnUNet_raw" / "Dataset812_Made"
    assert set(cases) == {"a", "b", "c"} and page.embedded == 3
    assert list(cases["a"].images) == MODALITIES and list(cases["b"].images) == MODALITIES[:3]
    assert cases["a"].images["t1"] == raw / "imagesTs" / "a_0001.nii.gz"
    assert cases["a"].gt == raw / "labelsTs" / "a.nii.gz"
    pred = tree / "pred" / "metakd"
    assert cases["a"].predictions == {"metakd": {s: pred / s / "a.nii.gz" for s in ("flair", "flair+t1")}}
    assert re.fullmatch(r"Dice \(%\): ET [\d.]+, TC [\d.]+, WT [\d.]+", cases["a"].scores["metakd"]["flair"])
    assert 8_000_000 < given["max_bytes"] < 10_000_000
    parsed = check_page(page.html)
    linked = {a["data-case"] for a in parsed.links if a.get("href") == "#viewer" and "data-case" in a}
    assert linked == {"a", "b", "c"}
    plot = re.search(r'<figure id="cases-plot">.*?</figure>', page.html, re.DOTALL)[0]
    assert plot.count('<a href="#viewer" data-case=') == 9
    assert "Images of 3 of 3 cases are here, 1.5 MB" in parsed.text


def test_named_cases_flags_and_a_case_without_images(tree, given):
    for channel in range(4):
        write(tree / "elsewhere" / f"c_{channel:04d}.nii.gz")
    write(tree / "truth" / "c.nii.gz")
    for file in (tree / "nnUNet_raw" / "Dataset812_Made" / "imagesTs").glob("a_*"):
        file.unlink()
    page = page_of(tree / "pred" / "metakd", viewer=True, cases=["c", "a"], images=str(tree / "elsewhere"),
                   gt=str(tree / "truth"))
    (case,) = given["cases"]
    assert case.name == "c" and case.images["flair"].parent.name == "elsewhere" and case.gt.parent.name == "truth"
    parsed = check_page(page.html)
    assert "No images of a were found" in parsed.text and "Images of 1 of 3 cases are here" in parsed.text
    assert {a["data-case"] for a in parsed.links if "data-case" in a} == {"c"}


def test_summary_sources_say_where_truth_and_predictions_are(tree, given):
    make_results(tree / "results", ["a", "b"], sources={"gt": str(tree / "gt"), "pred": str(tree / "pred" / "metakd")})
    write(tree / "gt" / "a.nii.gz")
    page_of(tree / "results", viewer=True)
    cases = {case.name: case for case in given["cases"]}
    assert cases["a"].gt == tree / "gt" / "a.nii.gz"
    assert cases["b"].gt == tree / "nnUNet_raw" / "Dataset812_Made" / "labelsTs" / "b.nii.gz"
    assert cases["a"].predictions["results"]["flair"] == tree / "pred" / "metakd" / "flair" / "a.nii.gz"


def test_a_viewer_that_fails_costs_only_itself(tree, monkeypatch):
    def fail(*_):
        raise NnmissError("no room")

    monkeypatch.setattr(viewer_module, "_make", fail)
    parsed = check_page(page_of(tree / "pred" / "metakd", viewer=True).html)
    assert "Images are not shown: no room" in parsed.text


def test_the_model_of_predictions_is_found(tree):
    model = tree / "nnUNet_results" / "Dataset812_Made" / "nnMissTrainerMetaKD__nnMissPlans__3d_fullres"
    fold = make_fold(model)
    (tree / "pred" / "metakd" / "flair" / "a.json").write_text(json.dumps({"model": {"folder": model.name, "folds": [0]}}))
    source = read_source(str(tree / "pred" / "metakd"))
    found, missing = find_trainings([source], [], find_places([source]))
    assert found == {"metakd": [fold]} and missing == []


def test_subset_names_in_another_order_are_the_same(tmp_path):
    make_results(tmp_path / "ours")
    path = tmp_path / "ours" / "results.csv"
    path.write_text(path.read_text().replace(",flair+t1,", ",T1+FLAIR,"))
    source = read_source(str(path))
    assert "flair+t1" in source.subsets and parse_subset("flair+t1", source.modalities) == (True, True, False, False)
