"""nnmiss_benchmark: its list of variants, its jobs, the statistics over seeds, and one run from jobs to tables."""
from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from tiny_dataset import DATASET, PLANS

from nnmiss.availability import all_subsets, subset_name
from nnmiss.benchmark import figure, page, report
from nnmiss.benchmark.collect import jobs_table
from nnmiss.benchmark.comparison import ALL, FULL_SET, ONE, choose_reference, compare
from nnmiss.benchmark.jobs import Conditions, make_jobs
from nnmiss.benchmark.run_jobs import run_jobs
from nnmiss.benchmark.seed_statistics import difference, hierarchical_interval, seed_means, with_holm
from nnmiss.benchmark.variants import parse_variant, read_variants
from nnmiss.cli import benchmark, train
from nnmiss.errors import NnmissError
from nnmiss.evaluation.conventions import Conventions

MODALITIES = ["flair", "t1", "t1ce", "t2"]
SETTINGS = ["--set", "num_epochs=1", "num_iterations_per_epoch=1", "num_val_iterations_per_epoch=1",
            "validation_mirroring=false"]


# ---- variants and jobs ------------------------------------------------------------------------------------------


def test_a_variant_is_one_line():
    plain = parse_variant("metakd  alpha=0.1")
    assert (plain.name, plain.method, plain.assignments) == ("metakd alpha=0.1", "metakd", {"alpha": "0.1"})
    named = parse_variant("with few: all_stage --preset official --missing fm1 prompt=none path='a b: c'")
    assert named.name == "with few"
    assert (named.method, named.preset, named.missing) == ("all_stage", "official", "fm1")
    assert named.assignments == {"prompt": "none", "path": "a b: c"}
    assert parse_variant("m a=x: y=1").name == "m a=x: y=1"  # a colon behind a value does not end a name
    assert parse_variant("a__b + c/d: m").slug == "a_b-c-d"


@pytest.mark.parametrize("line, message", [
    ("", "names no method"), ("name:  ", "names no method"), ("alpha=1", "names no method"),
    ("metakd --fold 1", "'--fold' is none of"), ("metakd alpha", "'alpha' is none of"),
    ("metakd --missing", "needs a name"),
    ("metakd 'open", "cannot be split"), ("a|b: metakd", "no '|'"), ("/: metakd", "letters or digits"),
])
def test_malformed_variants_are_refused(line, message):
    with pytest.raises(NnmissError, match=re.escape(message)):
        parse_variant(line)


def test_variants_come_from_text_and_json(tmp_path):
    (tmp_path / "runs.txt").write_text("# all\nmodality_dropout\n\na#1: metakd alpha=0  # without\n")
    assert [v.name for v in read_variants(["first: metakd"], tmp_path / "runs.txt")] == ["first", "modality_dropout", "a#1"]
    (tmp_path / "runs.json").write_text(json.dumps({"x": "metakd alpha=0", "y": "lckd"}))
    assert [(v.name, v.method) for v in read_variants([], tmp_path / "runs.json")] == [("x", "metakd"), ("y", "lckd")]
    (tmp_path / "bad.json").write_text("[1]")
    for file, message in (("bad.json", "a list of lines"), ("no.txt", "cannot read"), (None, "--runs")):
        with pytest.raises(NnmissError, match=message):
            read_variants([], file and tmp_path / file)
    with pytest.raises(NnmissError, match="share the folder name"):
        read_variants(["a b: metakd", "A-b: lckd"])


def jobs_of(tmp_path, lines, tables=(None,), folds=(0,), seeds=(0, 1, 2), **conditions):
    return make_jobs(Conditions(DATASET, tmp_path / "out", **conditions), read_variants(lines), list(tables), list(folds),
                     list(seeds), lambda v, tag, fold: tmp_path / "results" / tag / f"fold_{fold}")


def test_jobs_are_the_documented_command_and_whole_seeds_come_first(tmp_path):
    jobs = jobs_of(tmp_path, ["metakd alpha=0", "own: lckd --missing fm1"], (None, "fm10"), (0, "all"), (0, 7),
                   common={"num_epochs": "5", "alpha": "3"})
    assert len(jobs) == 2 * 2 * 3
    assert [job.seed for job in jobs] == [0] * 6 + [7] * 6
    assert len({(job.tag, job.fold) for job in jobs}) == 12
    assert len({job.tag for job in jobs}) == 6  # folds share one
    command = jobs[1].train_command()
    args = train.parser().parse_args(command[1:])
    assert (command[0], args.dataset, args.method, args.fold, args.seed) == ("nnmiss_train", DATASET, "metakd", "0", 0)
    assert (args.missing, args.tag) == ("fm10", "metakd-alpha-0-fm10-s0")
    assert args.assignments == ["num_epochs=5", "alpha=0"]  # a variant's own setting wins
    assert [job.table for job in jobs[:3]] == ["full", "fm10", "fm1"]
    long = jobs_of(tmp_path, [f"{'x' * 200}1: metakd", f"{'x' * 200}2: metakd"], seeds=(0,))
    assert max(len(job.tag) for job in long) <= 80
    assert long[0].tag != long[1].tag
    with pytest.raises(NnmissError, match="would share the tag"):
        jobs_of(tmp_path, ["metakd", "metakd-fm1: lckd"], (None, "fm1"))
    with pytest.raises(NnmissError, match="list folds, seeds and tables once"):
        jobs_of(tmp_path, ["metakd"], seeds=(1, 1))


def test_a_test_set_adds_prediction_and_evaluation(tmp_path):
    jobs = jobs_of(tmp_path, ["a: modality_dropout", "b: modality_dropout subset=flair+t1"], test=("IN", "GT"),
                   disable_tta=True, seeds=(0,))
    names = [[step[0] for step in job.steps()] for job in jobs]
    assert names == [["nnmiss_train", "nnmiss_predict", "nnmiss_evaluate"]] * 2
    assert "--all_subsets" in jobs[0].steps()[1]
    assert jobs[1].steps()[1][jobs[1].steps()[1].index("--subsets") + 1] == "flair+t1"
    for job in jobs:
        (job.fold_folder / "validation").mkdir(parents=True)
        (job.fold_folder / "validation" / "summary.json").touch()
    assert jobs[0].steps()[0][0] == "nnmiss_predict"
    assert not jobs[0].is_finished()


# ---- statistics -------------------------------------------------------------------------------------------------


def make_rows(seeds=(0, 1, 2), cases=4, shift=0.0, noise=0.5, subsets=None, name="v", missing="full", method="m"):
    """Long results with two regions; case i lacks t2 where i is odd."""
    rows = []
    for seed in seeds:
        generator = np.random.default_rng([seed, *name.encode()])
        for i in range(cases):
            for s in all_subsets(4):
                text = subset_name(s, MODALITIES)
                if (i % 2 and s[3]) or (subsets and text not in subsets):
                    continue
                for region in ("whole", "core"):
                    value = 50 + shift + 3 * i + 2 * sum(s) + noise * generator.normal()
                    rows.append({"variant": name, "method": method, "missing": missing, "fold": "0", "seed": seed,
                                 "case": f"case_{i}", "subset": text, "region": region, "metric": "dice",
                                 "value": value / 100})
    return pd.DataFrame(rows)


def slow_seed_mean(rows):
    """The definition with loops: cases of a cell, then cells."""
    cells = [np.mean([r.value for r in group.itertuples()]) for _, group in rows.groupby(["subset", "region"])]
    return float(np.mean(cells))


def test_a_seeds_mean_is_over_cases_then_over_subsets_and_regions():
    rows = make_rows()
    means = seed_means(rows)
    assert list(means.index) == [0, 1, 2]
    for seed, value in means.items():
        assert value == pytest.approx(slow_seed_mean(rows[rows["seed"] == seed]))
    assert seed_means(rows.assign(value=np.nan)).empty


def test_the_interval_is_that_of_a_slow_bootstrap_over_seeds_and_cases():
    rows = make_rows(cases=5, noise=3)
    low, high = hierarchical_interval(rows, resamples=4000)
    generator, drawn = np.random.default_rng(5), []
    values = {key: dict(zip(group["case"], group["value"])) for key, group in rows.groupby(["seed", "subset", "region"])}
    names = sorted(rows["case"].unique())
    for _ in range(1500):
        some = generator.choice(names, len(names))
        means = []
        for seed in generator.choice([0, 1, 2], 3):
            drawn_values = [[v[c] for c in some if c in v] for (s, *_), v in values.items() if s == seed]
            means.append(np.mean([sum(cell) / len(cell) for cell in drawn_values if cell]))
        drawn.append(np.mean(means))
    assert (low, high) == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.004)
    assert hierarchical_interval(rows, resamples=4000) == (low, high)
    assert np.isnan(hierarchical_interval(rows[:0])).all()
    alone = rows[rows["case"] == "case_0"]  # one case: only seeds are drawn, so the interval is within the seeds' means
    low, high = hierarchical_interval(alone, resamples=500)
    assert seed_means(alone).min() - 1e-9 <= low < high <= seed_means(alone).max() + 1e-9


def test_a_difference_is_paired_and_tested_over_seeds():
    ours, other = make_rows(shift=2, name="ours"), make_rows(name="reference")
    d = difference(ours, other)
    per_seed = [slow_seed_mean(ours[ours["seed"] == s]) - slow_seed_mean(other[other["seed"] == s]) for s in (0, 1, 2)]
    assert d.mean == pytest.approx(np.mean(per_seed))
    assert d.p == pytest.approx(stats.ttest_rel([seed_means(ours)[s] for s in (0, 1, 2)], seed_means(other)).pvalue)
    assert d.ci_low < d.mean < d.ci_high
    assert (d.n_cases, d.n_pairs) == (4, 3 * (2 * 15 + 2 * 7))
    few = difference(ours[ours["seed"] < 2], other)
    assert np.isnan(few.p)
    assert list(few.per_seed) == [0, 1]
    assert difference(ours, other.assign(seed=9)) is None
    partial = difference(ours[ours["case"] != "case_3"], other)  # what one lacks is left out of both
    assert partial.n_cases == 3
    assert partial.mean == pytest.approx(difference(ours[ours["case"] != "case_3"], other[other["case"] != "case_3"]).mean)
    corrected = with_holm([d, None, few, d])
    assert corrected[0].p_holm == pytest.approx(min(1, 2 * d.p))
    assert corrected[1] is None


# ---- tables -----------------------------------------------------------------------------------------------------


def made_comparison(tmp_path, seeds=(0, 1, 2), **others):
    lines = ["base: modality_dropout", "good: metakd", "dedicated flair: modality_dropout subset=flair"]
    jobs = jobs_of(tmp_path, lines, seeds=seeds)
    results = pd.concat([make_rows(seeds, name="base"), make_rows(seeds, shift=3, name="good"),
                         make_rows(seeds, shift=5, name="dedicated flair", subsets=["flair"])])
    table = jobs_table(jobs).assign(state="finished", seconds=120.0)
    table["parameters"] = pd.array([1_500_000] * len(table), "Int64")
    return compare(results, jobs, table, choose_reference(None, jobs), MODALITIES, ["whole", "core"]), jobs, table


def test_dedicated_networks_are_compared_on_their_subset_only(tmp_path):
    comparison, _, _ = made_comparison(tmp_path)
    assert comparison.reference == "base"
    base, good, alone = comparison.entries
    assert good.differences[ALL].mean == pytest.approx(3, abs=0.3)
    assert alone.differences[ALL].mean == pytest.approx(5, abs=0.5)
    assert alone.differences[FULL_SET] is None
    assert base.differences == {}
    assert set(good.means) == {ALL, "whole", "core", FULL_SET, ONE}
    cases = 3 - (3 * 4.5 + 3) / 4  # only cases 0 and 2 have t2 and the full set
    assert good.means[FULL_SET].mean() - good.means[ONE].mean() == pytest.approx(2 * 3 + cases, abs=0.5)
    summary, differences, dedicated, subsets = report.tables(comparison)
    assert [line[0] for line in summary.lines] == ["base", "good"]
    assert summary.lines[0][-5:] == ["2.0", "1.50", "3", "1", "4"]
    assert dedicated.lines[0][:2] == ["dedicated flair", "flair"]
    assert float(dedicated.lines[0][2].split()[0]) - float(dedicated.lines[0][3]) == pytest.approx(
        alone.differences[ALL].mean, abs=0.011)
    assert len(subsets.lines) == 15
    assert subsets.lines[0][-1] == "4"
    assert subsets.lines[-1][-1] == "2"
    assert len(differences.lines) == len(comparison.measures)
    assert {row["variant"] for row in report.difference_rows(comparison)} == {"good", "dedicated flair"}


def test_the_page_says_n_and_that_seeds_are_too_few(tmp_path):
    comparison, jobs, table = made_comparison(tmp_path, seeds=(0, 1))
    text = page.to_markdown("T", page.conditions_text(jobs, table["state"], comparison, Conventions()),
                            report.tables(comparison), page.few_seeds(comparison), "b.png")
    assert "too few seeds" in text
    assert "only 2 seed(s)" in text
    assert "± " in text
    widths = {len(line.split(" | ")) for line in text.split("## Subsets")[1].splitlines() if line.startswith("|")}
    assert len(widths) == 1
    latex = page.to_latex(report.tables(comparison))
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == 4
    assert r"$\bullet$" in latex
    figure.write_figure(comparison, tmp_path / "b.png")
    assert (tmp_path / "b.png").stat().st_size > 5000


def test_a_variant_of_another_missing_table_is_compared_with_the_reference_there_is(tmp_path):
    jobs = jobs_of(tmp_path, ["base: modality_dropout", "few: metakd --missing fm1"])
    results = pd.concat([make_rows(name="base"), make_rows(name="few", missing="fm1", shift=-4)])
    comparison = compare(results, jobs, jobs_table(jobs), "base", MODALITIES, ["whole", "core"])
    assert comparison.entries[1].against is comparison.entries[0]
    assert any("not trained under the same missing table: compared are few [fm1] with base" in note
               for note in page.few_seeds(comparison))
    assert "missing" in report.summary_table(comparison).header
    with pytest.raises(NnmissError, match="Did you mean base"):
        choose_reference("bas", jobs)


# ---- the command ------------------------------------------------------------------------------------------------


def command(tiny, *more):
    return ["-d", "801", "-o", str(tiny / "out"), "-p", PLANS, "-device", "cpu", "--runs", "modality_dropout",
            "flair only: modality_dropout subset=flair", "--seeds", "0", *SETTINGS, *more]


def test_from_jobs_to_tables_with_a_failure_that_is_tried_again(tiny, capsys):
    assert benchmark.run(command(tiny, "--dry_run")) == 0
    plan = capsys.readouterr().out
    assert "2 jobs: 2 waiting" in plan
    assert not (tiny / "out").exists()
    with pytest.raises(NnmissError, match="none of the 2 jobs is finished"):
        benchmark.run(command(tiny, "--collect"))
    blocked = tiny / "nnUNet_results" / DATASET / f"nnMissTrainerModalityDropout__{PLANS}-flair-only-s0__3d_fullres"
    blocked.parent.mkdir(parents=True)
    blocked.write_text("a file where a folder must be")
    assert benchmark.run(command(tiny)) == 1
    out = capsys.readouterr()
    assert "1 of 2 jobs failed" in out.err
    assert "1 of 2 jobs are not finished" in (tiny / "out" / "table.md").read_text()
    table = pd.read_csv(tiny / "out" / "jobs.csv")
    assert list(table["state"]) == ["finished", "failed"]
    assert table["parameters"][0] > 0
    assert table["seconds"][0] > 0
    blocked.unlink()
    assert benchmark.run(command(tiny)) == 0
    out = capsys.readouterr().out
    assert "1 of 2 jobs are finished" in out
    table = pd.read_csv(tiny / "out" / "jobs.csv")
    assert list(table["state"]) == ["finished", "finished"]
    assert list(table["sittings"]) == [1, 2]
    long = pd.read_csv(tiny / "out" / "benchmark.csv")
    assert set(long["variant"]) == {"modality_dropout", "flair only"}
    assert set(long[long["variant"] == "flair only"]["subset"]) == {"flair"}
    text = (tiny / "out" / "table.md").read_text()
    for part in ("## Means over seeds", "## Dedicated networks", "## Subsets", "too few seeds"):
        assert part in text, part
    assert (tiny / "out" / "benchmark.png").is_file()
    # nothing is left to do, and the printed command repeats a job by hand
    start = time.monotonic()
    assert benchmark.run(command(tiny)) == 0
    assert time.monotonic() - start < 20
    assert train.run(shlex.split(table["command"][0])[1:]) == 0
    assert "training is finished" in capsys.readouterr().out
    # the same name with other settings is refused, not silently taken for finished
    with pytest.raises(NnmissError, match=r"modality_dropout: .*trained with other settings: .*initial_lr"):
        benchmark.run(command(tiny, "initial_lr=0.5"))


def test_everything_wrong_is_said_before_anything_runs(tiny):
    args = ["-d", "801", "-o", str(tiny / "out"), "-p", PLANS, "--seeds", "0", "--runs", "metakd alpa=1",
            "x: modality_dropout --missing nothere", "modality_dropout"]
    with pytest.raises(NnmissError, match=r"(?s)nothing was run.*alpha.*nothere\.csv not found"):
        benchmark.run(args)
    with pytest.raises(NnmissError, match="fold 9 does not exist"):
        benchmark.run([*args[:-3], "modality_dropout", "--folds", "0", "9"])
    with pytest.raises(NnmissError, match=r"folder .* not found"):
        benchmark.run(command(tiny, "--test", str(tiny / "a"), str(tiny / "b")))
    assert not (tiny / "out").exists()


def test_the_slurm_script_runs_one_job_per_task(tiny, capsys, monkeypatch):
    assert benchmark.run(command(tiny, "--slurm")) == 0
    script = capsys.readouterr().out
    assert "#SBATCH --array=0-1\n" in script
    lines = [line for line in script.splitlines() if line.startswith("benchmark=(")]
    words = [*shlex.split(lines[0].removeprefix("benchmark=(").removesuffix(")")), "--job", "1"]
    started = []
    monkeypatch.setattr(benchmark, "run_jobs", lambda jobs, *_: started.extend(jobs) or [])
    assert benchmark.run(words[1:]) == 0
    assert [job.variant.name for job in started] == ["flair only"]
    with pytest.raises(NnmissError, match="--job 2 does not exist"):
        benchmark.run([*words[1:-1], "2"])


def test_two_processes_do_not_work_on_one_job(tmp_path, capsys):
    fcntl = pytest.importorskip("fcntl")
    job = jobs_of(tmp_path, ["metakd"], seeds=(0,))[0]
    job.folder.mkdir(parents=True)
    with open(job.folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert run_jobs([job]) == []
    assert "being worked on by another process" in capsys.readouterr().out


def test_stopping_it_stops_the_job_and_notes_its_time(tiny):
    arguments = command(tiny)
    arguments[arguments.index("num_epochs=1")] = "num_epochs=500"
    process = subprocess.Popen([sys.executable, "-m", "nnmiss.cli.benchmark", *arguments], env=os.environ.copy(),
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    log = tiny / "out" / "jobs" / "modality_dropout-s0_fold_0" / "log.txt"
    deadline = time.monotonic() + 120
    while not (log.is_file() and "epoch 1/500" in log.read_text()):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)  # treated as Ctrl-C, which is ignored in what a shell runs in the background
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 130, out
    sitting = json.loads((log.parent / "job.json").read_text())["sittings"][0]
    assert sitting["exit_code"] == 130
    assert sitting["seconds"] > 0
    assert "interrupted" in log.read_text()
