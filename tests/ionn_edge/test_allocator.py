"""The C allocator of a process that runs layers, in a process as fresh as a worker's."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ionn_edge.workers.allocator import keep_freed_memory

# 36 MiB, more than glibc ever keeps by itself; printed are the pages that eight of them took anew.
SCRIPT = """
import resource, torch
from ionn_edge.workers.allocator import keep_freed_memory
torch.set_num_threads(1)
keep_freed_memory()
source = torch.zeros(9 << 20)
torch.relu(source)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(8):
    torch.relu(source)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_freed_memory_is_kept_and_large_blocks_are_not_mapped_anew() -> None:
    if not keep_freed_memory():
        pytest.skip("another C library")
    shown = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=120
    )
    # Of eight; by where random addresses fall, two of them were seen to be new.
    assert int(shown.stdout) < 4 * (36 << 20) // 4096
