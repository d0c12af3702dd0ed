"""torchrun, as the documentation says it: one machine, and two of them on this one, train what -num_gpus 2 trains."""
from __future__ import annotations

import socket
import subprocess
import sys

import pytest
import torch
from tiny_dataset import PLANS, SHORT, fold_folder

from nnmiss.cli import train
from nnmiss.inference.checkpoints import read_checkpoint

TRAINING = ["801", "metakd", "0", "-p", PLANS, "-device", "cpu", "--disable_progress_bar", "--no_val", *SHORT,
            "num_epochs=2"]


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return str(free.getsockname()[1])


def launch(tag: str, *ways: tuple[str, ...]) -> list[str]:
    """Trains by one torchrun for each machine. Returns what each printed."""
    processes = [subprocess.Popen([sys.executable, "-m", "torch.distributed.run", *way, "-m", "nnmiss.cli.train", *TRAINING,
                                   "--tag", tag], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
                 for way in ways]
    printed = [process.communicate(timeout=600)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(ways), "\n".join(printed)
    return printed


@pytest.mark.slow
def test_torchrun_on_one_machine_and_on_two_is_num_gpus_2(tiny, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert train.run([*TRAINING, "--tag", "gpus", "-num_gpus", "2"]) == 0
    launch("one", ("--standalone", "--nproc_per_node", "2"))
    port = free_port()
    nodes = [("--nnodes", "2", "--nproc_per_node", "1", "--node_rank", str(number), "--master_addr", "localhost",
              "--master_port", port) for number in range(2)]
    first, second = launch("two", *nodes)
    assert "missing epoch 1/1" in first and "epoch" not in second  # the first of all writes and prints
    meeting = ("--nnodes", "2", "--nproc_per_node", "1", "--rdzv_backend", "c10d", "--rdzv_endpoint",
               f"localhost:{free_port()}")
    launch("met", meeting, meeting)
    files = [fold_folder(tiny, plans=f"{PLANS}-{tag}") / "checkpoint_final.pth" for tag in ("gpus", "one", "two", "met")]
    expected, *others = (read_checkpoint(file)["network_weights"] for file in files)
    for weights in others:
        assert weights.keys() == expected.keys()
        assert all(torch.equal(weights[name], value) for name, value in expected.items())


@pytest.mark.slow
def test_what_torchrun_cannot_train_ends_everywhere_with_one_sentence(tiny, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    process = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "3", "-m",
                              "nnmiss.cli.train", *TRAINING], capture_output=True, text=True, timeout=300)
    assert process.returncode != 0
    assert "error: a batch of 2 cannot be split over 3 processes" in process.stderr
