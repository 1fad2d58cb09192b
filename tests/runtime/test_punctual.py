"""Only a busy machine excuses a test that fails."""

from __future__ import annotations

import pytest

from tests.runtime import punctual


def tried(monkeypatch: pytest.MonkeyPatch, late_s: float, fails: int, load: float = 0.0) -> int:
    """The number of runs of a test that fails the first `fails` times."""
    monkeypatch.setattr(punctual.Lateness, "usual_s", late_s)
    monkeypatch.setattr(punctual.os, "getloadavg", lambda: (load, load, load))
    runs = 0

    @punctual.on_time
    def test() -> None:
        nonlocal runs
        runs += 1
        assert runs > fails

    test()
    return runs


def test_a_second_failure_on_a_punctual_machine_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tried(monkeypatch, late_s=0.001, fails=1) == 2
    with pytest.raises(AssertionError):
        tried(monkeypatch, late_s=0.001, fails=2)


def test_a_busy_machine_tries_again_and_then_skips(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tried(monkeypatch, late_s=0.010, fails=0) == 1
    assert tried(monkeypatch, late_s=0.010, fails=2) == 3
    with pytest.raises(pytest.skip.Exception, match="10 ms late"):
        tried(monkeypatch, late_s=0.010, fails=3)


def test_too_many_processes_excuse_too(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tried(monkeypatch, late_s=0.001, fails=2, load=1000.0) == 3


def test_lateness_is_measured() -> None:
    with punctual.Lateness() as lateness:
        pass
    assert lateness.usual_s >= 0.0
