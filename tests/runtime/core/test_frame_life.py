"""The table of a frame's life: every state has a way out, and the docs show the same table."""

from __future__ import annotations

from pathlib import Path

import pytest

import tidesplit
from tidesplit.runtime.core.frame_life import ENDS, LIFE, FrameState, Happening, LifeError, Lives, diagram

PAGE = Path(tidesplit.__file__).parent / "docs" / "runtime.md"


def test_the_docs_show_the_table() -> None:
    _, _, rest = PAGE.read_text(encoding="utf-8").partition("```mermaid\n")
    assert rest.partition("\n```")[0] == diagram(), "docs/runtime.md: replace the diagram by that of `diagram()`"


def test_every_state_is_reached_and_has_an_end() -> None:
    assert {FrameState.TURN, *LIFE.values()} == set(FrameState)
    assert {state for state, _ in LIFE} == set(FrameState) - set(ENDS)
    waiting = set(FrameState) - set(ENDS) - {FrameState.TURN, FrameState.HEAD}
    assert all(LIFE[state, Happening.EXPIRED] in ENDS for state in waiting)


def test_a_life() -> None:
    lives = Lives()
    lives.begin(3)
    assert lives.of(3) == FrameState.TURN
    assert lives.after(3, Happening.LOCAL) == FrameState.LOCAL
    assert lives.after(3, Happening.BEGUN) == FrameState.RUNNING
    assert lives.after(3, Happening.RAN) == FrameState.DEVICE
    assert lives.of(3) is None
    for happening in Happening:
        with pytest.raises(LifeError, match=f"frame 3 is over: {happening} is not allowed"):
            lives.after(3, happening)
    with pytest.raises(LifeError, match="frame 3 had its turn already"):
        lives.begin(3)
    with pytest.raises(LifeError, match="frame 4 has not had its turn"):
        lives.of(4)


@pytest.mark.parametrize("happening", [h for h in Happening if (FrameState.TURN, h) not in LIFE])
def test_an_event_that_the_state_does_not_allow(happening: Happening) -> None:
    lives = Lives()
    lives.begin(0)
    with pytest.raises(LifeError, match=f"frame 0 is turn: {happening} is not allowed"):
        lives.after(0, happening)
    assert lives.of(0) == FrameState.TURN
