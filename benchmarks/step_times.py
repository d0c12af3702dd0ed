"""Clocks of one piece of work on CPU or GPU, and of copies from host to GPU."""
from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

CLOCKS = {"cpu": time.process_time, "wall": time.perf_counter}


def seconds(work: Callable[[], object], device: torch.device, clock: str = "wall") -> float:
    """Time of one call; on CUDA wall time until the GPU has finished."""
    now = CLOCKS["wall" if device.type == "cuda" else clock]
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = now()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return now() - start


def copy_times(x: Tensor, device: torch.device, repeats: int = 10) -> str:
    """How long a batch takes to the GPU, and how long the host waits for it: from pageable and from pinned memory.

    The trainer loads into pinned memory and copies without waiting, so the host goes on while the batch travels.
    """
    parts = []
    for name, batch in (("pageable", x), ("pinned", x.pin_memory())):
        whole, host = [], []
        for _ in range(repeats):
            torch.cuda.synchronize(device)
            start = time.perf_counter()
            batch.to(device, non_blocking=True)
            host.append(time.perf_counter() - start)
            torch.cuda.synchronize(device)
            whole.append(time.perf_counter() - start)
        parts.append(f"{name} memory {min(whole) * 1e3:.2f} ms, of which the host waits {min(host) * 1e3:.2f} ms")
    return f"\nbatch of {x.nbytes / 2**20:.0f} MiB to the GPU: " + "; ".join(parts)
