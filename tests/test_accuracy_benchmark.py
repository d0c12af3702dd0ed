"""The accuracy benchmark's own arithmetic: equal cost, what each column is a mean of, and who gets no further seed."""
from __future__ import annotations

import sys
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nnmiss.availability import all_subsets, subset_name

MODALITIES = ["flair", "t1", "t1ce", "t2"]
REGIONS = ["whole_tumor", "tumor_core", "enhancing_tumor"]


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    import accuracy
    import accuracy_cost
    import accuracy_table

    yield {"accuracy": accuracy, "cost": accuracy_cost, "table": accuracy_table}
    for name in ("accuracy", "accuracy_cost", "accuracy_table", "accuracy_regimes"):
        sys.modules.pop(name, None)


def results(gains: dict[str, float], seeds: int = 4, noise: float = 0.3) -> pd.DataFrame:
    """Dice of variants that differ by `gains` (in points), in nnmiss_benchmark's long form."""
    random = np.random.default_rng(0)
    rows = []
    for (variant, gain), seed, case, subset, region in product(
            gains.items(), range(seeds), range(3), all_subsets(4), REGIONS):
        value = 0.5 + 0.05 * case + 0.01 * (gain + random.normal(0, noise))
        rows.append((variant, "m", "full", 0, seed, f"case_{case}", subset_name(subset, MODALITIES), region, "dice", value))
        rows.append((*rows[-1][:8], "hd95", 3.0))
    columns = ["variant", "method", "missing", "fold", "seed", "case", "subset", "region", "metric", "value"]
    return pd.DataFrame(rows, columns=columns)


def test_epochs_cost_what_the_baseline_has_time_for(benchmark):
    line, costs = "x: metakd warmup.num_epochs=2 meta_interval=16", {"warmup": [2.0, 4.0], "missing": [1.25, 3.0]}
    epochs = benchmark["accuracy"].epochs_of(line, 1024, costs)

    def cost(total):  # ten updates and more in a stage, at most 16 iterations apart
        missing = (total - 2) * 32
        return 64 * 2.0 + 11 * 4.0 + missing * 1.25 + -(-missing // 16) * 3.0

    assert cost(epochs) <= 1024 < cost(epochs + 1)
    assert benchmark["accuracy"].epochs_of("modality_dropout: modality_dropout", 1024, {"train": [1.0, 0.0]}) == 32


def test_every_variant_has_a_name_and_one_is_the_baseline(benchmark, tmp_path):
    file, accuracy = tmp_path / "variants.txt", benchmark["accuracy"]
    file.write_text("# all\nmodality_dropout: modality_dropout ema_decay=0.9  # the baseline\n\na: metakd alpha=0\n")
    assert accuracy.read_lines(file) == ["modality_dropout: modality_dropout ema_decay=0.9", "a: metakd alpha=0"]
    unnamed = "modality_dropout: modality_dropout\nmetakd alpha=0"
    for text, expected in ("a: metakd alpha=0", "the baseline"), (unnamed, "'metakd alpha=0' has no name"):
        file.write_text(text)
        with pytest.raises(SystemExit, match=expected):
            accuracy.read_lines(file)
    with pytest.raises(SystemExit, match=r"gone\.txt: no such file"):
        accuracy.read_lines(tmp_path / "gone.txt")


def test_columns_and_differences(benchmark, tmp_path):
    table = benchmark["table"]
    results({"modality_dropout": 0, "better": 2}).to_csv(tmp_path / "benchmark.csv", index=False)
    rows = table.collect(tmp_path)
    parts = table.measures(rows)
    assert set(parts["full set"]["subset"]) == {"flair+t1+t1ce+t2"}
    missing = parts["best missing"]
    core = missing[missing["region"] == "tumor_core"]["subset"].unique()
    assert len(core) == 7 and not any("t1ce" in subset.split("+") for subset in core)
    assert len(missing[missing["region"] == "whole_tumor"]["subset"].unique()) == 7
    found = table.compared(rows, "better", "modality_dropout", [0, 1, 2, 3])
    assert all(d.mean == pytest.approx(2, abs=0.15) and d.ci_low < d.mean < d.ci_high for d in found.values())
    assert "| better | 4 |" in table.write_table(tmp_path, [0, 1, 2, 3])


def test_the_stopping_rule(benchmark, tmp_path):
    table = benchmark["table"]
    gains = {"modality_dropout": -9, "best": 1, "nearly": 0.99, "worse": -1}
    results(gains, seeds=2).to_csv(tmp_path / "benchmark.csv", index=False)
    assert table.losers(tmp_path, [0, 1]) == set()  # two seeds are too few
    results(gains).to_csv(tmp_path / "benchmark.csv", index=False)
    assert table.losers(tmp_path, [0, 1, 2, 3]) == {"worse"}  # and never the baseline
    results({key: gain for key, gain in gains.items() if key != "worse"}).to_csv(tmp_path / "benchmark.csv", index=False)
    assert "worse" in set(table.collect(tmp_path)["variant"])  # what was dropped is kept in results.csv
