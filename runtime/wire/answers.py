"""What comes back, as values: logits and the times they took; an answer is believed only when all of it fits.

Both sides use these functions, as they do those of `runtime.wire.messages`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidesplit.runtime.wire.messages import (
    MAX_PARAMETERS,
    MAX_TEXT_CHARACTERS,
    OUTPUT,
    PROBE,
    Request,
    model_name,
    short,
)
from tidesplit.runtime.wire.protocol import MESSAGES

__all__ = [
    "Answer", "AnswerError", "Crossing", "NextTiming", "ProbeAnswer", "Timing", "build_answer", "build_probe_answer",
    "read_answer", "read_probe_answer", "read_receipt", "receipt",
]  # fmt: skip

MOST_S, MOST_CLOCK_S = 3600.0, 1e10
MOST = {"received_s": MOST_CLOCK_S, "crossing_age_s": MOST_CLOCK_S, "crossing_payload": 1e9}  # others: MOST_S
Logits = NDArray[np.float32]


class AnswerError(ValueError):
    """An answer that cannot be believed: what was received and what was expected."""


@dataclass(frozen=True)
class Timing:
    """What one tier says of itself: its own clock when the request came; waiting for a worker; decode and run."""

    received_s: float
    wait_s: float
    compute_s: float


@dataclass(frozen=True)
class NextTiming:
    """The tier behind, as the middle tier saw it: there and back, what it said of itself, and the link between.

    `uplink_s`: what the bytes took; `rtt_s`: the rest of the way there and back, without waiting and computing.
    """

    total_s: float
    wait_s: float
    compute_s: float
    uplink_s: float
    rtt_s: float


@dataclass(frozen=True)
class Crossing:
    """The newest message that the tier behind has answered, whoever's it was.

    `payload`: its bytes, with overhead; `age_s`: how long ago it was answered; the rest as in `NextTiming`.
    """

    payload: float
    uplink_s: float
    rtt_s: float
    age_s: float


@dataclass(frozen=True)
class ProbeAnswer:
    """The server's clock when a probe came, the wait that it expects, and the newest crossing, if there was any."""

    received_s: float
    wait_s: float
    newest: Crossing | None = None


@dataclass(frozen=True)
class Answer:
    """Logits `[classes]` and times. `fell_back`: why a middle tier answered by itself; empty if it did not have to.

    `newest`: what the middle tier knows of the link behind it.
    """

    frame: str
    logits: Logits
    timing: Timing
    next_timing: NextTiming | None = None
    fell_back: str = ""
    newest: Crossing | None = None


def build_answer(request: Request, answer: Answer) -> Any:
    """ModelInferResponse to one frame."""
    message = MESSAGES["ModelInferResponse"](
        model_name=model_name(request.cnn, request.partition), model_version=request.version, id=answer.frame
    )
    message.outputs.add(name=OUTPUT, datatype="FP32", shape=[1, answer.logits.size])
    message.raw_output_contents.append(answer.logits.astype("<f4").tobytes())
    _put(message, "", vars(answer.timing))
    if answer.next_timing is not None:
        _put(message, "next_", vars(answer.next_timing))
    if answer.newest is not None:
        _put(message, "crossing_", vars(answer.newest))
    if answer.fell_back:
        message.parameters["fell_back"].string_param = answer.fell_back[:MAX_TEXT_CHARACTERS]
    return message


def build_probe_answer(number: str, answer: ProbeAnswer) -> Any:
    """ModelInferResponse to a probe."""
    message = MESSAGES["ModelInferResponse"](model_name=PROBE, id=number)
    _put(message, "", {"received_s": answer.received_s, "wait_s": answer.wait_s})
    if answer.newest is not None:
        _put(message, "crossing_", vars(answer.newest))
    return message


def receipt(timing: Timing) -> tuple[tuple[str, str], ...]:
    """Initial metadata by which a middle tier says that it has a frame and sends it on."""
    return tuple((f"{name.removesuffix('_s')}-s", repr(value)) for name, value in vars(timing).items())


def read_receipt(metadata: Iterable[tuple[str, Any]]) -> Timing | None:
    """What `receipt` says; None where it is not one, or not to be believed."""
    told = dict(metadata)
    try:
        received_s, wait_s, compute_s = (float(told[f"{name}-s"]) for name in ("received", "wait", "compute"))
    except (KeyError, TypeError, ValueError):
        return None
    believable = 0.0 <= received_s <= MOST_CLOCK_S and all(0.0 <= s <= MOST_S for s in (wait_s, compute_s))
    return Timing(received_s, wait_s, compute_s) if believable else None


def _put(message: Any, prefix: str, times: Mapping[str, float]) -> None:
    for key, seconds in times.items():
        message.parameters[prefix + key].double_param = seconds


def read_answer(message: Any, request: Request, classes: int) -> Answer:
    """The answer to `request`; AnswerError unless all of it is as it must be."""
    _believe("model", message.model_name, model_name(request.cnn, request.partition))
    _believe("version", message.model_version, request.version)
    _believe("id", message.id, request.frame)
    told = _told(message)
    behind = None
    if "next_total_s" in told:
        behind = NextTiming(*(_number(told, f"next_{field.name}") for field in fields(NextTiming)))
    return Answer(
        frame=request.frame,
        logits=_logits(message, classes),
        timing=Timing(*(_number(told, key) for key in ("received_s", "wait_s", "compute_s"))),
        next_timing=behind,
        fell_back=told["fell_back"].string_param[:MAX_TEXT_CHARACTERS] if "fell_back" in told else "",
        newest=_crossing(told),
    )


def read_probe_answer(message: Any, number: str) -> ProbeAnswer:
    """The answer to that probe; AnswerError unless all of it is as it must be."""
    _believe("model", message.model_name, PROBE)
    _believe("id", message.id, number)
    told = _told(message)
    return ProbeAnswer(_number(told, "received_s"), _number(told, "wait_s"), _crossing(told))


def _told(message: Any) -> dict[str, Any]:
    return {key: message.parameters[key] for key in list(message.parameters)[:MAX_PARAMETERS]}


def _crossing(told: Mapping[str, Any]) -> Crossing | None:
    if "crossing_payload" not in told:
        return None
    return Crossing(*(_number(told, f"crossing_{field.name}") for field in fields(Crossing)))


def _logits(message: Any, classes: int) -> Logits:
    """Finite float32 `[classes]`."""
    _believe("number of outputs", len(message.outputs), 1)
    tensor = message.outputs[0]
    _believe("output", tensor.name, OUTPUT)
    _believe("datatype", tensor.datatype, "FP32")
    _believe("shape", list(tensor.shape[:4]), [1, classes])
    _believe("bytes of logits", [len(raw) for raw in message.raw_output_contents[:2]], [4 * classes])
    logits = np.frombuffer(message.raw_output_contents[0], dtype="<f4").astype(np.float32)
    if not np.isfinite(logits).all():
        raise AnswerError("logits that are not finite received: the server's weights or memory are broken")
    return logits


def _number(told: Mapping[str, Any], key: str) -> float:
    """Seconds, or bytes, that may be: what is absurd would make every belief absurd."""
    given = key in told and told[key].WhichOneof("parameter_choice") == "double_param"
    value = float(told[key].double_param) if given else math.nan
    most = MOST.get(key, MOST_S)
    if not 0.0 <= value <= most:
        raise AnswerError(f"{key}: {value} received, a number from 0 to {most:g} expected")
    return value


def _believe(what: str, received: object, expected: object) -> None:
    if received != expected:
        raise AnswerError(f"{what}: {short(str(received))} received, {short(str(expected))} expected")
