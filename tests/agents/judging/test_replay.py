"""A log of the runtime that is replayed in the simulator."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.runtime.deployed import CUT_STREAM, points_of_streams
from tidesplit.agents.judging.replay import replayed_ms
from tidesplit.envs.traces.trace import Trace
from tidesplit.envs.world.vocabulary import Demand


def test_payloads_of_streams_have_the_logged_bytes() -> None:
    """The log's bytes are those of all ages of references: a key of 3,000 bytes takes 3,000 bytes' time."""
    table = points_of_streams(9)[1]
    slow = Trace("slow", np.array([0.0]), 60.0, np.array([1e6]))
    sizes = (3000, 100, 150)
    lines: list[dict[str, Any]] = [
        {"decision": CUT_STREAM, "bytes": size, "predicted_ms": {"total": 100.0}} for size in sizes
    ]
    found = replayed_ms(lines, slow, table, Demand(fps=10, deadline_s=0.5))
    assert found[:-1] - found[-1] == pytest.approx([8e-3 * (size - sizes[-1]) for size in sizes[:-1]], abs=1e-6)
