"""Tables of the accuracy benchmark: differences to the baseline with intervals that treat the seed as the unit."""
from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
from accuracy_cost import REFERENCE
from accuracy_regimes import BEST

from nnmiss.atomic_files import replacing, write_text
from nnmiss.benchmark.seed_statistics import Difference, difference, seed_means

KEY = ["variant", "fold", "seed", "case", "subset", "region"]
FEWEST_TO_DROP = 3  # seeds


def collect(output: Path) -> pd.DataFrame:
    """results.csv: the Dice (in %) of every variant that was ever run here, with what nnmiss_benchmark finished last."""
    new = pd.read_csv(output / "benchmark.csv")
    new = new[new["metric"] == "dice"].assign(value=lambda rows: 100 * rows["value"])[[*KEY, "value"]]
    file = output / "results.csv"
    rows = pd.concat([pd.read_csv(file), new]) if file.is_file() else new
    rows = rows.drop_duplicates(KEY, keep="last").sort_values(KEY)
    with replacing(file) as temporary:
        rows.to_csv(temporary, index=False)
    return rows


def measures(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The rows that each column of the table is a mean of."""
    shown = rows["subset"].str.split("+")
    missing = [isinstance(best, str) and best not in names for best, names in zip(rows["region"].map(BEST), shown)]
    count = shown.str.len()
    return {"all subsets": rows, "best missing": rows[missing], "full set": rows[count == count.max()],
            "one modality": rows[count == 1]}


def compared(rows: pd.DataFrame, variant: str, other: str, seeds: list[int]) -> dict[str, Difference | None]:
    """Measure -> variant minus other, on the seeds that both have."""
    parts = measures(rows[rows["seed"].isin(seeds)])
    return {name: difference(part[part["variant"] == variant], part[part["variant"] == other], 2000)
            for name, part in parts.items()}


def losers(output: Path, seeds: list[int]) -> set[str]:
    """Variants, but the baseline, that lie below the best other one with their whole interval after three seeds."""
    rows = collect(output)
    rows = rows[rows["seed"].isin(seeds)]
    means = {variant: float(seed_means(part).mean()) for variant, part in rows.groupby("variant")}
    counts = rows.groupby("variant")["seed"].nunique()
    best = max(means, key=means.get)
    found = set()
    for variant in means:
        if variant in (best, REFERENCE) or counts[variant] < FEWEST_TO_DROP:
            continue
        against = compared(rows, variant, best, seeds)["all subsets"]
        if against is not None and against.ci_high < 0:
            found.add(variant)
    return found


def write_table(output: Path, seeds: list[int]) -> str:
    """accuracy.md and differences_to_baseline.csv; returns the table."""
    rows = collect(output)
    rows = rows[rows["seed"].isin(seeds)]
    lines, records = [], []
    parts = measures(rows)
    for variant in sorted(rows["variant"].unique(), key=lambda name: (name != REFERENCE, name)):
        own = {name: float(seed_means(part[part["variant"] == variant]).mean()) for name, part in parts.items()}
        cells = [f"{value:.1f}" for value in own.values()]
        if variant != REFERENCE:
            found = compared(rows, variant, REFERENCE, seeds)
            for name, d in found.items():
                if d is not None:
                    records.append({"variant": variant, "measure": name, "mean": d.mean, "low": d.ci_low, "high": d.ci_high,
                                    "p": d.p, "seeds": len(d.per_seed),
                                    **{f"seed {seed}": value for seed, value in d.per_seed.items()}})
            cells += ["-" if d is None else f"{d.mean:+.1f} ({d.ci_low:+.1f} to {d.ci_high:+.1f})" for d in found.values()]
        else:
            cells += [""] * len(parts)
        lines.append(f"| {variant} | {rows[rows['variant'] == variant]['seed'].nunique()} | " + " | ".join(cells) + " |")
    head = ["variant", "seeds", *parts, *(f"{name}, difference" for name in parts)]
    table = "\n".join(["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *lines, ""])
    write_text(output / "accuracy.md", table)
    with replacing(output / "differences_to_baseline.csv") as temporary:
        pd.DataFrame(records).to_csv(temporary, index=False)
    return table


if __name__ == "__main__":
    print(write_table(Path(sys.argv[1]), [int(seed) for seed in sys.argv[2:]] or list(range(100))))
