"""What a benchmark is going to do: the list of its jobs."""
from __future__ import annotations

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
