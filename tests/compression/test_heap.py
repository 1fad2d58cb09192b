"""Free memory between live blocks is given back."""

from __future__ import annotations

import sys

import pytest

from tests.runtime.waiting import until
from tidesplit.benchmarks.processes import memory_mib
from tidesplit.compression.heap import trimmed_heap

BLOCK, COUNT = 16 * 1024, 4096  # 64 MiB


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc")
def test_holes_in_the_heap_are_given_back() -> None:
    live = [bytearray(b"x" * BLOCK) for _ in range(COUNT)]
    full_mib = memory_mib("self")
    with trimmed_heap(every_s=0.01):
        live = live[::16]  # what stays lies between the holes
        until(lambda: memory_mib("self") < full_mib - 40)
    assert len(live) == COUNT // 16
