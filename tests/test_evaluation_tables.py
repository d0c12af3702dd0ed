"""The subset table reproduces MetaKD's Table 1: order of rows and blocks, ranks, Imprv, p-values, in both markups."""
from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from nnmiss.availability import all_subsets, subset_name
from nnmiss.errors import NnmissError
from nnmiss.evaluation.comparison import compare_methods, comparison_markdown
from nnmiss.evaluation.conventions import Conventions, metric_title
from nnmiss.evaluation.label_maps import Regions
from nnmiss.evaluation.markup import to_latex, to_markdown, to_text
from nnmiss.evaluation.publish import publish
from nnmiss.evaluation.results import Method, check_comparable, common_results, read_method
from nnmiss.evaluation.tables import build_table, ordered_regions

MODALITIES = ["flair", "t1", "t1ce", "t2"]
# Table 1, enhancing tumour: mmFormer, ShaSpec, MetaKD, printed improvement (6.26 is printed as 4.12, against its row)
ENHANCING = """39.33 43.52 47.37 8.85
32.53 41.00 44.94 9.60
72.60 73.29 76.22 4.00
43.05 46.31 46.93 1.34
42.96 44.76 49.64 10.90
75.07 75.60 77.49 2.50
47.52 47.20 50.27 5.79
74.04 75.76 75.41 -0.46
44.99 46.84 49.77 6.26
74.51 75.95 78.24 3.02
75.47 76.42 77.66 1.62
47.70 46.55 51.05 7.02
75.67 75.99 75.58 -0.54
74.75 76.37 75.87 -0.65
77.61 78.08 79.74 2.13"""
PRINTED = np.array([line.split() for line in ENHANCING.split("\n")], float)


def results_of(column, region="enhancing tumor", metric="dice", scale=0.01, cases=("a",)):
    """Long results whose row means are `column`; cases spread around them."""
    spread = np.linspace(-0.01, 0.01, len(cases)) if len(cases) > 1 else [0.0]
    names = [subset_name(s, MODALITIES) for s in all_subsets(4)]
    return pd.DataFrame([(case, name, region, metric, value * scale + offset) for case, offset in zip(cases, spread)
                         for name, value in zip(names, column)], columns=["case", "subset", "region", "metric", "value"])


def table_1(**options):
    methods = {"MetaKD": results_of(PRINTED[:, 2]), "mmFormer": results_of(PRINTED[:, 0]),
               "ShaSpec": results_of(PRINTED[:, 1])}
    return build_table(methods, MODALITIES, ["enhancing tumor"], "dice", Conventions(), **options)


def test_rows_are_the_published_ones():
    table = table_1()
    assert table.blocks == [("enhancing tumor", ["mmFormer", "ShaSpec", "MetaKD", "Imprv"])]
    for (present, cells, n), subset, printed in zip(table.rows, all_subsets(4), PRINTED, strict=True):
        assert present == subset and n == "1"
        assert [float(c.text.rstrip("%")) for c in cells] == pytest.approx(printed, abs=0.011)


def test_best_and_second_are_marked():
    table = table_1()
    for (_, cells, _), printed in zip(table.rows, PRINTED):
        order = np.argsort(-printed[:3])
        assert cells[order[0]].rank == "best" and cells[order[1]].rank == "second" and cells[order[2]].rank == ""
        assert cells[3].rank == ""


def test_average_and_p_value_rows_are_the_published_ones():
    (label, average), (p_label, p) = table_1(include_average=True).footers  # the paper rounds to 63.74 and 3.51
    assert label == "Average" and [c.text for c in average] == ["59.85", "61.58", "63.75", "3.52%"]
    assert p_label == "p-value (n = 16)" and [c.text for c in p] == ["6.2e-5", "7.3e-5", "-", "-"]
    (_, _), (p_label, p) = table_1().footers
    assert p_label == "p-value (n = 15)" and p[1].text == "1.7e-4"


def test_equal_printed_values_are_equally_marked():
    methods = {"a": results_of([50.001] * 15), "b": results_of([50.002] * 15), "c": results_of([40] * 15)}
    _, cells, _ = build_table(methods, MODALITIES, ["enhancing tumor"], "dice", Conventions()).rows[0]
    assert [c.rank for c in cells] == ["best", "second", "best", ""]  # b, c, a (ours), Imprv


def test_hd95_is_better_when_lower():
    methods = {name: results_of([mm] * 15, metric="hd95", scale=1) for name, mm in (("ours", 4), ("other", 5))}
    table = build_table(methods, MODALITIES, ["enhancing tumor"], "hd95", Conventions())
    _, cells, _ = table.rows[0]
    assert [(c.text, c.rank) for c in cells] == [("5.00", ""), ("4.00", "best"), ("20.00%", "")]
    assert "BraTS 2020" in table.caption and "mm" in table.caption and "n = 1 cases" in table.caption


def test_brats_blocks_are_et_tc_wt_whatever_their_order_and_names():
    assert list(ordered_regions(["whole tumor", "tumor core", "enhancing tumor"]).values()) == ["ET", "TC", "WT"]
    assert ordered_regions(["Enhancing", "WT", "core"]) == {"Enhancing": "ET", "core": "TC", "WT": "WT"}
    assert list(ordered_regions(["liver", "spleen"])) == ["liver", "spleen"]
    assert ordered_regions(["core", "liver"]) == {"core": "core", "liver": "liver"}


def test_suppressed_columns_follow_their_region_and_others_come_last():
    regions = ["whole_tumor", "tumor_core", "enhancing_tumor", "enhancing_tumor_suppressed", "resection_cavity"]
    assert list(ordered_regions(regions).items()) == [
        ("enhancing_tumor", "ET"), ("enhancing_tumor_suppressed", "ET suppressed"), ("tumor_core", "TC"),
        ("whole_tumor", "WT"), ("resection_cavity", "resection_cavity")]
    assert ordered_regions(["ET", "enhancing", "TC", "WT"])["ET"] == "ET"  # two are called so: no title can be given
    assert list(ordered_regions(["ET", "enhancing", "TC", "WT"])) == ["ET", "enhancing", "TC", "WT"]
    unordered = ["edema", "ET", "ET_suppressed"]
    assert list(ordered_regions(unordered).items()) == [(name, name) for name in unordered]


def test_lesion_wise_tables_say_their_rules():
    methods = {"ours": results_of([50] * 15, metric="lesion_dice"), "other": results_of([40] * 15, metric="lesion_dice")}
    table = build_table(methods, MODALITIES, ["enhancing tumor"], "lesion_dice", Conventions(lesionwise="2023-MET"))
    assert table.rows[0][1][0].text == "40.00" and table.rows[0][1][1].rank == "best"
    for part in ("Lesion-wise Dice (%)", "BraTS 2023 MET", "1 step of dilation", "up to 2 mm3", "score Dice 0"):
        assert part in table.caption
    methods = {"ours": results_of([5] * 15, metric="lesion_hd95", scale=1)}
    table = build_table(methods, MODALITIES, ["enhancing tumor"], "lesion_hd95", Conventions(lesionwise="2024"))
    for part in ("HD95 (mm, lower is better)", "BraTS 2024 GLI", "score HD95 337", "ET 3 and 10, NCR 5 and 20"):
        assert part in table.caption
    assert "not recorded" in Conventions().sentence("lesion_dice")


def test_regions_without_values_of_a_metric_are_left_out():
    results = pd.concat([results_of([50] * 15), results_of([9] * 15, metric="ece"),
                         results_of([40] * 15, region="enhancing tumor_suppressed")])
    regions = ["enhancing tumor", "enhancing tumor_suppressed"]
    assert len(build_table({"a": results}, MODALITIES, regions, "dice", Conventions()).blocks) == 2
    assert len(build_table({"a": results}, MODALITIES, regions, "ece", Conventions()).blocks) == 1


def test_scores_without_dice_are_published_too(tmp_path):
    """As a portal returns them: lesion-wise scores only."""
    results = pd.concat([results_of([5] * 15, metric="lesion_hd95", scale=1), results_of([50] * 15, metric="lesion_dice")])
    regions = Regions({"enhancing tumor": (3,)}, frozenset({0, 3}), None)
    other = Method("x", results_of([60] * 15, metric="lesion_dice"), None)
    summary = publish(tmp_path / "out", results, [], "ours", MODALITIES, regions, Conventions(lesionwise="2024"), [other],
                      sources={"portal": ["a.csv"]})
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["results.csv", "summary.json", "table.md", "table.tex"]
    assert summary["sources"] == {"portal": ["a.csv"]} and {e["metric"] for e in summary["comparison"]} == {"lesion_dice"}
    assert "x has no lesion-wise HD95: its table leaves it out" in summary["notes"]
    assert summary["mean_over_subsets"]["enhancing tumor"] == {"lesion_dice": 0.5, "lesion_hd95": 5}


def test_single_method_has_one_column_per_region_and_no_ranks():
    methods = {"ours": pd.concat([results_of([50] * 15, "core"), results_of([60] * 15, "whole_tumor")])}
    table = build_table(methods, MODALITIES, ["core", "whole_tumor"], "dice", Conventions())
    assert [label for label, _ in table.footers] == ["Average"]
    markdown, latex = to_markdown(table), to_latex(table)
    assert "| flair | t1 | t1ce | t2 | core | whole_tumor | n |" in markdown
    assert "| ● | ○ | ○ | ○ | 50.00 | 60.00 | 1 |" in markdown and "**" not in markdown
    assert r"{whole\_tumor}" in latex and r"\resizebox" not in latex


def test_rows_without_results_are_left_out_and_undefined_values_are_dashes():
    results = results_of([50] * 15)
    results = results[results["subset"].isin(["flair", "t1+t2"])].copy()
    results.loc[results["subset"] == "flair", "value"] = np.nan
    table = build_table({"ours": results}, MODALITIES, ["enhancing tumor"], "dice", Conventions(empty="nan"))
    assert [([c.text for c in cells], n) for _, cells, n in table.rows] == [(["-"], "0"), (["50.00"], "1")]
    assert table.footers[0][1][0].text == "50.00"


def test_n_counts_values_and_is_a_range_where_regions_or_methods_differ():
    cases = ("a", "b", "c")
    ours = pd.concat([results_of([50] * 15, region, cases=cases) for region in ("core", "lesion")])
    ours.loc[(ours["region"] == "core") & (ours["case"] != "a") & (ours["subset"] == "t1"), "value"] = np.nan
    table = build_table({"ours": ours}, MODALITIES, ["core", "lesion"], "dice", Conventions(empty="nan"))
    counts = {subset_name(present, MODALITIES): n for present, _, n in table.rows}
    assert counts["t1"] == "1\u20133" and counts["t2"] == "3" and "mean over n = 1\u20133 cases" in table.caption
    assert "| 1\u20133 |" in to_markdown(table) and r"& 1--3 \\" in to_latex(table) and "1\u20133" in to_text(table)
    whole = {"ours": results_of([50] * 15, "core", cases=cases), "x": ours[ours["region"] == "core"]}
    table = build_table(whole, MODALITIES, ["core"], "dice", Conventions(empty="nan"))
    assert [n for _, _, n in table.rows][:2] == ["3", "1\u20133"]


def test_units_of_titles_and_captions_are_the_same():
    voxels = Conventions(hd95_unit="voxels")
    for metric, unit in (("hd95", "voxels"), ("lesion_hd95", "mm"), ("dice", "%"), ("ece", "%")):
        table = build_table({"ours": results_of([5] * 15, metric=metric)}, MODALITIES, ["enhancing tumor"], metric, voxels)
        assert f"({unit}" in table.caption and metric_title(metric, voxels).endswith(f" ({unit})")
    assert "in voxels" in voxels.sentence("hd95") and "in mm" in Conventions().sentence("hd95")


def test_markdown_and_latex_of_a_comparison():
    table = table_1()
    markdown, latex = to_markdown(table), to_latex(table)
    assert "| ● | ○ | ○ | ○ | 39.33 | *43.52* | **47.37** | 8.85% | 1 |" in markdown
    assert r"$\bullet$ & $\circ$ & $\circ$ & $\circ$ & 39.33 & \textit{43.52} & \textbf{47.37} & 8.85\% & 1 \\" in latex
    assert r"\cmidrule(lr){1-4} \cmidrule(lr){5-8}" in latex
    body = [line for line in latex.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
    assert {line.count("&") for line in body} == {8} and len(body) == 1 + 15
    for rule in (r"\toprule", r"\midrule", r"\bottomrule"):
        assert rule in latex
    assert latex.count("{") == latex.count("}")
    assert len({len(line) for line in to_text(table).splitlines()[1:-2]}) == 1  # aligned


def test_comparison_over_cases_reports_holm_and_interval():
    cases = tuple("abcdefgh")
    methods = {"ours": results_of([60] * 15, cases=cases), "x": results_of([50] * 15, cases=cases),
               "y": results_of([60] * 15, cases=cases)}
    worse, equal = compare_methods(methods, ["enhancing tumor"], ["dice"])
    assert worse["case_test"]["mean_difference"] == pytest.approx(0.1)
    assert worse["case_test"]["p"] == pytest.approx(2 / 2**8) and np.isnan(equal["case_test"]["p"])
    assert "| Dice (%) | enhancing tumor | x | 8 | +10.00 |" in comparison_markdown([worse, equal])


def test_only_common_cases_are_compared_and_the_rest_is_noted():
    ours, other = results_of([60] * 15, cases=("a", "b")), results_of([50] * 15, cases=("b", "c"))
    kept, notes = common_results([Method("ours", ours, Conventions()), Method("x", other, Conventions())])
    assert {c for frame in kept.values() for c in frame["case"]} == {"b"}
    assert len(notes) == 2 and "15 of 30" in notes[0]


@pytest.mark.parametrize("other, message", [
    (Method("ours", results_of([1] * 15), Conventions()), "different names"),
    (Method("x", results_of([1] * 15, region="liver"), Conventions()), "liver"),
    (Method("x", results_of([1] * 15), Conventions(hd95="brats2023")), "other conventions"),
])
def test_what_cannot_be_compared_is_refused(other, message):
    with pytest.raises(NnmissError, match=message):
        check_comparable("ours", ["enhancing tumor"], Conventions(), [other])


def test_only_the_conventions_that_differ_are_named():
    def refusal(ours, theirs, **options):
        other = Method("x", pd.concat([results_of([1] * 15), results_of([1] * 15, metric="ece")]), theirs)
        with pytest.raises(NnmissError) as error:
            check_comparable("ours", ["enhancing tumor"], ours, [other], **options)
        return str(error.value)

    said = refusal(Conventions(), Conventions(hd95="brats2023", empty="nan"))
    assert "--hd95 is brats2020, theirs brats2023; --empty is brats, theirs nan" in said
    assert "percentile" not in said and "ece_bins" not in said
    assert "--ece_bins is 15, theirs 20" in refusal(Conventions(), Conventions(ece_bins=20), with_ece=True)
    assert "--et_min_voxels is 500, theirs not given" in refusal(Conventions(et_threshold=500), Conventions())
    assert "--lesionwise is 2023-GLI, theirs 2024-GLI" in refusal(Conventions(lesionwise="2023"),
                                                                Conventions(lesionwise="2024"))


@pytest.mark.parametrize("theirs", [Conventions(ece_bins=20), Conventions(lesionwise="2024"),
                                    Conventions(et_replace="ncr")])
def test_conventions_of_what_a_method_does_not_have_do_not_matter(theirs):
    assert check_comparable("ours", ["enhancing tumor"], Conventions(), [Method("x", results_of([1] * 15), theirs)]) == []


def test_methods_without_a_common_case_are_refused():
    ours, other = (Method(n, results_of([1] * 15, cases=(c,)), Conventions()) for n, c in (("ours", "a"), ("x", "z")))
    with pytest.raises(NnmissError, match="nothing to compare"):
        common_results([ours, other])


@pytest.mark.parametrize("content, message", [
    ("case,subset,region,value\na,t1,x,1\n", "columns must be case,subset,region,metric,value"),
    ("case,subset,region,metric,value\n", "no rows"),
    ("case,subset,region,metric,value\na,t1,x,dice,high\n", "'high'"),
    ("case,subset,region,metric,value\na,t3,x,dice,1\n", "t3"),
    ("case,subset,region,metric,value\na,t1+t2,x,dice,1\na,t2+t1,x,dice,1\n", "twice"),
])
def test_malformed_results_are_refused(tmp_path, content, message):
    (tmp_path / "results.csv").write_text(content)
    with pytest.raises(NnmissError, match=message):
        read_method(tmp_path, MODALITIES)


def test_method_is_named_by_its_folder_or_explicitly(tmp_path):
    folder = tmp_path / "rfnet"
    folder.mkdir()
    (folder / "results.csv").write_text("case,subset,region,metric,value\n001,t2+T1,x,dice,\nNA,t1,x,dice,0.5\n")
    assert read_method(folder, MODALITIES).name == read_method(folder / "results.csv", MODALITIES).name == "rfnet"
    method = read_method(f"RFNet (2021)={folder}", MODALITIES)
    assert method.name == "RFNet (2021)" and method.conventions is None
    assert list(method.results["case"]) == ["001", "NA"] and list(method.results["subset"]) == ["t1+t2", "t1"]
    with pytest.raises(NnmissError, match="not found"):
        read_method(tmp_path / "nothing", MODALITIES)
