"""nnmiss_evaluate on classification: which samples count, files, tables, comparisons and figures."""
from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from made_predictions import made_available, made_truth, write_made
from sklearn import metrics as sk

from nnmiss.cli import evaluate as command
from nnmiss.errors import NnmissError
from nnmiss.evaluation.classification.conventions import Conventions
from nnmiss.evaluation.classification.evaluate import evaluate_predictions
from nnmiss.evaluation.classification.folders import find_predictions
from nnmiss.evaluation.classification.measure import COLUMNS, measure
from nnmiss.evaluation.classification.publish import table_text
from nnmiss.evaluation.classification.tables import difference_table, label_table, model_tables
from nnmiss.evaluation.classification.truth import Truth, read_truth
from nnmiss.inference.prediction_files import FILE, write_predictions

FEW = Conventions(resamples=60)
PAIR = ["image", "sound"]


@pytest.fixture
def made(tmp_path):
    """(truth, available, folder of predictions) of two modalities and three classes."""
    truth = made_truth("multiclass", PAIR, ["a", "b", "c"])
    have = made_available(truth)
    return truth, have, write_made(tmp_path / "ours", truth, have, 1.0)


def value(results, subset, metric, label="all", column="value"):
    row = results[(results["subset"] == subset) & (results["metric"] == metric) & (results["label"] == label)]
    assert len(row) == 1
    return row[column].iloc[0]


def test_results_are_of_the_samples_that_have_the_whole_subset(made):
    truth, have, folder = made
    results = evaluate_predictions(truth, folder, conventions=FEW, figures=False)
    assert list(results.columns) == COLUMNS and results.attrs["errors"] == []
    assert list(dict.fromkeys(results["subset"])) == ["image", "sound", "image+sound", "available"]
    for subset, counts in (("image", have[:, 0]), ("image+sound", have.all(1)), ("available", have.any(1))):
        table = pd.read_csv(folder / subset / FILE, dtype={"sample_id": str}).set_index("sample_id")
        ids = [name for name, counted in zip(truth.ids, counts) if counted]
        chosen = table.loc[ids, ["a", "b", "c"]].to_numpy().argmax(1)
        accuracy = sk.accuracy_score(truth.targets[counts], chosen)
        assert value(results, subset, "accuracy") == pytest.approx(accuracy, abs=1e-12)
        assert value(results, subset, "accuracy", column="n") == counts.sum()
    numbers = {column: [""] for column in ("value", "low", "high")}
    stored = pd.read_csv(folder / "results.csv", keep_default_na=False, na_values=numbers)
    pd.testing.assert_frame_equal(stored, results, check_dtype=False)
    lacking = int(have.any(1).sum() - have.all(1).sum())
    assert any(f"image+sound {lacking} of 60" in note for note in results.attrs["notes"])
    everyone = evaluate_predictions(truth, folder, conventions=replace(FEW, with_incomplete=True), figures=False)
    assert value(everyone, "image+sound", "accuracy", column="n") == 60


def test_summary_says_what_was_done(made, tmp_path):
    truth, _, folder = made
    results = evaluate_predictions(truth, folder, tmp_path / "out", FEW, figures=False, name="mine")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["method"] == "mine" and summary["task"] == "multiclass" and summary["errors"] == []
    assert summary["conventions"]["resamples"] == 60 and "ties half" in summary["conventions"]["definitions"]["auroc"]
    found = summary["subsets"]["sound"]["metrics"]["auroc"]
    assert found["value"] == value(results, "sound", "auroc") and found["low"] <= found["value"] <= found["high"]
    three = [value(results, s, "macro_f1") for s in ("image", "sound", "image+sound")]
    assert summary["mean_over_subsets"]["macro_f1"] == pytest.approx(np.mean(three))


@pytest.mark.parametrize("task, classes", [("binary", ["no", "yes"]), ("multilabel", ["x", "y; z", "w, v"])])
def test_other_tasks(task, classes, tmp_path):
    groups = {"first two": classes[:2]} if task == "multilabel" else {}
    truth = made_truth(task, PAIR, classes, label_groups=groups)
    if task == "multilabel":
        truth.targets[:10, 0] = np.nan
    folder = write_made(tmp_path / "ours", truth, made_available(truth), 1.0)
    results = evaluate_predictions(truth, folder, conventions=FEW)
    assert value(results, "available", "auroc") > 0.6
    labels = set(results["label"])
    assert labels == ({"all", *classes} | set(groups))
    if task == "multilabel":
        assert [value(results, "available", "auroc", name, "n") for name in ("x", "all")] == [50, 60]
        of_two = [value(results, "sound", "auprc", name) for name in classes[:2]]
        assert value(results, "sound", "auprc", "first two") == pytest.approx(np.mean(of_two))
        assert (folder / "labels.png").is_file() and not (folder / "confusion.png").is_file()
    else:
        assert (folder / "confusion.png").is_file() and not (folder / "labels.png").is_file()
    assert (folder / "subsets.png").stat().st_size > 5000 and (folder / "reliability.png").stat().st_size > 5000


def test_undefined_metrics_are_empty_cells_and_named(tmp_path):
    truth = made_truth("multilabel", PAIR, ["x", "y"], n=20)
    truth.targets[:, 1] = 0
    folder = write_made(tmp_path / "ours", truth, np.ones((20, 2), bool), 1.0)
    results = evaluate_predictions(truth, folder, conventions=FEW, figures=False)
    assert np.isnan(value(results, "image", "auroc", "y")) and value(results, "image", "auroc", "y", "resamples") == 0
    assert value(results, "image", "auroc") == value(results, "image", "auroc", "x")
    assert "image,y,auroc,,,,20,0" in (folder / "results.csv").read_text()
    assert any("undefined" in note and " y in image" in note for note in results.attrs["notes"])


def test_unlabelled_and_unknown_samples(made):
    truth, _, folder = made
    truth.targets[:4] = -1
    results = evaluate_predictions(truth, folder, conventions=FEW, figures=False)
    assert value(results, "available", "accuracy", column="n") == 56
    assert any("4 predicted sample(s) are unlabelled" in note for note in results.attrs["notes"])
    known = replace(truth, ids=[f"t{i}" if i < 2 else name for i, name in enumerate(truth.ids)])
    results = evaluate_predictions(known, folder, conventions=FEW, figures=False)
    assert results.attrs["errors"] == ["2 predicted sample(s) are not in made: s000, s001"]
    with pytest.raises(NnmissError, match="no prediction that counts"):
        evaluate_predictions(replace(truth, ids=[f"t{i}" for i in range(60)]), folder, figures=False)


def shared_accuracy(folder):
    """Ours on the subset image in the first table, in 0..1."""
    line = next(line for line in (folder / "table.md").read_text().splitlines() if line.startswith("| ● | ○ "))
    return float(line.split(" | ")[3].strip("*")) / 100


def test_models_are_compared_on_the_samples_and_resamples_they_share(made, tmp_path):
    truth, have, folder = made
    other = write_made(tmp_path / "theirs", truth, have, 0.4, seed=5)
    table = pd.read_csv(other / "image" / FILE, dtype=str)
    table.iloc[5:].to_csv(other / "image" / FILE, index=False)
    shutil.rmtree(other / "sound")
    results = evaluate_predictions(truth, folder, tmp_path / "out", FEW, [f"Theirs={other}"], "ours", figures=True)
    alone = evaluate_predictions(truth, folder, tmp_path / "alone", FEW, figures=False)
    pd.testing.assert_frame_equal(results, alone, check_exact=True)  # our own results do not depend on the others
    differences = pd.read_csv(tmp_path / "out" / "comparison.csv")
    assert set(differences["subset"]) == {"image", "image+sound", "available"} and set(differences["other"]) == {"Theirs"}
    row = differences[(differences["subset"] == "image") & (differences["metric"] == "auroc") &
                      (differences["label"] == "all")].iloc[0]
    assert row["n"] == have[:, 0].sum() - 5
    ids = table["sample_id"][5:]
    place = {name: i for i, name in enumerate(truth.ids)}
    truths = truth.targets[[place[name] for name in ids]]
    areas = []
    for source in (folder, other):
        p = pd.read_csv(source / "image" / FILE, dtype={"sample_id": str}).set_index("sample_id").loc[ids, ["a", "b", "c"]]
        areas.append(np.mean([sk.roc_auc_score(truths == c, p.iloc[:, c]) for c in range(3)]))
    assert row["value"] == pytest.approx(areas[0] - areas[1], abs=1e-12) and row["low"] < row["value"] < row["high"]
    text = (tmp_path / "out" / "table.md").read_text()
    assert "Accuracy Theirs" in text and "p-value (n = 2)" in text and "## Differences" in text
    average = np.mean([100 * value(alone, "image+sound", "accuracy"), 100 * shared_accuracy(tmp_path / "out")])
    assert f"| **{average:.2f}**" in next(line for line in text.splitlines() if line.startswith("| Average"))
    notes = results.attrs["notes"]
    assert any("subset sound: no predictions of Theirs" in note for note in notes)
    assert any("subset image: compared on the" in note for note in notes)
    with pytest.raises(NnmissError, match="different names"):
        evaluate_predictions(truth, folder, tmp_path / "out", FEW, [f"ours={other}"], "ours")


def test_against_itself_nothing_differs(made, tmp_path):
    truth, _, folder = made
    shutil.copytree(folder, tmp_path / "copy")
    evaluate_predictions(truth, folder, tmp_path / "out", FEW, [tmp_path / "copy"], figures=False)
    differences = pd.read_csv(tmp_path / "out" / "comparison.csv")
    assert (differences[["value", "low", "high"]].fillna(0) == 0).all(axis=None)


# ---- tables -----------------------------------------------------------------------------------------------------


def evaluation_of(tmp_path, truth, skills=(1.0, 0.5)):
    have = made_available(truth)
    models = [find_predictions(write_made(tmp_path / f"m{i}", truth, have, skill, i), truth.modalities, truth.classes,
                               truth.task) for i, skill in enumerate(skills)]
    return measure(truth, models, FEW)


def test_tables_have_the_papers_layouts(tmp_path):
    evaluation = evaluation_of(tmp_path, made_truth("multiclass", ["c", "g", "b", "i"], ["CN", "MCI", "AD"], n=90))
    lines = table_text(evaluation).splitlines()
    assert len(lines) == 1 + 15 + 3  # MetaKD's Table 2: a row per subset, average and p-value; and what there is
    assert re.sub(" +", " ", lines[0]).strip() == ("c g b i Accuracy m1 Accuracy m0 Accuracy Imprv F1 m1 F1 m0 F1 Imprv n")
    assert lines[1].startswith("● ○ ○ ○") and lines[15].startswith("● ● ● ●")
    assert [line.split()[0] for line in lines[16:]] == ["Average", "p-value", "Available"]
    first = model_tables(evaluation)[0]
    assert first.header == ["model", "Accuracy", "F1", "Accuracy", "F1"]
    assert [title.partition(" ")[0] for title, _ in first.groups] == ["", "c+g+b+i", "available"]
    assert re.fullmatch(r"[01]\.\d{3} \([01]\.\d{3}, [01]\.\d{3}\)", first.lines[1][1].text)
    assert [line[0].text for line in first.lines] == ["m1", "m0"]
    assert sum(cell.rank == "best" for line in first.lines for cell in line) >= 4
    labels = label_table(evaluation)
    assert [line[0].text for line in labels.lines] == ["CN", "MCI", "AD"]
    assert len(difference_table(evaluation).lines) == 16


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no TeX engine (pdflatex) on this machine")
@pytest.mark.parametrize("task, modalities, classes, models", [
    ("multiclass", ["c_1", "g&%", "b", "i"], ["CN", "MCI", "AD"], 3),
    ("multilabel", PAIR, [f"label {i}" for i in range(40)], 1),
    ("binary", PAIR, ["no", "yes_#"], 2)])
def test_pdflatex_sets_the_tables(tmp_path, task, modalities, classes, models):
    truth = made_truth(task, modalities, classes)
    have, folders = made_available(truth), []
    for i in range(models):
        folders.append(write_made(tmp_path / f"model_{i}", truth, have, 1.0 - 0.3 * i, i))
    evaluate_predictions(truth, folders[0], tmp_path / "tex", FEW, folders[1:], figures=False)
    tex = (tmp_path / "tex" / "table.tex").read_text()
    packages = "\n".join(dict.fromkeys(re.findall(r"^% Needs (\\usepackage\{[a-z,]+\})", tex, re.M)))
    document = "\\documentclass{article}\n%s\n\\begin{document}\n\\input{table}\n\\end{document}\n"
    (tmp_path / "tex" / "main.tex").write_text(document % packages)
    for _ in range(2):
        run = subprocess.run(["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "main"], cwd=tmp_path / "tex",
                             capture_output=True, text=True, errors="replace", timeout=120)
        assert run.returncode == 0, run.stdout[-2000:]
    assert "Overfull" not in run.stdout and "Float too large" not in run.stdout


# ---- folders of predictions -------------------------------------------------------------------------------------


def one_file(path, truth, used):
    path.parent.mkdir(parents=True, exist_ok=True)
    n = len(truth.ids)
    write_predictions(path, truth.ids, np.full((n, 3), 1 / 3), truth.task, truth.classes, used)


def test_a_single_file_is_of_what_its_record_or_its_column_says(made, tmp_path):
    truth = made[0]
    whole, mixed = ["image+sound"] * 60, ["image+sound"] * 59 + ["image"]
    for name, used, record, expected in (
            ("a", whole, None, "image+sound"), ("b", mixed, None, "available"), ("c", whole, "available", "available"),
            ("d", mixed, "SOUND+image", "image+sound")):
        one_file(tmp_path / name / FILE, truth, used)
        if record:
            (tmp_path / name / "predictions.json").write_text(json.dumps({"shown": record}))
        assert list(find_predictions(tmp_path / name, PAIR, truth.classes, truth.task).subsets) == [expected]


def test_folders_that_cannot_be_used_are_named(made, tmp_path):
    truth, _, folder = made

    def find(path):
        return find_predictions(path, PAIR, truth.classes, truth.task)

    with pytest.raises(NnmissError, match="does not exist"):
        find(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(NnmissError, match=r"neither predictions\.csv"):
        find(tmp_path / "empty")
    one_file(folder / "smell" / FILE, truth, ["image"] * 60)
    one_file(folder / "sound+image" / FILE, truth, ["image+sound"] * 60)
    found = find(folder)
    assert len(found.errors) == 2 and "smell" in found.errors[0] and "which another folder is of too" in found.errors[1]
    assert list(found.subsets) == ["image", "sound", "image+sound", "available"]
    one_file(folder / FILE, truth, ["image"] * 60)
    with pytest.raises(NnmissError, match="holds both"):
        find(folder)


def test_names_that_results_could_not_tell_apart_are_refused():
    with pytest.raises(NnmissError, match="'all' would name two rows"):
        Truth(["a"], ["a"], np.zeros(1, int), "multiclass", ["all", "b"], PAIR)
    with pytest.raises(NnmissError, match="'b' would name two rows"):
        Truth(["a"], ["a"], np.zeros((1, 2)), "multilabel", ["a", "b"], PAIR, {"b": ["a"]})


# ---- the command ------------------------------------------------------------------------------------------------


def write_dataset(folder, truth):
    """A raw data set's dataset.json and manifest.csv for a made truth."""
    folder.mkdir()
    content = {"name": "made", "task": "multiclass", "labels": {str(i): c for i, c in enumerate(truth.classes)},
               "modalities": {m: {"type": "array", "file": f"{m}.npz"} for m in truth.modalities}}
    (folder / "dataset.json").write_text(json.dumps(content))
    pd.DataFrame({"sample_id": truth.ids, "subject_id": truth.subjects, "label": truth.targets}).to_csv(
        folder / "manifest.csv", index=False)
    return folder


def test_the_command_reads_the_data_set_and_says_what_it_wrote(made, tmp_path, capsys):
    truth, _, folder = made
    raw = write_dataset(tmp_path / "raw", truth)
    read = read_truth(raw)
    assert (read.ids, read.classes, read.modalities) == (truth.ids, truth.classes, PAIR)
    assert np.array_equal(read.targets, truth.targets) and read.subjects == truth.subjects
    assert command.run(["-gt", str(raw), "-pred", str(folder), "-o", str(tmp_path / "out"), "--resamples", "50",
                        "--resample", "subject", "--seed", "3", "--ece_bins", "10", "--name", "mine"]) == 0
    said = capsys.readouterr().out
    assert "Average" in said and "subsets.png" in said and "confusion.png" in said
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [summary["conventions"][k] for k in ("resamples", "resample", "seed", "ece_bins")] == [50, "subject", 3, 10]
    one_file(folder / "smell" / FILE, truth, ["image"] * 60)
    assert command.run(["-gt", str(raw), "-pred", str(folder), "--resamples", "0"]) == 1
    assert "smell" in capsys.readouterr().err


def test_flags_of_the_other_kind_are_refused(made, tmp_path):
    truth, _, folder = made
    raw = write_dataset(tmp_path / "raw", truth)
    with pytest.raises(NnmissError, match="--hd95, --include_average is for segmentation only"):
        command.run(["-gt", str(raw), "-pred", str(folder), "--hd95", "none", "--include_average"])
    with pytest.raises(NnmissError, match="--resamples is for classification"):
        command.run(["-gt", str(tmp_path), "-pred", str(folder), "--resamples", "10"])
    with pytest.raises(NnmissError, match="resamples is -1"):
        command.run(["-gt", str(raw), "-pred", str(folder), "--resamples", "-1"])
