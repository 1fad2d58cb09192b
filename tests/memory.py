"""Memory of a process, as Linux counts it."""

from __future__ import annotations

from pathlib import Path


def memory_mib(process: int | str, name: str) -> float:
    """VmRSS: memory of a process that is in RAM now; VmHWM: the most that ever was. `process`: number, or "self"."""
    line = next(line for line in Path(f"/proc/{process}/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) / 1024


def forget_peak(process: int | str) -> None:
    """VmHWM counts from now on (proc(5), clear_refs)."""
    Path(f"/proc/{process}/clear_refs").write_text("5")
