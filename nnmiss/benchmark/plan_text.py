"""What a benchmark is going to do: the list of its jobs, and an array script for SLURM."""
from __future__ import annotations

import os
import shlex
from pathlib import Path

from nnmiss.benchmark.collect import jobs_table
from nnmiss.benchmark.jobs import Job, shown


def print_plan(jobs: list[Job]) -> None:
    """Lists every job with its number, state and command, and what is left to do by the times measured so far."""
    table = jobs_table(jobs)
    for row, job in zip(table.itertuples(), jobs):
        print(f"{row.job}  {row.state:<10}  {job}\n    {shown(job.train_command())}")
    print(f"{len(jobs)} jobs: " + ", ".join(f"{n} {state}" for state, n in table["state"].value_counts().items()))
    done, left = table[table["state"] == "finished"], table[table["state"] != "finished"]
    typical = done.groupby("variant")["seconds"].mean().dropna()
    if len(typical) and len(left):
        seconds = left["variant"].map(typical).fillna(typical.mean()).sum()
        print(f"about {seconds / 3600:.1f} hours of work are left, by the finished jobs' mean times")


def slurm_script(typed: list[str], count: int, logs: Path) -> str:
    """A script for sbatch: one array task per job. `typed` are the command's own arguments."""
    own = [word for word in typed if word != "--slurm"]
    exports = [f"export {name}={shlex.quote(str(Path(os.environ[name]).resolve()))}"
               for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results") if os.environ.get(name)]
    return "\n".join([
        "#!/bin/bash", "#SBATCH --job-name=nnmiss_benchmark", f"#SBATCH --array=0-{count - 1}",
        f"#SBATCH --output={logs}/%A_%a.txt", "#SBATCH --gres=gpu:1", "#SBATCH --cpus-per-task=12", "#SBATCH --mem=64G",
        "#SBATCH --time=48:00:00", "# change the five lines above to what your cluster and your data need",
        "# activate the Python environment of nnmiss here", f"cd {shlex.quote(os.getcwd())}", *exports,
        f'nnmiss_benchmark {shlex.join(own)} --job "$SLURM_ARRAY_TASK_ID"',
        "# Finished tasks end at once, so submit the script again until all are. Afterwards the tables:",
        f"# nnmiss_benchmark {shlex.join(own)} --collect"])
