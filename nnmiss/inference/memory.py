"""How much memory is free, and what fits into it."""
from __future__ import annotations

import os
from pathlib import Path

import torch


def free_bytes(device: torch.device) -> int:
    """Bytes free on the device; for the CPU what Linux calls available, within a container's limit if there is one."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # torch's own cache
        return torch.cuda.mem_get_info(device)[0] + unused
    return min(_available_memory(), _container_limit())


def _available_memory() -> int:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):  # macOS does not tell
        return 4 * 2**30


def _container_limit() -> int:
    """Bytes left in this process's control group (version 2), or a number beyond any machine."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit = (folder / "memory.max").read_text().strip()
        return int(limit) - int((folder / "memory.current").read_text())
    except (OSError, ValueError):
        return 1 << 62


def how_many(bytes_each: float, device: torch.device, share: float, at_most: int) -> int:
    """How many things of `bytes_each` fit into `share` of the free memory: between 1 and `at_most`."""
    return max(1, min(at_most, int(free_bytes(device) * share / max(bytes_each, 1))))
