"""What is timed of a stream's codec: both ends at work on the frames of a moving camera, each relative to the last."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count, islice, repeat
from typing import NamedTuple

import numpy as np

from tidesplit.compression.codec.pixels import Pixels, natural_picture, to_input
from tidesplit.compression.pictures.clips import CAMERAS, MARGIN, camera_frames
from tidesplit.profiling.streams.senders import Sender

FRAMES = 12  # of the film that is timed again and again; once in so many the decoder gets a key


class Ends(NamedTuple):
    """Functions that encode the next frame, and decode the next payload up to the tail's input."""

    encode: Callable[[], object]
    decode: Callable[[], object]


def film(px: int) -> list[Pixels]:
    """Frames `[px, px, 3]` of a vehicle's camera over a natural picture."""
    still = natural_picture(round(MARGIN * px))
    return list(islice(camera_frames(repeat(still), CAMERAS["vehicle"], px, np.random.default_rng(0)), FRAMES))


def ends(opened: Callable[[], Sender], picture: bool) -> Ends:
    """The work of both ends on a film. `picture`: True where a picture arrives, which is scaled for the tail."""
    sender, receiver, recorder = opened(), opened(), opened()
    payloads = [recorder.send(k, k == 0) for k in range(FRAMES)]
    sent, received = count(), count()

    def decode() -> object:
        arrived = receiver.receive(payloads[next(received) % FRAMES])
        return to_input(arrived) if picture else arrived  # type: ignore[arg-type]

    return Ends(lambda: sender.send(next(sent) % FRAMES, False), decode)
