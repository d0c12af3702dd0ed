"""How much memory is free, and what fits into it."""
from __future__ import annotations

import os
from pathlib import Path

import torch

CONTROL_GROUP = Path("/sys/fs/cgroup")
MOST_SUBSETS = 64  # at once: beyond that little is saved, as the encoder runs once for each chunk


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
    except (AttributeError, ValueError, OSError):  # Windows and macOS do not tell
        return 4 * 2**30


def _container_limit() -> int:
    """Bytes left in this process's control group (version 2), or a number beyond any machine.

    Files that were read count as used there, but give way: without them a container has little left after some cases.
    """
    try:
        limit, used = (int((CONTROL_GROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        lines = (line.split() for line in (CONTROL_GROUP / "memory.stat").read_text().splitlines())
        cached = sum(int(value) for name, value in lines if name in ("active_file", "inactive_file"))
    except (OSError, ValueError):
        return 1 << 62
    return limit - used + cached


def how_many(bytes_each: float, device: torch.device, share: float, at_most: int) -> int:
    """How many things of `bytes_each` fit into `share` of the free memory: between 1 and `at_most`."""
    return max(1, min(at_most, int(free_bytes(device) * share / max(bytes_each, 1))))


def subsets_at_once(voxels: int, tile_voxels: int, num_outputs: int, device: torch.device) -> int:
    """How many subsets of an image are predicted together: between 1 and MOST_SUBSETS, however many there are.

    Args:
        voxels: of the image; a float32 logit of each voxel and output is kept per subset, in main memory.
        tile_voxels: of one tile; its logits under every subset are on the device, mirrored ones beside them.
        num_outputs: K.
        device: of the network.
    """
    kept = how_many(voxels * num_outputs * 4, torch.device("cpu"), 0.25, MOST_SUBSETS)
    return min(kept, how_many(tile_voxels * num_outputs * 4 * 4, device, 0.25, MOST_SUBSETS))
