"""Bandwidth over time: the trace type, and `load_traces`, which reads trace files.

A trace is piecewise constant and loops at its end. Link arithmetic on traces is in `envs.traces.uplink`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tidesplit.data.files import TRACES
from tidesplit.envs.traces.formats import TraceError, parse
from tidesplit.envs.traces.iperf3 import is_iperf3, parse_iperf3

__all__ = ["Trace", "TraceError", "concatenate", "load_traces", "read_trace"]

SINGLE_SAMPLE_DURATION_S = 1.0  # any length would do: the trace loops, and one sample has no step
SLIVER_S = 1e-9  # a bin shorter than this comes from rounding
NOT_TRACES = {".md", ".png", ".pdf", ".py"}  # files in a folder that are no traces


@dataclass(frozen=True, eq=False)
class Trace:
    """Bandwidth of one link, constant from one bin's start to the next, repeating after `duration_s`.

    The arrays are read-only copies.

    Raises:
        TraceError: shapes differ, time does not rise from 0, or a value is negative or not finite.
    """

    name: str
    time_s: NDArray[np.float64]  # start of each bin in seconds, rising from 0, shape `[N]`
    duration_s: float  # end of the last bin, seconds
    bandwidth_bps: NDArray[np.float64]  # bits per second, shape `[N]`
    rtt_s: NDArray[np.float64] | None = None  # seconds, shape `[N]`; None where it was not measured

    def __post_init__(self) -> None:
        for field in ("time_s", "bandwidth_bps", "rtt_s"):
            if getattr(self, field) is not None:
                values = np.array(getattr(self, field), dtype=np.float64)
                values.flags.writeable = False
                object.__setattr__(self, field, values)
                self._check(field, values)
        if self.time_s[0] != 0 or not math.isfinite(self.duration_s) or (np.diff(self.edges_s) <= 0).any():
            raise TraceError(f"trace {self.name}: bin starts must begin at 0 and increase up to the duration.")

    def _check(self, field: str, values: NDArray[np.float64]) -> None:
        if values.ndim != 1 or values.size == 0 or values.shape != self.time_s.shape:
            raise TraceError(f"trace {self.name}: {field} has shape {values.shape}, expected [N] as in time_s, N >= 1.")
        if not (np.isfinite(values) & (values >= 0)).all():
            raise TraceError(f"trace {self.name}: {field} must be finite and not negative.")

    @property
    def edges_s(self) -> NDArray[np.float64]:
        """Start of every bin and the end of the last one in seconds, shape `[N + 1]`."""
        return np.append(self.time_s, self.duration_s)

    @property
    def mean_bps(self) -> float:
        """Mean over time, bits per second."""
        return float(self.bandwidth_bps @ np.diff(self.edges_s) / self.duration_s)

    def slice(self, start_s: float, end_s: float) -> Trace:
        """The part from `start_s` to `end_s`, on a clock that starts at 0. Bins at the borders are cut.

        Raises:
            ValueError: not 0 <= start_s < end_s <= duration_s.
        """
        if not 0 <= start_s < end_s <= self.duration_s:
            raise ValueError(f"got the slice {start_s} to {end_s} s, expected it within 0 to {self.duration_s} s")
        start_s, end_s = self._snap(start_s), self._snap(end_s)
        first = int(np.searchsorted(self.time_s, start_s, side="right")) - 1
        last = int(np.searchsorted(self.time_s, end_s, side="left"))
        time_s = np.maximum(self.time_s[first:last] - start_s, 0.0)
        rtt_s = None if self.rtt_s is None else self.rtt_s[first:last]
        return Trace(self.name, time_s, end_s - start_s, self.bandwidth_bps[first:last], rtt_s)

    def _snap(self, moment_s: float) -> float:
        """The border of a bin within `SLIVER_S` of `moment_s`, else `moment_s`. Rounding must not make an empty bin."""
        edges_s = self.edges_s
        nearest_s = float(edges_s[np.abs(edges_s - moment_s).argmin()])
        return nearest_s if abs(nearest_s - moment_s) < SLIVER_S else moment_s

    def split(self, fraction: float) -> tuple[Trace, Trace]:
        """The first `fraction` of the time, and the rest.

        Raises:
            ValueError: `fraction` is not between 0 and 1.
        """
        if not 0 < fraction < 1:
            raise ValueError(f"got the fraction {fraction}, expected one between 0 and 1")
        border_s = fraction * self.duration_s
        return self.slice(0.0, border_s), self.slice(border_s, self.duration_s)

    def with_offset(self, offset_s: float) -> Trace:
        """The same loop, begun `offset_s` later. Any real number is allowed."""
        start_s = offset_s % self.duration_s
        if start_s == 0.0:
            return self
        return concatenate(self.name, [self.slice(start_s, self.duration_s), self.slice(0.0, start_s)])


def concatenate(name: str, traces: list[Trace]) -> Trace:
    """One trace after the other. Round trips are kept only if every trace has them."""
    starts_s = np.cumsum([0.0, *(trace.duration_s for trace in traces)])
    time_s = np.concatenate([trace.time_s + start for trace, start in zip(traces, starts_s, strict=False)])
    rtts = [trace.rtt_s for trace in traces if trace.rtt_s is not None]
    rtt_s = np.concatenate(rtts) if len(rtts) == len(traces) else None
    bandwidth_bps = np.concatenate([trace.bandwidth_bps for trace in traces])
    return Trace(name, time_s, float(starts_s[-1]), bandwidth_bps, rtt_s)


def load_traces(spec: str | Path) -> list[Trace]:
    """Read the traces of a file, of a folder (all files below it, sorted), or a bundled trace by its name (`lte`).

    A file or folder wins over a bundled trace of the same name. In folders, hidden files, READMEs, licences,
    `.md .png .pdf .py`, and `.json` that iperf3 did not write are skipped.

    Raises:
        TraceError: nothing has that name, the folder has no trace, or a file is no valid trace.
    """
    path = Path(spec)
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file() and _may_be_trace(file, path))
        if not files:
            raise TraceError(f"{path}: the folder holds no trace, expected at least one file.")
        return [read_trace(file) for file in files]
    return [read_trace(path if path.exists() else _bundled(str(spec)))]


def read_trace(path: Path) -> Trace:
    """Read the trace in one file, in any of the formats. Its name is the file's stem.

    Raises:
        TraceError: the file cannot be read, is no text, or is no valid trace. The message has file and line.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise TraceError(f"{path}: cannot be read ({error.strerror}), expected a trace file.") from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise TraceError(f"{path}, line {line}: got bytes that are not UTF-8 text, expected a trace file.") from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise TraceError(f"{path}, line {line}: got a zero byte, expected a trace in text form.")
    samples = (parse_iperf3 if text.lstrip().startswith("{") else parse)(text, str(path))
    duration_s = samples.duration_s or _duration_s(samples.time_s)
    return Trace(path.stem, samples.time_s, duration_s, samples.bandwidth_bps, samples.rtt_s)


def _duration_s(time_s: NDArray[np.float64]) -> float:
    """End of the last bin, whose length is the median step."""
    if time_s.size == 1:
        return SINGLE_SAMPLE_DURATION_S
    return float(time_s[-1] + np.median(np.diff(time_s)))


def _may_be_trace(file: Path, root: Path) -> bool:
    relative = file.relative_to(root)
    hidden = any(part.startswith(".") for part in relative.parts)
    about = relative.name.upper().startswith(("README", "LICENSE", "LICENCE", "COPYING"))
    if hidden or about or relative.suffix.lower() in NOT_TRACES:
        return False
    return relative.suffix.lower() != ".json" or is_iperf3(file.read_text(encoding="utf-8", errors="replace"))


def _bundled(name: str) -> Path:
    if Path(name).name == name:
        for candidate in (TRACES / name, TRACES / f"{name}.csv"):
            if candidate.is_file():
                return candidate
    known = ", ".join(sorted(file.stem for file in TRACES.glob("*.csv"))) or "none"
    raise TraceError(f"trace '{name}': no such file or folder, nor a bundled trace (there is: {known}).")
