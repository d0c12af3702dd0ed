"""The long table of all finished jobs, and what jobs.csv says of every job."""
from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from nnmiss.atomic_files import read_json, replacing, write_json
from nnmiss.benchmark.jobs import Job, shown
from nnmiss.benchmark.run_jobs import sittings
from nnmiss.errors import NnmissError
from nnmiss.evaluation.conventions import Conventions
from nnmiss.evaluation.results import COLUMNS as RESULT_COLUMNS
from nnmiss.evaluation.results import read_method
from nnmiss.inference.checkpoints import read_checkpoint

COLUMNS = ["variant", "method", "missing", "fold", "seed", *RESULT_COLUMNS]
SAME = ("splits_sha256", "data_sha256", "configuration_sha256")  # of run.json: what jobs must share to be compared


def collect_results(jobs: list[Job], modalities: list[str]) -> tuple[pd.DataFrame, Conventions, list[str]]:
    """Reads the results of all finished jobs.

    Returns:
        long results with `COLUMNS` (fold as text), the conventions they were evaluated with, and notes on what is
        missing or does not fit together.

    Raises:
        NnmissError: no job is finished, or a result cannot be read.
    """
    finished = [job for job in jobs if job.is_finished()]
    if not finished:
        raise NnmissError("no job of this benchmark is finished: nothing to compare yet")
    parts, conventions = [], {}
    for job in finished:
        read = read_method(job.results, modalities)
        head = {"variant": job.variant.name, "method": job.variant.method, "missing": job.table, "fold": str(job.fold),
                "seed": job.seed}
        parts.append(read.results.assign(**head)[COLUMNS])
        conventions.setdefault(read.conventions or Conventions(), job)
    if len(conventions) > 1:
        raise NnmissError("jobs were evaluated with different conventions, such as "
                          + " and ".join(f"{job}: {c}" for c, job in conventions.items()) + ": evaluate them alike")
    notes = unfinished(jobs, finished) + apart(finished)
    return pd.concat(parts, ignore_index=True), next(iter(conventions)), notes


def write_long(results: pd.DataFrame, path: Path) -> None:
    """Writes benchmark.csv atomically; undefined values are empty cells."""
    with replacing(path) as temporary:
        results.to_csv(temporary, index=False, lineterminator="\n")


def jobs_table(jobs: list[Job]) -> pd.DataFrame:
    """One row per job: what it is, its state, its time summed over sittings, its network's parameters, how to repeat it.

    `seconds` is empty for a job whose training was not run from this folder; `state` is finished, failed (the last sitting
    ended with an error), unfinished or waiting.
    """
    rows = []
    for index, job in enumerate(jobs):
        had = sittings(job)
        trained_here = any("nnmiss_train" in s.get("commands", ()) for s in had)
        rows.append({
            "job": index, "variant": job.variant.name, "method": job.variant.method, "missing": job.table,
            "fold": str(job.fold), "seed": job.seed, "state": state(job, had), "sittings": len(had),
            "seconds": round(sum(s["seconds"] for s in had), 1) if trained_here else None, "parameters": parameters(job),
            "tag": job.tag, "folder": str(job.fold_folder), "log": str(job.log), "command": shown(job.train_command())})
    table = pd.DataFrame(rows)
    return table.astype({"parameters": "Int64"})


def state(job: Job, had: list[dict]) -> str:
    """finished, failed, unfinished or waiting."""
    if job.is_finished():
        return "finished"
    if had and had[-1].get("exit_code") not in (None, 0, 130, -2, -15):
        return "failed"
    return "unfinished" if had or job.fold_folder.is_dir() else "waiting"


def parameters(job: Job) -> int | None:
    """Numbers in the network of inference; counted once and kept beside the job. None while it is not trained."""
    note, weights = job.folder / "parameters.json", job.fold_folder / "checkpoint_final.pth"
    if not job.is_trained() or not weights.is_file():
        return None
    if note.is_file() and note.stat().st_mtime >= weights.stat().st_mtime:
        return read_json(note, "count of parameters", ("parameters",))["parameters"]
    stored = [t for name, t in read_checkpoint(weights)["network_weights"].items()
              if not name.endswith(("running_mean", "running_var"))]  # of a batch normalisation, nothing that is learned
    # nnU-Net's decoder holds the encoder a second time: tensors that share their memory count once
    once = {(t.data_ptr(), t.numel()): t.numel() for t in stored if t.is_floating_point()}
    job.folder.mkdir(parents=True, exist_ok=True)
    write_json(note, {"parameters": sum(once.values())})
    return sum(once.values())


def unfinished(jobs: list[Job], finished: list[Job]) -> list[str]:
    """A note that names jobs that are not finished."""
    done = {job.name for job in finished}
    open_ = [str(job) for job in jobs if job.name not in done]
    if not open_:
        return []
    return [f"{len(open_)} of {len(jobs)} jobs are not finished and not in the tables: {'; '.join(open_[:5])}"
            + (" ..." if len(open_) > 5 else "")]


def apart(finished: list[Job]) -> list[str]:
    """Notes where runs differ in what must be equal for a comparison: splits, data, patches."""
    records = [json.loads((job.fold_folder / "run.json").read_text()) for job in finished
               if (job.fold_folder / "run.json").is_file()]
    notes = [f"the jobs were not trained under the same {key.removesuffix('_sha256')}: differences between them are not "
             "the methods' alone" for key in SAME if len({record.get(key) for record in records}) > 1]
    versions = {name: sorted({str(record.get("versions", {}).get(name)) for record in records})
                for name in ("nnmiss", "nnunetv2", "torch")}
    mixed = [f"{name} {' and '.join(found)}" for name, found in versions.items() if len(found) > 1]
    devices = sorted({str(record.get("device")).partition(":")[0] for record in records})
    notes += [f"jobs ran with different versions: {', '.join(mixed)}"] if mixed else []
    return notes + ([f"jobs ran on different devices ({', '.join(devices)}): minutes are not comparable"]
                    if len(devices) > 1 else [])
