"""Freed memory stays in the process while it is asked to: tensors of one size cost hardly any new pages."""
from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from nnmiss.kept_memory import freed_memory_kept

PROGRAM = """
import resource, torch
from nnmiss.kept_memory import freed_memory_kept
def faults(rounds):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(rounds):
        torch.ones(25_000_000).sum()  # 100 MB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20
before = resident()
returned = faults(20)
with freed_memory_kept() as done:
    assert done
    faults(4)  # what lies between the blocks differs at first
    print(faults(20), returned)
    print(resident() - before)
print(resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator")
def test_later_tensors_take_the_first_ones_pages():
    lines = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True).stdout.splitlines()
    kept, returned = map(int, lines[0].split())
    assert kept < returned / 3
    assert float(lines[1]) > 90 > 10 > float(lines[2])  # MB; all is given back in the end


def test_other_libraries_are_left_alone(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("musl", "1.2"))
    with freed_memory_kept() as done:
        assert not done
