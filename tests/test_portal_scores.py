"""nnmiss_import_brats_scores: the score tables of IPP and Synapse become results; what is wrong in them is named."""
from __future__ import annotations

import json
import sys

import numpy as np
import pandas as pd
import pytest

from nnmiss.brats_years import find_challenge
from nnmiss.cli import import_brats_scores as command
from nnmiss.errors import NnmissError
from nnmiss.evaluation.results import read_method
from nnmiss.export.import_scores import import_portal_scores
from nnmiss.export.portal_csv import read_portal_csv
from nnmiss.export.portal_scores import read_portal_scores

MODALITIES = ["flair", "t1", "t1ce", "t2"]
IPP_COLUMNS = [f"{m}_{r}" for m in ("Dice", "Sensitivity", "Specificity", "Hausdorff95") for r in ("ET", "WT", "TC")]


def scores(columns, cases, seed=0):
    values = np.random.default_rng(seed).random((len(cases), len(columns)))
    table = pd.DataFrame(values, columns=columns, index=cases)
    table.loc[:, [c for c in columns if "Hausdorff" in c or "hd95" in c]] *= 20
    return table


def ipp(path, seed=0, n=6, edit=None, columns=IPP_COLUMNS):
    """As IPP's Stats_Validation_final.csv: five digits, Mean, StdDev, Median and quantiles below. `edit` changes rows."""
    table = scores(columns, [f"BraTS20_Validation_{i:03d}" for i in range(1, n + 1)], seed).round(5)
    below = pd.DataFrame([table.mean(), table.std(), table.median(), table.quantile(0.25), table.quantile(0.75)],
                         index=["Mean", "StdDev", "Median", "25quantile", "75quantile"]).round(5)
    lines = pd.concat([table, below]).to_csv(index_label="Label").splitlines()
    path.write_text("\n".join(edit(lines) if edit else lines) + "\n")
    return table


def synapse(folder, name="GLI", n=5, regions=("ET", "TC", "WT"), full="all_legacy_scores.csv"):
    """As Synapse 2023 to 2025: lesion-wise and whole-region scores in two files, nothing above the case ids."""
    lesion = [f"{m}_{r}" for m in ("LesionWise_Dice", "LesionWise_Hausdorff95", "Num_TP", "Num_FP") for r in regions]
    whole = [f"{m}_{r}" for m in ("Dice", "Hausdorff95", "Sensitivity", "Specificity") for r in regions]
    table = scores(lesion + whole, [f"BraTS-{name}-{i:05d}-000" for i in range(n)])
    below = table.describe().rename(index={"25%": "25quantile", "50%": "median", "75%": "75quantile"})
    everything = pd.concat([table, below.drop(["count", "min", "max"])])
    everything.to_csv(folder / "all_scores.csv", columns=lesion)
    everything.to_csv(folder / full, columns=whole)
    return table


def value(results, case, region, metric, subset="flair+t1+t1ce+t2"):
    row = results[(results["case"] == case) & (results["region"] == region) & (results["metric"] == metric)
                  & (results["subset"] == subset)]
    assert len(row) == 1
    return row["value"].iloc[0]


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["nnmiss_import_brats_scores", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        command.main()
    return stop.value.code


def test_ipp_every_value_arrives(tmp_path):
    table = ipp(tmp_path / "a.csv")
    other = ipp(tmp_path / "b.csv", seed=1, n=4)
    found = read_portal_scores([str(tmp_path / "a.csv"), f"t2+FLAIR={tmp_path / 'b.csv'}"], MODALITIES)
    assert found.errors == [] and found.notes == []
    assert len(found.results) == (6 + 4) * 12 and set(found.results["subset"]) == {"flair+t1+t1ce+t2", "flair+t2"}
    names = {"ET": "enhancing_tumor", "WT": "whole_tumor", "TC": "tumor_core"}
    metrics = {"Dice": "dice", "Sensitivity": "sensitivity", "Specificity": "specificity", "Hausdorff95": "hd95"}
    for source, subset in ((table, "flair+t1+t1ce+t2"), (other, "flair+t2")):
        for case, row in source.iterrows():
            for column, expected in row.items():
                metric, region = column.split("_")
                assert value(found.results, case, names[region], metrics[metric], subset) == expected


def test_synapse_two_files_are_one_table(tmp_path):
    table = synapse(tmp_path)
    done = import_portal_scores([str(tmp_path / "all_scores.csv"), str(tmp_path / "all_legacy_scores.csv")],
                                tmp_path / "out", MODALITIES, challenge=find_challenge(2023))
    assert done.errors == [] and len(done.results) == 5 * 3 * 6
    case = table.index[3]
    assert value(done.results, case, "tumor_core", "lesion_hd95") == table.loc[case, "LesionWise_Hausdorff95_TC"]
    assert value(done.results, case, "tumor_core", "hd95") == table.loc[case, "Hausdorff95_TC"]
    conventions = done.summary["conventions"]
    assert conventions["hd95"] == "brats2023" and conventions["lesionwise"] == "2023-GLI"
    mean = done.summary["subsets"]["flair+t1+t1ce+t2"]["regions"]["whole_tumor"]["lesion_dice"]["mean"]
    assert mean == pytest.approx(table["LesionWise_Dice_WT"].mean())
    assert any("left out: Num_TP_ET" in note for note in done.notes)


def test_imported_results_are_an_evaluation_that_others_compare_with(tmp_path):
    ipp(tmp_path / "a.csv")
    ipp(tmp_path / "b.csv", seed=5)
    first = import_portal_scores([str(tmp_path / "a.csv"), f"t1={tmp_path / 'b.csv'}"], tmp_path / "ours", MODALITIES)
    assert {p.name for p in (tmp_path / "ours").iterdir()} >= {"results.csv", "summary.json", "table.md", "table.tex",
                                                               "heatmap.png"}
    again = read_method(tmp_path / "ours", MODALITIES)
    pd.testing.assert_frame_equal(again.results, first.results, check_dtype=False)
    assert again.conventions.hd95 == "brats2020" and again.conventions.hd95_unit == "mm"  # by the form of the ids
    summary = json.loads((tmp_path / "ours" / "summary.json").read_text())
    assert summary["sources"] == {"portal": [str((tmp_path / n).resolve()) for n in ("a.csv", "b.csv")]}
    second = import_portal_scores([str(tmp_path / "b.csv"), f"t1={tmp_path / 'a.csv'}"], tmp_path / "theirs", MODALITIES,
                                  compare=[tmp_path / "ours"])
    assert second.summary["comparison"] and "ours" in (tmp_path / "theirs" / "table.md").read_text()


def test_regions_are_those_of_the_data_set(tmp_path):
    synapse(tmp_path, regions=("ET", "TC", "WT", "RC", "NETC", "SNFH"), full="all_full_scores.csv")
    dataset = {"labels": {"background": 0, "whole tumour": [1, 2, 3], "ET": 3, "Resection-Cavity": 4, "ventricle": 5}}
    done = import_portal_scores([str(tmp_path / "all_full_scores.csv")], tmp_path / "out", MODALITIES, dataset,
                                find_challenge(2024))
    assert set(done.results["region"]) == {"whole tumour", "ET", "Resection-Cavity"}
    assert any("regions of the data set without scores were left out: ventricle" in n for n in done.notes)
    assert any("does not have were left out: tumor_core" in n for n in done.notes)
    with pytest.raises(NnmissError, match="none is the same region"):
        import_portal_scores([str(tmp_path / "all_full_scores.csv")], tmp_path / "out", MODALITIES,
                             {"labels": {"background": 0, "liver": 1}}, find_challenge(2024))


def test_brats_2024_without_a_data_set(tmp_path):
    synapse(tmp_path, regions=("ET", "TC", "WT", "RC", "NETC", "SNFH"), full="all_full_scores.csv")
    done = import_portal_scores([str(tmp_path / f"all_{x}scores.csv") for x in ("", "full_")], tmp_path / "out", MODALITIES,
                                challenge=find_challenge(2024))
    assert list(done.summary["regions"]) == ["whole_tumor", "tumor_core", "enhancing_tumor", "resection_cavity"]
    assert done.summary["conventions"]["lesionwise"] == "2024-GLI"


def test_penalties_are_counted(tmp_path):
    def edit(lines):
        cells = lines[2].split(",")
        cells[1], cells[10] = "0.0", "373.12866"
        return [lines[0], lines[1], ",".join(cells), *lines[3:7]]

    ipp(tmp_path / "a.csv", edit=edit)
    done = import_portal_scores([str(tmp_path / "a.csv")], tmp_path / "out", MODALITIES)
    regions = done.summary["subsets"]["flair+t1+t1ce+t2"]["regions"]
    assert regions["enhancing_tumor"]["n_one_empty"] == 1 and regions["whole_tumor"]["n_one_empty"] == 0


def replaced(line, column, text):
    def edit(lines):
        cells = lines[line].split(",")
        cells[column] = text
        return [*lines[:line], ",".join(cells), *lines[line + 1:]]
    return edit


@pytest.mark.parametrize(("edit", "message"), [
    (replaced(2, 3, "good"), "case BraTS20_Validation_002: not a number: Dice_TC 'good'"),
    (lambda lines: [*lines[:2], "BraTS20_Validation_002,GroundTruthSeg/NotFound", *lines[3:]],
     "case BraTS20_Validation_002: the portal found no ground truth"),
    (lambda lines: [*lines[:3], lines[2], *lines[3:]], "case BraTS20_Validation_002 stands there twice, again in line 4"),
    (lambda lines: [*lines[:2], lines[2] + ",1", *lines[3:]], "case BraTS20_Validation_002: line 3 has 14 columns"),
    (lambda lines: [*lines[:2], "BraTS20_Validation_002" + "," * 12, *lines[3:]],
     "case BraTS20_Validation_002: no value at all"),
    (replaced(2, 0, " "), "line 3 has no case id")])
def test_bad_rows_are_named_and_the_others_kept(tmp_path, edit, message):
    ipp(tmp_path / "a.csv", edit=edit)
    table = read_portal_csv(tmp_path / "a.csv")
    assert len(table.errors) == 1 and message in table.errors[0]
    assert len({case for case, *_ in table.rows}) == (6 if "twice" in message else 5)


@pytest.mark.parametrize(("edit", "message"), [
    (replaced(7, 1, "0.9"), "the file's mean of Dice_ET is 0.9, that of its 6 rows is 0.514027"),
    (lambda lines: [*lines[:5], *lines[7:]], "rows are missing or were changed"),
    (lambda lines: lines[:7], "no rows of means at the end"),
    (replaced(2, 12, "nan"), "Hausdorff95_TC is undefined for 1 of 6 cases"),
    (replaced(2, 12, "inf"), "Hausdorff95_TC is undefined for 1 of 6 cases"),
    (replaced(2, 0, "BraTS20_Validation_002*"), "case BraTS20_Validation_002 is marked with *"),
    (lambda lines: [line + ("," + ("Foo" if k == 0 else "1")) for k, line in enumerate(lines)],
     "unknown columns were left out: Foo")])
def test_what_is_worth_knowing_is_noted(tmp_path, edit, message):
    ipp(tmp_path / "a.csv", edit=edit)
    table = read_portal_csv(tmp_path / "a.csv")
    assert table.errors == [] and any(message in note for note in table.notes), table.notes
    assert {case for case, *_ in table.rows} <= {f"BraTS20_Validation_{i:03d}" for i in range(1, 7)}


def test_means_of_other_rows_are_one_note_and_none_where_a_row_was_rejected(tmp_path):
    ipp(tmp_path / "a.csv", edit=lambda lines: [*lines[:5], *lines[6:]])
    (note,) = read_portal_csv(tmp_path / "a.csv").notes
    assert "mean of Dice_ET" in note and "and 11 more columns differ" in note
    ipp(tmp_path / "a.csv", edit=replaced(2, 3, "good"))
    assert read_portal_csv(tmp_path / "a.csv").notes == []


def test_ids_of_another_year_than_said(tmp_path):
    ipp(tmp_path / "a.csv")
    with pytest.raises(NnmissError, match=r"the ids, as BraTS20_\S+_001, are of BraTS 2020 GLI .* leave --year out"):
        import_portal_scores([str(tmp_path / "a.csv")], tmp_path / "out", MODALITIES, challenge=find_challenge(2023))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("names", [("25%", "50%", "75%"),
                                   ("quantile25", "median", "quantile75"), ("25Quantile", "Median", "75QUANTILE")])
def test_quantiles_are_no_cases(tmp_path, names):
    def edit(lines):
        for k, (old, new) in enumerate(zip(("Median", "25quantile", "75quantile"), names)):
            lines[9 + k] = lines[9 + k].replace(old, new)
        return lines

    ipp(tmp_path / "a.csv", edit=edit)
    table = read_portal_csv(tmp_path / "a.csv")
    assert table.errors == [] and len({case for case, *_ in table.rows}) == 6


def test_rows_below_the_means_that_are_no_cases_are_errors(tmp_path):
    def edit(lines):
        return [*lines[:8], lines[6].replace("BraTS20_Validation_006", "iqr"), *lines[8:],
                lines[6].replace("BraTS20_Validation_006", "BraTS20_Validation_007")]

    ipp(tmp_path / "a.csv", edit=edit)
    table = read_portal_csv(tmp_path / "a.csv")
    assert len(table.errors) == 1 and "line 9, 'iqr', stands below rows of means" in table.errors[0]
    assert sorted({case for case, *_ in table.rows}) == [f"BraTS20_Validation_{i:03d}" for i in range(1, 8)]


def test_rounding_of_the_means_is_no_difference(tmp_path):
    for seed in range(20):
        ipp(tmp_path / "a.csv", seed=seed, n=125)
        assert read_portal_csv(tmp_path / "a.csv").notes == []


def test_positions_where_names_are_unknown(tmp_path):
    columns = [f"column {k}" for k in range(12)]
    table = ipp(tmp_path / "a.csv", columns=columns)
    read = read_portal_csv(tmp_path / "a.csv")
    assert "taken by IPP's order" in read.notes[0]
    found = {(case, region, metric): v for case, region, metric, v in read.rows}
    case = table.index[0]
    assert len(found) == 36
    for k, region in enumerate(("enhancing_tumor", "whole_tumor", "tumor_core")):
        assert found[case, region, "dice"] == table.iloc[0, k] and found[case, region, "hd95"] == table.iloc[0, 9 + k]


def test_2026_and_gandlf_column_names(tmp_path):
    columns = [f"lesionwise_{m}_{r}" for m in ("dsc_mean", "hd95_mean", "nsd_mean") for r in ("et", "rc", "wt")]
    table = scores(columns, ["BraTS-MET-00132-000-seg.nii.gz"])
    table.to_csv(tmp_path / "a.csv", index_label="subject_id")
    found = {row[:3]: row[3] for row in read_portal_csv(tmp_path / "a.csv").rows}
    assert len(found) == 6 and found["BraTS-MET-00132-000", "resection_cavity", "lesion_hd95"] == pytest.approx(
        table.iloc[0, 4])
    scores([f"{r}_global_bin_{m}" for r in ("et", "tc", "wt") for m in ("dsc", "nsd")],
           ["BraTS-MET-00132-000"]).to_csv(tmp_path / "b.csv", index_label="scan_id")
    assert {row[2] for row in read_portal_csv(tmp_path / "b.csv").rows} == {"dice"}


@pytest.mark.parametrize(("content", "message"), [
    ("", "is empty"), ("Label\na\n", "has one column"), ("Label;Dice_ET\na;1\n", "has one column"),
    ("Label,foo\na,1\n", "no column of scores"), ("BraTS20_Validation_001,0.5,0.6\n", "has no header"),
    ("color,Dice_ET\na,1\n", "the first column is 'color'"), ("\x00,\x00\x01", "CSV|no column"),
    ("Labels,Dice,Hausdorff95\nET,0.5,3\n", "no column of scores"), (None, "not found")])
def test_what_is_no_score_table(tmp_path, content, message):
    path = tmp_path / "a.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(NnmissError, match=message):
        read_portal_csv(path)


def test_refusals(tmp_path):
    ipp(tmp_path / "a.csv")
    synapse(tmp_path)
    a, b = str(tmp_path / "a.csv"), str(tmp_path / "b.csv")
    ipp(tmp_path / "b.csv")
    for specifications, message in (([f"t1={a}", a, f"t1={b}"], f"{a} and {b} both give dice"),
                                    ([f"t3={a}"], "'t3' is not in this data set"),
                                    ([str(tmp_path / "a.zip")], "not a CSV")):
        with pytest.raises(NnmissError, match=message):
            read_portal_scores(specifications, MODALITIES)
    other = scores(IPP_COLUMNS, ["anna", "ben"])
    other.to_csv(tmp_path / "own.csv", index_label="Label")
    with pytest.raises(NnmissError, match="give --year"):
        import_portal_scores([str(tmp_path / "own.csv")], tmp_path / "out", MODALITIES)
    assert not (tmp_path / "out").exists()
    done = import_portal_scores([str(tmp_path / "own.csv")], tmp_path / "out", MODALITIES, challenge=find_challenge(2021))
    assert done.summary["conventions"]["hd95"] == "brats2020"


def test_command(tmp_path, monkeypatch, capsys):
    ipp(tmp_path / "a.csv", edit=replaced(2, 3, "good"))
    ipp(tmp_path / "b.csv", seed=1)
    common = ["-o", tmp_path / "out", "--modalities", *MODALITIES]
    assert run(monkeypatch, "-i", tmp_path / "b.csv", *common, "--name", "portal") == 0
    out = capsys.readouterr().out
    assert "Dice (%)" in out and "●   ●   ●   ●" in out and str(tmp_path / "out" / "table.md") in out
    dataset = {"channel_names": dict(enumerate(MODALITIES)), "labels": {"background": 0, "WT": [1, 2], "ET": 2}}
    (tmp_path / "raw" / "Dataset820_BraTS").mkdir(parents=True)
    (tmp_path / "raw" / "Dataset820_BraTS" / "dataset.json").write_text(json.dumps(dataset))
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    assert run(monkeypatch, "-i", tmp_path / "b.csv", "-o", tmp_path / "of820", "-d", "820") == 0
    sources = json.loads((tmp_path / "of820" / "summary.json").read_text())["sources"]
    assert sources == {"portal": [str((tmp_path / "b.csv").resolve())], "dataset": "Dataset820_BraTS"}
    assert run(monkeypatch, "-i", f"t2={tmp_path / 'a.csv'}", tmp_path / "b.csv", *common) == 1
    captured = capsys.readouterr()
    assert "error: " in captured.err and "not a number: Dice_TC 'good'" in captured.err
    assert "1 error: what it names is not in the results" in captured.err
    assert len(pd.read_csv(tmp_path / "out" / "results.csv")) == (5 + 6) * 12
    for wrong, message in ((["--year", "2017"], "no BraTS challenge"), (["--challenge", "PED"], "--challenge needs --year"),
                           (["--modalities", "a"], "at least two modalities")):
        assert run(monkeypatch, "-i", tmp_path / "b.csv", *common, *wrong) == 1
        assert message in capsys.readouterr().err
