"""Memory of a process, as Linux counts it."""

from __future__ import annotations

import ctypes
from pathlib import Path


def memory_mib(process: int | str, name: str) -> float:
    """VmRSS: memory of a process that is in RAM now; VmHWM: the most that ever was. `process`: number, or "self"."""
    line = next(line for line in Path(f"/proc/{process}/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) / 1024


def forget_peak(process: int | str) -> None:
    """VmHWM counts from now on (proc(5), clear_refs)."""
    Path(f"/proc/{process}/clear_refs").write_text("5")


class _Allocated(ctypes.Structure):
    """glibc's struct mallinfo2 (mallinfo(3))."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    ]  # fmt: skip


def live_mib() -> float | None:
    """Memory that this process has asked of malloc and not freed, in MiB. None where the C library cannot tell.

    Unlike VmRSS it does not move with holes in the heap, so a leak shows in it and nothing else does.
    """
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallinfo2"):
        return None
    libc.mallinfo2.restype = _Allocated
    found = libc.mallinfo2()
    return (found.uordblks + found.hblkhd) / 2**20
