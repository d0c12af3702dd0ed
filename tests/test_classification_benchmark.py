"""nnmiss_benchmark on classification: means over seeds, paired differences, jobs, and one run to the tables."""
from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from tiny_classification import DATASET, QUICK, make_classifier, prepare, set_folders, tiny_fold

from nnmiss.benchmark import classification_figure, classification_tables, page
from nnmiss.benchmark.classification import MEAN, WHOLE, compare, t_interval
from nnmiss.benchmark.classification_results import collect_results
from nnmiss.benchmark.collect import jobs_table, parameters
from nnmiss.benchmark.jobs import Conditions, make_jobs
from nnmiss.benchmark.variants import read_variants
from nnmiss.cli import benchmark, train
from nnmiss.errors import NnmissError
from nnmiss.evaluation.classification.measure import COLUMNS
from nnmiss.inference.checkpoints import write_checkpoint

PAIR = ["image", "sound"]
SUBSETS = ["image", "sound", "image+sound", "available"]


def made_jobs(tmp_path, lines, values, folds=(0,), seeds=(0, 1, 2), part="test", tables=(None,)):
    """Jobs whose results hold accuracy values(variant, table, seed, fold, subset) in 0..1, macro F1 0.1 below."""
    conditions = Conditions(DATASET, tmp_path / "out", "default", classification=True)
    jobs = make_jobs(conditions, read_variants(lines), list(tables), list(folds), list(seeds),
                     lambda variant, tag, fold: tmp_path / "results" / tag / f"fold_{fold}")
    for job in jobs:
        found = {s: values(job.variant.name, job.table, job.seed, job.fold, s) for s in SUBSETS}
        rows = [(s, "all", metric, v - offset, v - 0.1, v + 0.1, 50, 1000) for s, v in found.items() if v is not None
                for metric, offset in (("accuracy", 0), ("macro_f1", 0.1))]
        for name in ("validation", part):
            folder = job.fold_folder / name
            folder.mkdir(parents=True, exist_ok=True)
            pd.DataFrame(rows, columns=COLUMNS).to_csv(folder / "results.csv", index=False)
            (folder / "summary.json").write_text(json.dumps({"conventions": {"with_incomplete": False, "ece_bins": 15}}))
    return jobs


def noise(*parts):
    return 0.1 * np.random.default_rng(parts).random()


def comparison_of(jobs, reference="base"):
    results, _, _ = collect_results(jobs)
    return compare(results, jobs, jobs_table(jobs), reference, "multiclass", PAIR)


def test_means_are_over_folds_then_seeds_and_differences_are_paired(tmp_path):
    def values(variant, table, seed, fold, subset):
        return 0.5 + 0.05 * (variant == "better") + 0.01 * seed + 0.02 * fold + 0.1 * (subset == "image") + noise(
            len(variant), seed, fold, len(subset))

    jobs = made_jobs(tmp_path, ["base: fusion", "better: metakd"], values, folds=(0, 1), seeds=(0, 1, 2, 3))
    comparison = comparison_of(jobs)
    base, better = comparison.entries
    assert comparison.unit == "seed" and comparison.measures == [MEAN, WHOLE, *PAIR, "available"]

    def slow(variant, subsets):
        return [np.mean([100 * values(variant, "full", seed, fold, s) for s in subsets for fold in (0, 1)])
                for seed in range(4)]

    for measure, subsets in ((MEAN, SUBSETS[:3]), (WHOLE, ["image+sound"]), ("sound", ["sound"]),
                             ("available", ["available"])):
        ours, other = slow("better", subsets), slow("base", subsets)
        assert np.allclose(comparison.units(better, measure, "accuracy"), ours)
        found, expected = better.differences[measure, "accuracy"], stats.ttest_rel(ours, other)
        assert found.mean == pytest.approx(np.mean(ours) - np.mean(other))
        assert found.p == pytest.approx(expected.pvalue) and found.p_holm == pytest.approx(found.p)
        assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert base.against is None and better.differences[MEAN, "macro_f1"].mean == pytest.approx(
        better.differences[MEAN, "accuracy"].mean)


def test_pairs_are_of_the_same_seed_and_fold_and_holm_counts_variants(tmp_path):
    def values(variant, table, seed, fold, subset):
        gain = {"base": 0, "a": 0.01, "b": 0.02}[variant]
        return 0.2 + 0.1 * seed + gain + 0.003 * seed * (variant == "b")

    jobs = made_jobs(tmp_path, ["base: fusion", "a: metakd", "b: lckd"], values)
    gone = next(job for job in jobs if job.variant.name == "a" and job.seed == 1)
    (gone.fold_folder / "validation" / "summary.json").unlink()
    _, _, notes = collect_results(jobs)
    assert any("1 of 9 jobs are not finished" in note for note in notes)
    comparison = comparison_of(jobs)
    a, b = comparison.entries[1:]
    assert set(a.differences[WHOLE, "accuracy"].per_unit) == {"0", "2"}  # without the large step of seed 1
    assert a.differences[WHOLE, "accuracy"].mean == pytest.approx(1, abs=0.3)
    assert np.isnan(a.differences[WHOLE, "accuracy"].p)  # of two seeds there is no test
    assert b.differences[WHOLE, "accuracy"].p_holm == b.differences[WHOLE, "accuracy"].p > 0
    assert any("different finished seeds" in note for note in classification_tables.remarks(comparison))


def test_missing_tables_are_compared_under_the_same_one(tmp_path):
    def values(variant, table, seed, fold, subset):
        return {"full": 0.8, "rate10": 0.6}[table] + 0.05 * (variant == "a") + 0.001 * seed * (variant == "a")

    jobs = made_jobs(tmp_path, ["base: fusion", "a: metakd"], values, tables=(None, "rate10"))
    comparison = comparison_of(jobs)
    assert [e.label for e in comparison.entries] == ["base", "base [rate10]", "a", "a [rate10]"]
    assert [e.differences[WHOLE, "accuracy"].mean for e in comparison.entries[2:]] == pytest.approx([5.1, 5.1])
    jobs = made_jobs(tmp_path / "b", ["base: fusion --missing full", "a: metakd --missing rate10"], values)
    comparison = comparison_of(jobs)
    assert comparison.entries[1].against.missing == "full"
    assert any("not trained under the same missing table" in note for note in classification_tables.remarks(comparison))


def test_models_of_one_modality_stand_in_their_column_only(tmp_path):
    def values(variant, table, seed, fold, subset):
        if variant == "image only":
            return {"image": 0.7, "available": 0.7}.get(subset)
        return 0.6 + 0.01 * seed

    jobs = made_jobs(tmp_path, ["base: fusion", "image only: unimodal subset=image"], values)
    comparison = comparison_of(jobs)
    table = classification_tables.summary_table(comparison, "accuracy")
    assert table.header[:7] == ["variant", "missing", MEAN, WHOLE, *PAIR, "available"]
    assert table.lines[1][:7] == ["image only", "full", "-", "-", "70.00 ± 0.00", "-", "-"]
    differences = classification_tables.difference_table(comparison)
    assert [line[2] for line in differences.lines] == ["image"] and differences.lines[0][3] == "+9.00"


def test_one_seed_of_several_folds_is_repeated_over_folds_and_says_so(tmp_path):
    jobs = made_jobs(tmp_path, ["base: fusion", "a: metakd"], lambda v, t, s, f, subset: 0.5 + 0.1 * f * (v == "a"),
                     folds=range(5), seeds=(0,))
    comparison = comparison_of(jobs)
    assert comparison.unit == "fold"
    assert comparison.entries[1].differences[WHOLE, "accuracy"].mean == pytest.approx(20)
    assert any("share training samples" in note for note in classification_tables.remarks(comparison))
    assert comparison.entries[1].differences[WHOLE, "accuracy"].p == pytest.approx(
        stats.ttest_1samp([0, 10, 20, 30, 40], 0).pvalue)


def test_intervals_need_three_values_that_differ():
    assert np.isnan(t_interval(np.array([1.0, 2.0]))).all() and np.isnan(t_interval(np.array([1.0] * 5))).all()
    low, high, p = t_interval(np.array([1.0, 2.0, 3.0]))
    assert (low + high) / 2 == pytest.approx(2) and p == pytest.approx(stats.ttest_1samp([1, 2, 3], 0).pvalue)


def test_results_are_of_the_test_samples_where_there_are_some(tmp_path):
    jobs = made_jobs(tmp_path, ["base: fusion"], lambda *_: 0.5)
    assert all(job.results.parent.name == "test" and job.is_finished() for job in jobs)
    for name in ("results.csv", "summary.json"):
        (jobs[0].fold_folder / "test" / name).unlink()
    assert jobs[0].results.parent.name == "validation" and jobs[0].is_finished()
    assert any("they are not comparable" in note for note in collect_results(jobs)[2])
    (jobs[0].fold_folder / "validation" / "summary.json").unlink()
    assert not jobs[0].is_finished() and jobs[0].steps() == [jobs[0].train_command()]


def test_a_job_whose_test_samples_alone_are_predicted_is_not_done(tmp_path):
    """The test part is written first: a job that was killed then must not count."""
    (job,) = made_jobs(tmp_path, ["base: fusion"], lambda *_: 0.5, seeds=(0,))
    shutil.rmtree(job.fold_folder / "validation")
    assert not job.is_trained() and job.steps() == [job.train_command()]


def test_parameters_are_those_that_are_learned(tmp_path):
    (job,) = made_jobs(tmp_path, ["base: fusion"], lambda *_: 0.5, seeds=(0,))
    network = make_classifier("fusion", tiny_fold(("image", "sound"))).network  # the sound network normalises batches
    write_checkpoint(job.fold_folder / "checkpoint_final.pth", {"network_weights": network.state_dict()})
    assert parameters(job) == sum(parameter.numel() for parameter in network.parameters())


def test_results_that_do_not_fit_are_refused(tmp_path):
    jobs = made_jobs(tmp_path, ["base: fusion"], lambda *_: 0.5)
    file = jobs[1].fold_folder / "test" / "summary.json"
    file.write_text(json.dumps({"conventions": {"with_incomplete": True, "ece_bins": 15}}))
    with pytest.raises(NnmissError, match="with_incomplete True"):
        collect_results(jobs)
    (jobs[0].fold_folder / "test" / "results.csv").write_text("a,b\n1,2\n")
    with pytest.raises(NnmissError, match="columns must be"):
        collect_results(jobs)
    with pytest.raises(NnmissError, match="no job of this benchmark is finished"):
        collect_results([])


def test_page_and_figure(tmp_path):
    jobs = made_jobs(tmp_path, ["base: fusion", "a b: metakd", "i: unimodal subset=sound"],
                     lambda v, t, s, f, subset: 0.6 + noise(len(v), s, len(subset)))
    comparison = comparison_of(jobs)
    tables = classification_tables.tables(comparison)
    assert [t.title.split(":")[0] for t in tables] == ["Accuracy", "F1", "Differences to the reference"]
    text = page.to_markdown("T", "", tables, [], "b.png")
    widths = {len(line.split(" | ")) for line in text.splitlines() if line.startswith("| a b ")}
    assert len(widths) == 2 and r"\pm" in page.to_latex(tables)
    assert all(len(line) == len(table.header) for table in tables for line in table.lines)
    classification_figure.write_figure(comparison, tmp_path / "b.png")
    assert (tmp_path / "b.png").stat().st_size > 5000
    rows = {(r["variant"], r["measure"], r["metric"]) for r in classification_tables.difference_rows(comparison)}
    assert {("a b", MEAN, "macro_f1"), ("i", "sound", "accuracy")} <= rows


def test_from_trained_jobs_to_the_tables(tmp_path, monkeypatch, capsys):
    set_folders(monkeypatch, tmp_path)
    prepare(tmp_path, n=40)
    arguments = ["-d", DATASET, "-o", str(tmp_path / "bench"), "--runs", "fusion", "table: unimodal subset=table",
                 "--seeds", "0", "--set", "num_epochs=1", "-device", "cpu"]
    assert benchmark.run([*arguments, "--dry_run"]) == 0
    assert f"nnmiss_train {DATASET} fusion 0 -c default -p nnMissPlans --seed 0 --tag fusion-s0" in capsys.readouterr().out
    with pytest.raises(NnmissError, match="nothing to collect yet"):
        benchmark.run([*arguments, "--collect"])
    for method, tag, more in (("fusion", "fusion-s0", []), ("unimodal", "table-s0", ["--set", "subset=table"])):
        train.run([DATASET, method, "0", "--tag", tag, *QUICK, "--set", "num_epochs=1", *more])
    assert benchmark.run([*arguments, "--collect"]) == 0
    said = capsys.readouterr().out
    assert "Accuracy: means over seeds" in said and "fewer than 3 allow no interval" in said
    long = pd.read_csv(tmp_path / "bench" / "benchmark.csv")
    assert set(long["variant"]) == {"fusion", "table"} and {"value", "low", "high", "n", "resamples"} <= set(long.columns)
    text = (tmp_path / "bench" / "table.md").read_text()
    assert "the fold's test samples" in text and "Reference: fusion" in text
    jobs = pd.read_csv(tmp_path / "bench" / "jobs.csv")
    assert (jobs["state"] == "finished").all() and (jobs["parameters"] > 10).all()
    assert (tmp_path / "bench" / "benchmark.png").is_file() and (tmp_path / "bench" / "table.tex").is_file()


def test_what_is_for_segmentation_or_unknown_is_refused(tmp_path, monkeypatch):
    set_folders(monkeypatch, tmp_path)
    prepare(tmp_path, n=40)
    arguments = ["-d", DATASET, "-o", str(tmp_path / "bench"), "--dry_run", "--runs"]
    with pytest.raises(NnmissError, match="--test, --disable_tta is for segmentation"):
        benchmark.run([*arguments, "fusion", "--test", str(tmp_path), str(tmp_path), "--disable_tta"])
    with pytest.raises(NnmissError, match="is not for classification data sets"):
        benchmark.run([*arguments, "all_stage"])
    with pytest.raises(NnmissError, match="nothing was run, because"):
        benchmark.run([*arguments, "fusion no_such_setting=1"])
