"""The life of one frame as a table, from its turn to the one who answered it. The diagram of the docs is drawn from it.

Only the life is here. Moments are the schedule's, and what a message says of the links is their own matter.
"""

from __future__ import annotations

from enum import StrEnum

from tidesplit.runtime.log.record import AnsweredBy

__all__ = ["ENDS", "LIFE", "FrameState", "Happening", "LifeError", "Lives", "diagram"]


class FrameState(StrEnum):
    """States of a frame. The last three are its ends."""

    TURN = "turn"  # its point is being chosen
    HEAD = "head"  # its head waits or runs
    SENT = "sent"  # its answer is awaited, and the device's own run has not begun
    LOCAL = "local"  # only the device can answer, and its run has not begun
    RACING = "racing"  # the answer is awaited, and the own run is under way
    RUNNING = "running"  # only the own run is under way
    DEVICE_HELD = "device_held"  # the device's answer is in hand, and the server's would be better
    SERVER_HELD = "server_held"  # the server's answer is in hand, and the device's would be better
    SPENT = "spent"  # the answer is awaited, and the own run gave none
    HOPELESS = "hopeless"  # neither will come
    SERVER = "server"
    DEVICE = "device"
    MISS = "miss"


class Happening(StrEnum):
    """Events of a frame's life."""

    DROPPED = "dropped"
    ENCODED_NEXT = "to be sent"
    LOCAL = "whole net"
    SENT = "head done"
    BEGUN = "run begins"
    ANSWERED = "answered"
    WORSE_ANSWERED = "answered, but a better one comes"
    FAILED = "message failed"  # or its answer came after the deadline
    RAN = "run ended"
    WORSE_RAN = "run ended, but a better one comes"
    RUN_FAILED = "run failed"  # or ended after the deadline
    EXPIRED = "deadline"


class LifeError(RuntimeError):
    """An event that a frame's state does not allow."""


S, H = FrameState, Happening
ENDS: dict[FrameState, AnsweredBy] = {S.SERVER: "server", S.DEVICE: "device", S.MISS: "miss"}
LIFE: dict[tuple[FrameState, Happening], FrameState] = {
    (S.TURN, H.DROPPED): S.MISS,
    (S.TURN, H.ENCODED_NEXT): S.HEAD,
    (S.TURN, H.LOCAL): S.LOCAL,
    (S.HEAD, H.SENT): S.SENT,
    (S.SENT, H.BEGUN): S.RACING,
    (S.SENT, H.ANSWERED): S.SERVER,
    (S.SENT, H.FAILED): S.LOCAL,
    (S.SENT, H.EXPIRED): S.MISS,
    (S.LOCAL, H.BEGUN): S.RUNNING,
    (S.LOCAL, H.EXPIRED): S.MISS,
    (S.RACING, H.ANSWERED): S.SERVER,
    (S.RACING, H.WORSE_ANSWERED): S.SERVER_HELD,
    (S.RACING, H.FAILED): S.RUNNING,
    (S.RACING, H.RAN): S.DEVICE,
    (S.RACING, H.WORSE_RAN): S.DEVICE_HELD,
    (S.RACING, H.RUN_FAILED): S.SPENT,
    (S.RACING, H.EXPIRED): S.MISS,
    (S.RUNNING, H.RAN): S.DEVICE,
    (S.RUNNING, H.RUN_FAILED): S.HOPELESS,
    (S.RUNNING, H.EXPIRED): S.MISS,
    (S.DEVICE_HELD, H.ANSWERED): S.SERVER,
    (S.DEVICE_HELD, H.FAILED): S.DEVICE,
    (S.DEVICE_HELD, H.EXPIRED): S.DEVICE,
    (S.SERVER_HELD, H.RAN): S.DEVICE,
    (S.SERVER_HELD, H.RUN_FAILED): S.SERVER,
    (S.SERVER_HELD, H.EXPIRED): S.SERVER,
    (S.SPENT, H.ANSWERED): S.SERVER,
    (S.SPENT, H.FAILED): S.HOPELESS,
    (S.SPENT, H.EXPIRED): S.MISS,
    (S.HOPELESS, H.EXPIRED): S.MISS,
}


class Lives:
    """The states of all frames that have no end. Their numbers grow."""

    def __init__(self) -> None:
        self._states: dict[int, FrameState] = {}
        self._newest = -1

    def begin(self, number: int) -> None:
        """Take a frame at its turn."""
        if number <= self._newest:
            raise LifeError(f"frame {number} had its turn already")
        self._newest, self._states[number] = number, FrameState.TURN

    def of(self, number: int) -> FrameState | None:
        """The state of a frame, None after its end."""
        if number > self._newest:
            raise LifeError(f"frame {number} has not had its turn")
        return self._states.get(number)

    def after(self, number: int, happening: Happening) -> FrameState:
        """The frame's next state. After its end it is forgotten.

        Raises:
            LifeError: the state does not allow the event.
        """
        state = self.of(number)
        if state is None or (found := LIFE.get((state, happening))) is None:
            raise LifeError(f"frame {number} is {state or 'over'}: {happening} is not allowed")
        self._states[number] = found
        if found in ENDS:
            del self._states[number]
        return found


def diagram() -> str:
    """The table as a state diagram in Mermaid. Events that lead from one state to the same other one share an arrow."""
    arrows: dict[tuple[FrameState, FrameState], list[str]] = {}
    for (state, happening), found in LIFE.items():
        arrows.setdefault((state, found), []).append(happening.value)
    lines = [f"{state} --> {found}: {' / '.join(names)}" for (state, found), names in arrows.items()]
    ends = [f"{state} --> [*]" for state in FrameState if state in ENDS]
    return "\n    ".join(["stateDiagram-v2", f"[*] --> {S.TURN}", *lines, *ends])
