"""Answers to frames and probes: values and timings, built by servers, checked and read by those who asked.

A server writes timings as parameters of its answer, each named after a field below. Parameters of the second hop begin
with `next_` (one frame) or `hop_` (the newest message). `runtime.wire.messages` has the requests.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from tidesplit.runtime.wire.messages import (
    MAX_PARAMETERS,
    MAX_TEXT_CHARACTERS,
    PROBE,
    Request,
    model_name,
    short,
)
from tidesplit.runtime.wire.output_tensors import OUTPUT, AnswerForm
from tidesplit.runtime.wire.protocol import MESSAGES

MOST_S, MOST_CLOCK_S = 3600.0, 1e10
MOST = {
    "received_s": MOST_CLOCK_S,
    "clock": 2.0**53,
    "hop_age_s": MOST_CLOCK_S,
    "hop_payload": 1e9,
}  # of all others MOST_S
Logits = NDArray[np.float32]
Times = TypeVar("Times", "ServerTiming", "NextTiming", "HopTimes")


class AnswerError(ValueError):
    """An answer that cannot be true. The sentence has the value received and the one expected."""


@dataclass(frozen=True)
class ServerTiming:
    """A server's own report on one request.

    `received_s` is its clock when the request came, `wait_s` the time in the queue, `compute_s` decoding and running.
    `clock` names that clock: a whole number that the server drew at its start, 0 where it does not say one.
    """

    received_s: float
    wait_s: float
    compute_s: float
    clock: float = 0.0


@dataclass(frozen=True)
class NextTiming:
    """The middle server's report on a frame that it sent on.

    `total_s` is the time there and back. `wait_s` and `compute_s` are the next server's own. `uplink_s` is the time
    that the bytes took, `rtt_s` the rest of the total.
    """

    total_s: float
    wait_s: float
    compute_s: float
    uplink_s: float
    rtt_s: float


@dataclass(frozen=True)
class HopTimes:
    """The newest answered message on the second hop, from any device.

    `payload` is its size in bytes with overhead, `age_s` the time since its answer. `uplink_s` and `rtt_s` are those of
    `NextTiming`.
    """

    payload: float
    uplink_s: float
    rtt_s: float
    age_s: float


@dataclass(frozen=True)
class ProbeAnswer:
    """The server's clock when a probe came, a frame's expected wait there, and the newest times of the second hop.

    `clock` is that of `ServerTiming`.
    """

    received_s: float
    wait_s: float
    newest: HopTimes | None = None
    clock: float = 0.0


@dataclass(frozen=True)
class FrameAnswer:
    """The values of one frame's answer, such as logits `[classes]`, and its timings.

    `next_timing` is there where the middle server sent the frame on. `fell_back` is the reason why it could not, empty
    if there is none. `newest` has its newest times of the second hop.
    """

    frame: str
    logits: Logits
    timing: ServerTiming
    next_timing: NextTiming | None = None
    fell_back: str = ""
    newest: HopTimes | None = None


def build_answer(request: Request, answer: FrameAnswer, form: AnswerForm) -> Any:
    """ModelInferResponse to a frame."""
    message = MESSAGES["ModelInferResponse"](
        model_name=model_name(request.cnn, request.partition), model_version=request.version, id=answer.frame
    )
    if request.class_count:
        best = _best(answer.logits, request.class_count, form.classes)
        message.outputs.add(name=OUTPUT, datatype="BYTES", shape=[1, len(best)])
        message.raw_output_contents.append(b"".join(len(one).to_bytes(4, "little") + one for one in best))
    else:
        for name, tensor in form.tensors(answer.logits).items():
            if not request.outputs or name in request.outputs:
                message.outputs.add(name=name, datatype="FP32", shape=tensor.shape)
                message.raw_output_contents.append(tensor.astype("<f4").tobytes())
    _put(message, "", vars(answer.timing))
    if answer.next_timing is not None:
        _put(message, "next_", vars(answer.next_timing))
    if answer.newest is not None:
        _put(message, "hop_", vars(answer.newest))
    if answer.fell_back:
        message.parameters["fell_back"].string_param = answer.fell_back[:MAX_TEXT_CHARACTERS]
    return message


def _best(logits: Logits, count: int, classes: Sequence[str]) -> list[bytes]:
    """The best classes, best first, in Triton's form `logit:index:name`."""
    order = np.argsort(-logits, kind="stable")[:count]
    return [f"{logits[index]:f}:{index}:{classes[index]}".encode() for index in order]


def build_probe_answer(number: str, answer: ProbeAnswer) -> Any:
    """ModelInferResponse to a probe."""
    message = MESSAGES["ModelInferResponse"](model_name=PROBE, id=number)
    _put(message, "", {"received_s": answer.received_s, "wait_s": answer.wait_s, "clock": answer.clock})
    if answer.newest is not None:
        _put(message, "hop_", vars(answer.newest))
    return message


def receipt(timing: ServerTiming) -> tuple[tuple[str, str], ...]:
    """Initial metadata with which the middle server confirms a frame before it sends it on."""
    return tuple((f"{name.removesuffix('_s')}-s", repr(value)) for name, value in vars(timing).items())


def read_receipt(metadata: Iterable[tuple[str, Any]]) -> ServerTiming | None:
    """The timing in a receipt; None where the metadata is none, or holds times that cannot be true."""
    found = dict(metadata)
    try:
        received_s, wait_s, compute_s = (float(found[f"{name}-s"]) for name in ("received", "wait", "compute"))
        clock = float(found.get("clock-s", 0.0))
    except (KeyError, TypeError, ValueError):
        return None
    believable = (
        0.0 <= received_s <= MOST_CLOCK_S
        and 0.0 <= clock <= MOST["clock"]
        and all(0.0 <= s <= MOST_S for s in (wait_s, compute_s))
    )
    return ServerTiming(received_s, wait_s, compute_s, clock) if believable else None


def read_answer(message: Any, request: Request, form: AnswerForm) -> FrameAnswer:
    """The answer to `request`.

    Raises:
        AnswerError: any part of it cannot be true.
    """
    _expect("model", message.model_name, model_name(request.cnn, request.partition))
    _expect("version", message.model_version, request.version)
    _expect("id", message.id, request.frame)
    found = _parameters(message)
    return FrameAnswer(
        frame=request.frame,
        logits=_values(message, form),
        timing=_times(found, "", ServerTiming),
        next_timing=_times(found, "next_", NextTiming) if "next_total_s" in found else None,
        fell_back=found["fell_back"].string_param[:MAX_TEXT_CHARACTERS] if "fell_back" in found else "",
        newest=_newest(found),
    )


def read_probe_answer(message: Any, number: str) -> ProbeAnswer:
    """The answer to the probe of that number.

    Raises:
        AnswerError: any part of it cannot be true.
    """
    _expect("model", message.model_name, PROBE)
    _expect("id", message.id, number)
    found = _parameters(message)
    clock = _number(found, "clock") if "clock" in found else 0.0
    return ProbeAnswer(_number(found, "received_s"), _number(found, "wait_s"), _newest(found), clock)


def _put(message: Any, prefix: str, times: Mapping[str, float]) -> None:
    for key, value in times.items():
        message.parameters[prefix + key].double_param = value


def _parameters(message: Any) -> dict[str, Any]:
    return {key: message.parameters[key] for key in list(message.parameters)[:MAX_PARAMETERS]}


def _newest(found: Mapping[str, Any]) -> HopTimes | None:
    return _times(found, "hop_", HopTimes) if "hop_payload" in found else None


def _times(found: Mapping[str, Any], prefix: str, kind: type[Times]) -> Times:
    names = [f.name for f in fields(kind) if f.default is MISSING or prefix + f.name in found]
    return kind(**{name: _number(found, prefix + name) for name in names})


def _values(message: Any, form: AnswerForm) -> Logits:
    """Finite float32 `[values]` of all tensors."""
    _expect("number of outputs", len(message.outputs), len(form.shapes))
    for tensor, (name, shape) in zip(message.outputs, form.shapes.items(), strict=True):
        _expect("output", tensor.name, name)
        _expect("datatype", tensor.datatype, "FP32")
        _expect("shape", list(tensor.shape[: len(shape) + 1]), list(shape))
    raw = message.raw_output_contents
    _expect("bytes of outputs", [len(one) for one in raw[: len(form.shapes) + 1]], form.byte_sizes)
    values = np.frombuffer(raw[0] if len(raw) == 1 else b"".join(raw), dtype="<f4").astype(np.float32)
    if not np.isfinite(values).all():
        raise AnswerError("values that are not finite received: the server's weights or memory are broken")
    return values


def _number(found: Mapping[str, Any], key: str) -> float:
    """Seconds or bytes within plausible limits. One absurd value would spoil every later estimate of the link."""
    given = key in found and found[key].WhichOneof("parameter_choice") == "double_param"
    value = float(found[key].double_param) if given else math.nan
    most = MOST.get(key, MOST_S)
    if not 0.0 <= value <= most:
        raise AnswerError(f"{key}: {value} received, a number from 0 to {most:g} expected")
    return value


def _expect(what: str, received: object, expected: object) -> None:
    if received != expected:
        raise AnswerError(f"{what}: {short(str(received))} received, {short(str(expected))} expected")
