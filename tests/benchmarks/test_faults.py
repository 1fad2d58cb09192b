"""The judgement of a device's log, and the certificates that end; the cases themselves run for minutes."""

from __future__ import annotations

import inspect
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tidesplit.benchmarks.faults import CASES, Keys, Trouble, answered_since, judge
from tidesplit.runtime.wire.certificates import check_dates
from tidesplit.runtime.wire.security import client_credentials


def line(frame: int, by: str = "server", error: str | None = None) -> dict[str, Any]:
    return {"frame": frame, "answered_by": by, "error": error, "time": 100.0 + frame, "actual_ms": {"total": 500.0}}


class Ended:
    """A device with this log, which ended with this code."""

    def __init__(self, lines: list[dict[str, Any]], code: int = 128 + signal.SIGINT) -> None:
        self._lines, self._code = lines, code

    def lines(self) -> list[dict[str, Any]]:
        return self._lines

    def until(self, holds: Any, what: str) -> None:
        if not holds(self._lines):
            raise RuntimeError(what)

    def end(self) -> tuple[int, str]:
        return self._code, "server: gone\nframe 3\n"


GOOD = [line(0), line(2), line(1, "device", "gone"), *(line(k) for k in range(3, 14))]


@pytest.mark.parametrize(
    ("lines", "code", "reason", "since_s", "holds"),
    [(GOOD, 130, "gone", 102.0, True), (GOOD, 130, "another", 102.0, False), (GOOD, 0, "gone", 102.0, False),
     (GOOD, 130, "gone", 105.0, False), ([*GOOD, line(5)], 130, "gone", 102.0, False), (GOOD[1:], 130, "", None, False),
     ([line(0, "device")], 130, "", None, True)],
)  # fmt: skip
def test_judgement(lines: list[dict[str, Any]], code: int, reason: str, since_s: float | None, holds: bool) -> None:
    found = judge(Ended(lines, code), reason, since_s)  # type: ignore[arg-type]
    assert found["holds"] is holds
    assert found["said"] == bool(found["errors"])


def test_the_moment_of_the_first_frame_that_the_server_answers_later() -> None:
    assert answered_since(GOOD, 102.4)[0] == pytest.approx(0.1)
    assert answered_since([line(0, "device")], 0.0) == []


def test_each_case_has_a_sentence() -> None:
    assert all(inspect.getdoc(getattr(Trouble, name)) for name in CASES)


def test_certificates_end_when_they_should(tmp_path: Path) -> None:
    keys = Keys(tmp_path)
    keys.write("device", 5.0)
    pem = (tmp_path / "device.pem").read_bytes()
    check_dates(pem, "it")
    with pytest.raises(ValueError, match="expired"):
        check_dates(pem, "it", datetime.now(UTC) + timedelta(seconds=7))
    client_credentials(tmp_path / "ca.pem", tmp_path / "device.pem", tmp_path / "device.key")
