"""Runs unfinished jobs in processes of their own, several at once; one that fails does not stop the others."""
from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO

from nnmiss.atomic_files import read_json, writable_folder, write_json
from nnmiss.benchmark.jobs import Job, shown
from nnmiss.errors import NnmissError

try:
    import fcntl
except ImportError:  # Windows has no such locks; two benchmarks at once on one folder are then the user's care
    fcntl = None

POLL_SECONDS = 0.5
NOTE_SECONDS = 60  # a running job's time is noted this often, so that a killed benchmark loses little of it
PATIENCE_SECONDS = 120  # for a job to stop when asked to


@dataclass
class Sitting:
    """One stretch of work on a job: its commands one after the other, its log, its time."""

    job: Job
    environment: dict[str, str]
    lock: IO
    earlier: list[dict]
    started: datetime = field(default_factory=lambda: datetime.now().astimezone())
    clock: float = field(default_factory=time.monotonic)
    noted: float = field(default_factory=time.monotonic)
    process: subprocess.Popen | None = None
    steps: list[list[str]] = field(default_factory=list)
    begun: list[str] = field(default_factory=list)
    """Names of the commands started so far."""
    exit_code: int | None = None

    def begin(self) -> None:
        """Starts the first command that is not done."""
        self.steps = self.job.steps()
        with open(self.job.log, "a", encoding="utf-8") as log:
            log.write(f"\n==== {self.started.isoformat(timespec='seconds')} {self.job}\n")
        self._next_step()

    def _next_step(self) -> None:
        command = self.steps.pop(0)
        self.begun.append(command[0])
        module = f"nnmiss.cli.{command[0].removeprefix('nnmiss_')}"
        with open(self.job.log, "a", encoding="utf-8") as log:
            log.write(f"$ {shown(command)}\n")
            log.flush()
            # a session of its own: Ctrl-C in the terminal comes to us alone, and we ask the job to stop, once
            self.process = subprocess.Popen([sys.executable, "-m", module, *command[1:]], stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=subprocess.STDOUT, env=self.environment,
                                            start_new_session=True,
                                            pass_fds=(self.lock.fileno(),))  # it holds the lock if we are killed

    def has_ended(self) -> bool:
        """Goes on to the next command when one succeeded; True when the last one ended or one failed."""
        code = self.process.poll()
        if code is None:
            if time.monotonic() - self.noted > NOTE_SECONDS:
                self.note()
            return False
        if code == 0 and self.steps:
            self._next_step()
            return False
        self.exit_code = code
        return True

    def note(self) -> None:
        """Writes the time so far, and the exit code once there is one."""
        self.noted = time.monotonic()
        write_json(self.job.folder / "job.json", {"command": shown(self.job.train_command()), "sittings": [
            *self.earlier, {"started": self.started.isoformat(timespec="seconds"),
                            "seconds": round(self.seconds, 1), "commands": self.begun, "exit_code": self.exit_code}]})

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.clock

    def stop(self) -> None:
        """Asks the job to stop; SIGTERM, because SIGINT is ignored by what was started in the background."""
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)

    def close(self) -> None:
        self.note()
        self.lock.close()


def open_sitting(job: Job, environment: dict[str, str]) -> Sitting | None:
    """Takes a job for this process; None when another process works on it."""
    folder = writable_folder(job.folder)
    lock = open(folder / ".lock", "w")  # noqa: SIM115 (held, and with it the lock, until the sitting closes it)
    if fcntl is not None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            return None
    return Sitting(job, environment, lock, sittings(job))


def sittings(job: Job) -> list[dict]:
    """What is noted of the sittings a job had: started, seconds, commands, exit_code (None: killed)."""
    path = job.folder / "job.json"
    with suppress(NnmissError):  # a damaged note costs only the time it held
        if path.is_file():
            return list(read_json(path, "job record", ("sittings",))["sittings"])
    return []


def run_jobs(jobs: list[Job], parallel: int = 1, environments: list[dict[str, str]] | None = None) -> list[Job]:
    """Runs what is not finished. Returns the jobs that failed.

    Args:
        jobs: all of them; the finished ones are skipped.
        parallel: how many at once.
        environments: variables added for the job in slot i, such as CUDA_VISIBLE_DEVICES.

    Raises:
        KeyboardInterrupt: after the jobs that ran have stopped.
    """
    waiting, running, failed = [job for job in jobs if not job.is_finished()], {}, []
    number = {job.name: f"[{i}/{len(waiting)}]" for i, job in enumerate(waiting, 1)}
    slots = [{**os.environ, "PYTHONUNBUFFERED": "1", **extra} for extra in environments or [{}] * parallel]
    try:
        while waiting or running:
            for slot in range(parallel):
                if slot not in running and waiting:
                    job = waiting.pop(0)
                    sitting = None if job.is_finished() else open_sitting(job, slots[slot])
                    if sitting is None:
                        print(f"{number[job.name]} {job}: finished or being worked on by another process", flush=True)
                        continue
                    sitting.begin()
                    running[slot] = sitting
                    print(f"{number[job.name]} {job}: started, log {job.log}", flush=True)
            for slot, sitting in list(running.items()):
                if sitting.has_ended():
                    del running[slot]
                    sitting.close()
                    failed += report(sitting, number[sitting.job.name])
            time.sleep(POLL_SECONDS if running else 0)
    finally:
        stop_all(list(running.values()))
    return failed


def report(sitting: Sitting, number: str) -> list[Job]:
    """Prints how a sitting ended. Returns the job when it failed."""
    job = sitting.job
    if sitting.exit_code == 0 and job.is_finished():
        print(f"{number} {job}: finished after {sitting.seconds / 60:.1f} min", flush=True)
        return []
    reason = last_line(job.log) if sitting.exit_code else f"it ended without {job.results}"
    print(f"{number} {job}: FAILED with exit code {sitting.exit_code} after {sitting.seconds / 60:.1f} min: {reason}\n"
          f"    log {job.log}", flush=True)
    return [job]


def last_line(log: Path) -> str:
    """The last line of a log that starts with "error", else the last that says anything."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error:")]
    return (errors or lines or ["no output"])[-1][:300]


def stop_all(running: list[Sitting]) -> None:
    """Asks what still runs to stop, waits, and notes its time; a second Ctrl-C ends it at once."""
    if not running:
        return
    print(f"stopping {len(running)} job(s); they continue from their last epoch at the next call", flush=True)
    for sitting in running:
        sitting.stop()
    try:
        deadline = time.monotonic() + PATIENCE_SECONDS
        for sitting in running:
            with suppress(subprocess.TimeoutExpired):
                sitting.process.wait(max(0.0, deadline - time.monotonic()))
    finally:
        for sitting in running:
            if sitting.process.poll() is None:
                sitting.process.kill()
                sitting.process.wait()
            sitting.exit_code = sitting.process.returncode
            sitting.close()
