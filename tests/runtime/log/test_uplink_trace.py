"""The uplink as a trace, written from the records of frames."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tidesplit.envs.traces.trace import load_traces
from tidesplit.runtime.log.uplink_trace import UplinkTrace


def record(decided_at_s: float, goodput: float, age_s: float, rtt_s: float = 0.0638, **more: Any) -> Any:
    """What a frame's record has of its decision. `goodput`: bytes a second of the newest answer, `age_s` old."""
    state = {"goodput_last": goodput, "goodput_age_s": age_s, "rtt_s": rtt_s, "stalled_s": more.pop("stalled_s", 0.0)}
    return SimpleNamespace(decided_at_s=decided_at_s, state=state, breaker=more.pop("breaker", "closed"))


def test_known_answers(tmp_path: Path) -> None:
    file = tmp_path / "uplink.csv"
    write = UplinkTrace(file)
    write(record(0.9, 125_000.0, 10.0))  # no answer yet
    write(record(1.1, 125_000.0, 0.05))  # 1 Mbit/s
    write(record(1.2, 500_000.0, 0.05))  # 4 Mbit/s: the mean pace of both is that of 1.6
    write(record(1.3, 500_000.0, 0.15))  # the same answer again
    write(record(2.2, 250_000.0, 0.1, rtt_s=0.1038))  # 2 Mbit/s, after a bin without a message
    write(record(2.6, 250_000.0, 0.5, stalled_s=0.6))  # an outage
    write(record(3.2, 250_000.0, 1.1, breaker="open"))
    write(record(3.4, 250_000.0, 0.1))  # half a bin of silence
    for frame in range(200):
        write(record(3.6 + frame / 30, 125_000.0, 0.03))
    assert len(file.read_text().splitlines()) > 8  # rows are written as soon as nothing can change them
    write.close()
    (trace,) = load_traces(file)
    assert trace.time_s.tolist() == [0.5 * k for k in range(len(trace.time_s))]
    assert trace.duration_s == pytest.approx(9.5)
    assert (trace.bandwidth_bps / 1e6)[:6] == pytest.approx([1.6, 1.6, 2.0, 0.0, 1.0, 1.0])
    assert trace.bandwidth_bps[-1] == pytest.approx(1e6)
    assert trace.rtt_s is not None
    assert trace.rtt_s[:3] == pytest.approx([0.06, 0.06, 0.1])
    assert np.isfinite(trace.rtt_s).all()


def test_a_file_that_is_there_or_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "old.csv").write_text("")
    with pytest.raises(ValueError, match=r"--record-trace .*old.csv: the file exists already"):
        UplinkTrace(tmp_path / "old.csv")
    with pytest.raises(ValueError, match=r"--record-trace .*x.csv cannot be written: No such file or directory"):
        UplinkTrace(tmp_path / "none" / "x.csv")
