"""Time head, encode, decode, tail and finish of every operating point on this machine, in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import onnx
import onnxruntime
from rich.progress import Progress

from tidesplit.compression.codec.image_codec import decode_image, encode_image
from tidesplit.compression.codec.knobs import RATIOS, Knobs, device_id
from tidesplit.compression.codec.pixels import Pixels, natural_picture, to_input
from tidesplit.compression.net.deploy import device_model, finish_model, head_model, tail_model
from tidesplit.compression.session import session
from tidesplit.profiling.measuring.clock import Measurement, machine_facts, time_interleaved
from tidesplit.profiling.measuring.trained import IMAGE_POINTS, Trained
from tidesplit.profiling.points.profile import DeviceTable, Provenance, Timing

Work = dict[str, Callable[[], object]]


def _network_work(trained: Trained, pixels: Pixels, threads: int, work: Work) -> dict[tuple[int, float], Any]:
    """Add a function for each graph: device, tail, head, finish. Returns the heads' outputs by partition and ratio."""
    system, outputs = trained.system, {}
    x = to_input(pixels)

    def opened(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
        return session(model.SerializeToString(), threads)

    def from_pixels(run: onnxruntime.InferenceSession) -> Callable[[], object]:
        return lambda: run.run(None, {"x": to_input(pixels)})

    for ratio in RATIOS:
        work[f"device {ratio}"] = from_pixels(opened(device_model(system, ratio)))
    for partition in range(system.net.partitions):
        run = opened(tail_model(system, partition))
        shape = run.get_inputs()[0].shape
        value = x if partition == 0 else np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
        work[f"tail {partition}"] = partial(run.run, None, {"x": value})
    for partition in range(1, system.net.partitions):
        for ratio in RATIOS:
            run = opened(head_model(system, partition, ratio))
            work[f"head {partition} {ratio}"] = from_pixels(run)
            feature, y, score = run.run(None, {"x": x})
            outputs[partition, ratio] = (y[0], score[0, 0])
            finish = opened(finish_model(system, partition, ratio))
            work[f"finish {partition} {ratio}"] = partial(finish.run, None, {"x": feature})
    return outputs


def _codec_work(trained: Trained, pixels: Pixels, outputs: dict[tuple[int, float], Any], work: Work) -> None:
    """Add encode and decode of every point."""
    wire, px = trained.codec.wire, pixels.shape[0]
    for knobs in trained.knobs:
        y, score = outputs[knobs.partition, knobs.ratio]
        payload = wire.encode(y, score, knobs)
        work[f"encode {knobs.id}"] = partial(wire.encode, y, score, knobs)
        work[f"decode {knobs.id}"] = partial(wire.decode, payload)
    for point in IMAGE_POINTS:
        payload = encode_image(pixels, point.codec, point.quality)
        work[f"encode {point.id}"] = partial(encode_image, pixels, point.codec, point.quality)
        work[f"decode {point.id}"] = lambda p=payload: to_input(decode_image(p, px))  # type: ignore[misc]


def _cut_timing(times: dict[str, float], knobs: Knobs) -> Timing:
    where = f"{knobs.partition} {knobs.ratio}"
    return Timing(
        head_s=times[f"head {where}"], encode_s=times[f"encode {knobs.id}"], decode_s=times[f"decode {knobs.id}"],
        tail_s=times[f"tail {knobs.partition}"], finish_s=times[f"finish {where}"],
    )  # fmt: skip


def _timings(trained: Trained, times: dict[str, float]) -> dict[str, Timing]:
    """Timings by point id. Image offload has no head, and falls back to a whole run of the narrowest net."""
    rows = {knobs.id: _cut_timing(times, knobs) for knobs in trained.knobs}
    for point in IMAGE_POINTS:
        rows[point.id] = Timing(
            head_s=0.0, encode_s=times[f"encode {point.id}"], decode_s=times[f"decode {point.id}"],
            tail_s=times["tail 0"], finish_s=times[f"device {RATIOS[0]}"],
        )  # fmt: skip
    for ratio in RATIOS:
        whole = times[f"device {ratio}"]
        rows[device_id(ratio)] = Timing(head_s=whole, encode_s=0.0, decode_s=0.0, tail_s=0.0, finish_s=0.0)
    return rows


def measure_latency(
    trained: Trained, threads: int, rounds: int = 6, runs: int = 5
) -> tuple[DeviceTable, dict[str, Measurement]]:
    """The table of this machine, and the raw measurements that it is made of. The arguments are those of the timing."""
    pixels = natural_picture(trained.system.net.input_px)
    work: Work = {}
    _codec_work(trained, pixels, _network_work(trained, pixels, threads, work), work)
    with Progress() as bar:
        task = bar.add_task("timing", total=rounds * len(work))
        measured = time_interleaved(work, rounds, runs, tick=lambda: bar.advance(task))
    noisy = [name for name, m in measured.items() if m.noisy]
    provenance = Provenance(
        kind="measured", source="tidesplit profile latency", machine=machine_facts(threads), n=rounds * runs,
        spread={
            "kind": "lower quartile over rounds of the fastest run; spread: interquartile range over median of rounds",
            "median": float(np.median([m.spread for m in measured.values()])),
            "largest": max(m.spread for m in measured.values()), "noisy": len(noisy), "timed": len(measured),
        },
    )  # fmt: skip
    times = {name: m.quiet_s for name, m in measured.items()}
    return DeviceTable(provenance=provenance, timings=_timings(trained, times)), measured
