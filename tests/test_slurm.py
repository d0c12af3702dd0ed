"""The SLURM script of a benchmark: it submits itself; its tasks run, are stopped, queued again and collected."""
from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from nnmiss.benchmark.slurm import slurm_script, without_slurm
from nnmiss.errors import NnmissError

TYPED = ["-d", "12", "-o", "out", "--runs", "alpha 0: metakd alpha=0", "it's: lckd", "--folds", "0", "1"]
ODD = "it's $(touch pwned) \"logs\" & `id`"
FAKES = {
    "sbatch": 'printf "%s\\n" "$*" >> "$TRACE/submitted"; wc -l < "$TRACE/submitted" | tr -d " "\n',
    "scontrol": 'printf "%s\\n" "$*" >> "$TRACE/requeued"\n',
    # job 3 works until it is asked to stop; job 2 fails; the others end at once
    "nnmiss_benchmark": """printf '%s|' "$@" >> "$TRACE/ran"; echo >> "$TRACE/ran"
case "$*" in
*"--job 2") exit 1 ;;
*"--job 3") trap 'sleep 0.2; exit 130' TERM; touch "$TRACE/working"; while true; do sleep 0.05; done ;;
esac
""",
}


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """A folder with the script, and PATH with a sbatch, scontrol and nnmiss_benchmark that note how they are called."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, body in FAKES.items():
        (folder / name).write_text(f"#!/bin/bash\n{body}")
        (folder / name).chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("TRACE", str(tmp_path))
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "my results"))
    monkeypatch.delenv("SLURM_ARRAY_TASK_ID", raising=False)
    monkeypatch.setenv("SLURM_JOB_ID", "5")  # of an interactive job in which the user types
    (tmp_path / "bench.sh").write_text(slurm_script(TYPED, 4, tmp_path / f"50% {ODD}"))
    return tmp_path


def task(folder: Path, number: int, *arguments: str, restarts: int = 0) -> subprocess.Popen:
    """Starts the script as SLURM starts one task of the array."""
    environment = {**os.environ, "SLURM_JOB_ID": "77", "SLURM_ARRAY_JOB_ID": "70", "SLURM_ARRAY_TASK_ID": str(number),
                   "SLURM_RESTART_COUNT": str(restarts)}
    return subprocess.Popen(["bash", "bench.sh", *arguments], cwd=folder, env=environment)


def lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.is_file() else []


def test_it_submits_the_array_and_the_tables_after_it(cluster):
    subprocess.run(["bash", "-n", "bench.sh"], check=True)
    out = subprocess.run(["bash", "bench.sh"], check=True, capture_output=True, text=True).stdout
    first, second = lines(cluster / "submitted")
    logs = f"--output={cluster}/50%% {ODD}/%A_%a.txt"
    assert first == f"--parsable {logs} bench.sh"
    assert second == f"--parsable {logs} --dependency=afterany:1 --array=0 --gres=none --time=4:00:00 bench.sh collect"
    assert out.splitlines()[-1] == f"logs: {cluster}/50% {ODD}"
    assert "4 trainings as job 1" in out
    assert "#SBATCH --array=0-3\n" in (cluster / "bench.sh").read_text()
    assert not (cluster / "ran").exists() and not (cluster / "pwned").exists()


def test_a_task_runs_its_job_and_the_last_one_collects(cluster):
    assert [task(cluster, number).wait(30) for number in (0, 2)] == [0, 1]
    assert task(cluster, 0, "collect").wait(30) == 0
    assert [line.split("|")[:-1] for line in lines(cluster / "ran")] == [
        [*TYPED, "--job", "0"], [*TYPED, "--job", "2"], [*TYPED, "--collect"]]
    assert not (cluster / "requeued").exists()  # a failure is not tried again for ever


@pytest.mark.parametrize("restarts, requeued", [(0, ["requeue 70_3"]), (50, [])])
def test_a_task_at_its_time_limit_stops_and_is_queued_again(cluster, restarts, requeued):
    process = task(cluster, 3, restarts=restarts)
    deadline = time.monotonic() + 30
    while not (cluster / "working").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 130
    assert lines(cluster / "requeued") == requeued


def test_too_many_jobs_are_refused_and_the_flag_is_left_out(tmp_path):
    with pytest.raises(NnmissError, match="one script for each seed"):
        slurm_script(TYPED, 1002, tmp_path)
    for logs, name in ((tmp_path / "a\\b", "bench.sh"), (tmp_path / "a\nb", "bench.sh"), (tmp_path, "a\nrm -r x.sh")):
        with pytest.raises(NnmissError, match="backslash or a control character"):
            slurm_script(TYPED, 4, logs, name)
    assert without_slurm(["-d", "1", "--slurm", "a.sh", "--seeds", "0"]) == ["-d", "1", "--seeds", "0"]
    assert without_slurm(["--slurm", "-d", "1", "--slurm=b.sh"]) == ["-d", "1"]
