"""A benchmark as a SLURM array: one task a job, each goes on where it was stopped, and a last one makes the tables."""
from __future__ import annotations

import os
import shlex
from pathlib import Path

from nnmiss.errors import NnmissError

LARGEST_ARRAY = 1001  # SLURM's default MaxArraySize
FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")

SCRIPT = """#!/bin/bash
# {count} trainings, a task each. "bash {name}" submits them and the task that makes the tables when they have ended.
# Change these to what your cluster and your data need:
#SBATCH --job-name=nnmiss_benchmark
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=12
#SBATCH --mem=64G
#SBATCH --time=24:00:00
#SBATCH --array=0-{last}
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:TERM@300

if [ -z "${{SLURM_ARRAY_TASK_ID:-}}" ]; then  # not in a task: on a login node or in an interactive job
    set -e
    logs={pattern}
    array=$(sbatch --parsable --output="$logs" "$0")
    array=${{array%%;*}}
    tables=$(sbatch --parsable --output="$logs" --dependency="afterany:$array" --array=0 --gres=none --time=4:00:00 \
        "$0" collect)
    echo "submitted {count} trainings as job $array, and the tables as job ${{tables%%;*}}, which waits for them"
    echo logs: {logs}
    exit
fi

# activate the Python environment of nnmiss here, unless it is active where you submit
cd {folder} || exit
{exports}
benchmark=({command})
if [ "${{1:-}}" = collect ]; then
    exec "${{benchmark[@]}}" --collect
fi

# Five minutes before the time limit SLURM sends TERM: the training stops and its task is queued again. It loses the epoch
# that it is in. After a crash of a node or a preemption SLURM queues it again by itself.
"${{benchmark[@]}}" --job "$SLURM_ARRAY_TASK_ID" &
work=$!
stopped=
trap 'stopped=yes; kill -TERM "$work" 2>/dev/null' TERM
wait "$work"
code=$?
while kill -0 "$work" 2>/dev/null; do  # TERM ended the wait, not yet the training
    wait "$work"
    code=$?
done
if [ -n "$stopped" ] && [ "$code" -ne 0 ] && [ "${{SLURM_RESTART_COUNT:-0}}" -lt {restarts} ]; then
    scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}"
fi
exit "$code"
"""
MOST_RESTARTS = 50  # a time limit that is too short for one epoch must not run for ever


def slurm_script(typed: list[str], count: int, logs: Path, name: str = "bench.sh") -> str:
    """A script that submits itself as an array of `count` tasks, and a task after them that collects the tables.

    Args:
        typed: the arguments of nnmiss_benchmark, without --slurm.
        count: how many jobs they mean.
        logs: folder of the tasks' output.
        name: what the script is called in its own comments.

    Raises:
        NnmissError: more jobs than SLURM takes in one array; a folder of logs or a name that a script cannot have.
    """
    if count > LARGEST_ARRAY:
        raise NnmissError(f"{count} jobs are more than a SLURM array usually takes ({LARGEST_ARRAY}): make one script for "
                          "each seed (--seeds 0, then --seeds 1, ...)")
    logs = os.path.abspath(logs)
    for text in (logs, name):
        if "\\" in text or not text.isprintable():  # SLURM takes no pattern where there is a backslash
            raise NnmissError(f"{text!r} has a backslash or a control character, with which SLURM's files cannot be named: "
                              "choose another -o or --slurm")
    pattern = logs.replace("%", "%%") + "/%A_%a.txt"
    exports = [f"export {variable}={shlex.quote(str(Path(os.environ[variable]).resolve()))}"
               for variable in FOLDERS if os.environ.get(variable)]
    return SCRIPT.format(count=count, last=count - 1, logs=shlex.quote(logs), pattern=shlex.quote(pattern), name=name,
                         folder=shlex.quote(os.getcwd()), exports="\n".join(exports), restarts=MOST_RESTARTS,
                         command=shlex.join(["nnmiss_benchmark", *typed]))


def without_slurm(typed: list[str]) -> list[str]:
    """The arguments of a command without --slurm and its file."""
    kept, skip = [], False
    for word in typed:
        value, skip = skip and not word.startswith("-"), False
        if word == "--slurm":
            skip = True
        elif not value and not word.startswith("--slurm="):
            kept.append(word)
    return kept
