"""Does w order the modalities as their Dice alone does? Measured on finished metakd runs, per region.

python benchmarks/importance_order.py FOLD_FOLDER [FOLD_FOLDER ...]       (with nnU-Net's three folders set)

For the weights of every run, `weighting=forward per_region=true` scores each modality on the held-out cases, or with
meta_cases=0 on five training cases; w is compared with the Dice of each modality alone on the fold's validation cases,
which w never saw. Prints both, Kendall's tau, and whether the first modality is the same. Pairs whose Dice differs by less
than two points say nothing about order; "same" counts the others that w orders as Dice does.
"""
from __future__ import annotations

import json
import sys
from itertools import combinations
from pathlib import Path

import pandas as pd
import torch
from scipy.stats import kendalltau

from nnmiss.inference.checkpoints import read_checkpoint
from nnmiss.trainers.run import RunArguments, make_run

CLEAR = 0.02  # difference in Dice from which an order is clear


def importance(fold: Path) -> pd.DataFrame:
    """w of the run's weights: regions x modalities."""
    record = json.loads((fold / "run.json").read_text())
    _, plans, configuration = fold.parent.name.split("__")
    plans_name, _, tag = plans.partition("-")
    table = record["missing"] and record["missing"]["table"]
    run = make_run(RunArguments(
        fold.parents[1].name, record["method"], record["fold"], configuration, plans_name, record["seed"], tag,
        missing=table, preset=record["preset"], show_progress=False,
        assignments={**record["assignments"], "weighting": "forward", "per_region": "true"}))
    trainer = run.make_trainer(run.stage_names[-1])
    trainer.initialize()
    trainer.get_dataloaders()
    checkpoint = read_checkpoint(fold / "checkpoint_final.pth")
    trainer.inference_network.load_state_dict(checkpoint["network_weights"])
    trainer.measure_importance()
    return pd.DataFrame(trainer.importance.table().numpy(), trainer.region_names(), trainer.modalities)


def alone(fold: Path) -> pd.DataFrame:
    """Mean Dice of every modality alone on the validation cases: regions x modalities."""
    rows = pd.read_csv(fold / "validation" / "results.csv")
    rows = rows[(rows["metric"] == "dice") & ~rows["subset"].str.contains("+", regex=False)]
    return rows.pivot_table(index="region", columns="subset", values="value")


def main() -> None:
    """A row per run and region, then how often the first modality and the clear pairs agree."""
    torch.set_num_threads(1)
    rows = []
    for folder in map(Path, sys.argv[1:]):
        w, dice = importance(folder.resolve()), alone(folder)
        for region in w.index:
            own, other = w.loc[region], dice.loc[region, w.columns]
            pairs = [(own[a] - own[b]) * (other[a] - other[b]) > 0 for a, b in combinations(w.columns, 2)
                     if abs(other[a] - other[b]) > CLEAR]
            rows.append({"run": folder.parent.name.split("__")[1], "region": region,
                         "w": " ".join(f"{m} {v:.2f}" for m, v in own.items()),
                         "Dice alone": " ".join(f"{m} {100 * v:.0f}" for m, v in other.items()),
                         "tau": round(kendalltau(own, other).statistic, 2), "same first": own.idxmax() == other.idxmax(),
                         "clear pairs": len(pairs), "same": sum(pairs)})
    table = pd.DataFrame(rows)
    print(table.to_string(index=False))
    grouped = table.groupby("region")[["same first", "clear pairs", "same"]].sum()
    print(grouped.assign(runs=table.groupby("region").size(), tau=table.groupby("region")["tau"].mean().round(2)))


if __name__ == "__main__":
    main()
