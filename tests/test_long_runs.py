"""Memory and the cost of an epoch stay flat however long a training is."""
from __future__ import annotations

import gc
import json
import os
import tracemalloc

import numpy as np
import pytest
from killed_runs import in_child
from tiny_dataset import PLANS

from nnmiss.cli import train
from nnmiss.trainers.modality_dropout import nnMissTrainerModalityDropout
from nnmiss.trainers.progress import Progress

PAGE = os.sysconf("SC_PAGE_SIZE") / 2**20


def measured_run(tiny, epochs: int, *arguments: str, trace: bool = False) -> dict[str, list[float]]:
    """"rss": resident memory in MB after each epoch; "python": what Python has allocated, in MB, with `trace`."""
    inner = nnMissTrainerModalityDropout.on_epoch_end
    seen = {"rss": [], "python": []}

    def on_epoch_end(self):
        inner(self)
        gc.collect()
        with open("/proc/self/statm") as file:
            seen["rss"].append(int(file.read().split()[1]) * PAGE)
        seen["python"].append(tracemalloc.get_traced_memory()[0] / 2**20)
        (tiny / "memory.json").write_text(json.dumps(seen))

    def run() -> int:
        nnMissTrainerModalityDropout.on_epoch_end = on_epoch_end
        if trace:  # makes Python three times slower
            tracemalloc.start()
        return train.run(["801", "modality_dropout", "0", "-p", PLANS, "-c", "2d", "-device", "cpu", "--no_val",
                          "--disable_progress_bar", "--set", "num_iterations_per_epoch=1", "batch_size=1",
                          "num_val_iterations_per_epoch=1", f"num_epochs={epochs}", *arguments])

    ended = in_child(run, tiny)
    assert ended.code == 0, ended.printed
    return json.loads((tiny / "memory.json").read_text())


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="measures memory with Linux's /proc")
def test_memory_is_flat_after_the_tenth_epoch(tiny):
    memory = measured_run(tiny, 30, "save_every=10")
    assert memory["rss"][-2] - memory["rss"][9] < 8, memory["rss"]  # MB; after the last epoch figures are drawn


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="measures memory with Linux's /proc")
def test_memory_is_flat_over_500_epochs(tiny, monkeypatch):
    monkeypatch.setattr("nnmiss.trainers.checkpointing.SECONDS_BETWEEN_FIGURES", 5)
    memory = measured_run(tiny, 500, "save_every=5", trace=True)
    print({name: [round(values[i], 2) for i in (9, 99, 249, 499)] for name, values in memory.items()})
    per_epoch = {name: np.polyfit(range(490), values[10:], 1)[0] * 1024 for name, values in memory.items()}  # KB
    assert per_epoch["python"] < 2, per_epoch  # the log itself grows by a dozen numbers an epoch
    assert memory["rss"][-1] - memory["rss"][9] < 20, memory["rss"][::50]


def test_a_row_of_a_table_costs_the_same_in_the_thousandth_epoch():
    """Rows are appended, not copied; those after a resume's iteration go."""
    log = Progress()
    for iteration in range(1000):
        log.add_row("weights", ["a"], iteration, [float(iteration)])
    rows = log.tables["weights"]["rows"]
    log.add_row("weights", ["a"], 1000, [0.0])
    assert log.tables["weights"]["rows"] is rows and len(rows) == 1001
    log.add_row("weights", ["a"], 998, [5.0])
    assert [row[0] for row in rows[-2:]] == [997, 998] and rows[-1] == [998, 5.0]


def test_figures_are_drawn_from_time_to_time_and_in_the_end(tiny, monkeypatch):
    drawn = []
    monkeypatch.setattr("nnmiss.trainers.progress.ProgressLogger.plot_progress_png",
                        lambda self, folder: drawn.append(len(self.get_checkpoint()["lrs"])))
    measured = ["801", "modality_dropout", "0", "-p", PLANS, "-c", "2d", "-device", "cpu", "--no_val",
                "--disable_progress_bar", "--set", "num_iterations_per_epoch=1", "num_val_iterations_per_epoch=1",
                "batch_size=1", "num_epochs=4"]
    assert train.run(measured) == 0
    assert drawn[-1] == 4 and len(drawn) <= 2
