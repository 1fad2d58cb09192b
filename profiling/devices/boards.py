"""Raspberry Pi boards and inference engines, as factors over TensorFlow Lite on a Pi 4. Every number has its source.

`mlperf` fits the two rates of TensorFlow Lite, since its rows are measured for float32 and integers alike. No row has
ONNX Runtime or ncnn. They get a factor each, and the other boards another one. A test compares the constants that come
from MLPerf's rows with the rows, where those are at hand.
"""

from __future__ import annotations

from dataclasses import dataclass

from tidesplit.compression.codec.knobs import FLOAT32, INT8, Precision
from tidesplit.compression.net.cnn_work import CnnWork
from tidesplit.profiling.devices.mlperf import FitErrors, Rates
from tidesplit.profiling.points.profile import Power

MLPERF = "MLCommons MLPerf Inference v0.7 to v3.0 results, Apache-2.0"
RATES: dict[Precision, Rates] = {FLOAT32: Rates(1.070e-10, 2.656e-9), INT8: Rates(1.845e-11, 1.716e-9)}
"""TensorFlow Lite on 4 threads of a Pi 4, 1.5 GHz: the output of `--data`."""
ERRORS: dict[Precision, FitErrors] = {FLOAT32: FitErrors(0.149, 0.339, 162), INT8: FitErrors(0.113, 0.329, 140)}
"""Of these rates on families left out."""
JITTER: dict[str, float] = {FLOAT32: 0.150, INT8: 0.214}
"""Relative log-normal spread at which p99 over median is 1.42 and 1.65, the medians over the rows of a bare Pi."""
BUSY_W = {"tflite": 5.88, "any": 5.45}
"""Watts of a bare Pi 4 that runs CNNs on 4 threads without pause: medians over TFLite's rows and over all rows."""

# ncnn on a Pi 4 at 1.5 GHz, 4 threads (github.com/Tencent/ncnn/issues/3485), over TFLite's medians. Float32: geometric
# mean of MobileNetV1 (72.1 ms), V2 (72.6 ms) and V3 large (56.3 ms). Integers: MobileNetV1 (40.3 ms) is in both lists.
NCNN: dict[Precision, float] = {FLOAT32: 1.092, INT8: 1.472}
# Time of ONNX Runtime over that of ncnn, float32. 1.36 is published for small depthwise nets: the median of PicoDet S,
# M, L and YOLOX-Nano on a Pi 5 (visionanalysis.org/articles/ncnn-fp32-vs-onnx-fp32-rpi5). 2.49 is the ratio of
# instructions for EfficientNet-Lite0 on an emulated Cortex-A72. Their geometric mean is taken.
ONNX_OVER_NCNN = (1.36 * 2.49) ** 0.5
ONNX_INT8_GAIN = 2.2
"""Instructions of ONNX Runtime for EfficientNet-Lite0 in float32 over those in 8-bit integers, emulated Cortex-A72."""
LITE0 = CnnWork(macs=385.2e6, values=13.56e6)
TFLITE_INT8_GAIN = RATES[FLOAT32].seconds(LITE0) / RATES[INT8].seconds(LITE0)
ONNX: dict[Precision, float] = {
    FLOAT32: NCNN[FLOAT32] * ONNX_OVER_NCNN,
    INT8: NCNN[FLOAT32] * ONNX_OVER_NCNN * TFLITE_INT8_GAIN / ONNX_INT8_GAIN,
}
NCNN_HERE: dict[Precision, float] = {FLOAT32: NCNN[FLOAT32], INT8: ONNX[INT8]}
"""With the engine ncnn the runtime leaves int8 models to ONNX Runtime, because ncnn takes twice the instructions."""

# Time over that of a Pi 4. Zero 2 W: ncnn, geometric mean of 10 nets (the list of the issue above), 1.9 to 2.3 each.
# Pi 5: TensorFlow Lite, MobileNetV1 and V2 SSD 16.9 and 23.5 ms to 82.7 and 112.6 ms on a Pi 4
# (github.com/aallan/benchmarking-ml-on-the-edge). ncnn gains 6.9 there (MobileNetV2 10.5 to 72.6 ms), with half floats,
# which ONNX Runtime does not use. A Pi 5's dot products of integers are not modelled.
PI_5, ZERO_2W = 1 / 4.84, 2.1
# One thread of integer work over that of a Pi 4. Pi 5: "two to three times" (Raspberry Pi's announcement). Zero 2 W:
# ncnn on one thread, MobileNetV2 274 ms to 93.5 ms at 1.8 GHz, that is 112 ms at 1.5 GHz.
PI_5_THREAD, ZERO_2W_THREAD = 1 / 2.5, 2.44

PI_4_IDLE_W = 2.7
_IDLE = "idle: 540 mA at 5 V five minutes after boot (pidramble.com, power consumption benchmarks)"


@dataclass(frozen=True, kw_only=True)
class PiBoard:
    """A board with an engine.

    Args:
        machine: the board in words.
        slower: time over that of TensorFlow Lite on a Pi 4, by precision.
        thread: time of one thread of integer work over that of a Pi 4.
        source: of `slower`.
    """

    label: str
    machine: str
    engine: str
    slower: dict[Precision, float]
    thread: float
    power: Power
    source: str
    threads: int = 4


def _power(busy: str) -> Power:
    rows = "TFLite's rows" if busy == "tflite" else "all rows"
    source = f"busy: median of {rows} of v2.0 and v2.1, {MLPERF}; {_IDLE}"
    return Power(idle_w=PI_4_IDLE_W, busy_w=BUSY_W[busy], source=source)


_PI_4 = "Raspberry Pi 4 Model B, 1.5 GHz, 4 threads (not at hand)"
_ONNX_SOURCE = "ONNX Runtime over ncnn: published times 1.36, instructions 2.49; int8 2.2 fewer instructions"
BOARDS = {
    board.label: board
    for board in (
        PiBoard(
            label="raspberry-pi-4", machine=_PI_4, engine="onnxruntime", slower=ONNX, thread=1.0, power=_power("any"),
            source=_ONNX_SOURCE,
        ),
        PiBoard(
            label="raspberry-pi-4-ncnn", machine=_PI_4, engine="ncnn", slower=NCNN_HERE, thread=1.0,
            power=_power("any"),
            source="ncnn over TensorFlow Lite: github.com/Tencent/ncnn/issues/3485; int8 runs in ONNX Runtime",
        ),
        PiBoard(
            label="raspberry-pi-4-tflite", machine=_PI_4, engine="tflite", slower={FLOAT32: 1.0, INT8: 1.0}, thread=1.0,
            power=_power("tflite"), source="TensorFlow Lite as measured",
        ),
        PiBoard(
            label="raspberry-pi-5", machine="Raspberry Pi 5, 2.4 GHz, 4 threads (not at hand)", engine="onnxruntime",
            slower={p: ONNX[p] * PI_5 for p in ONNX}, thread=PI_5_THREAD,
            power=Power(
                idle_w=3.3, busy_w=9.8,
                source="4 GB board, idle and stress-ng: Geerling 2024, tests of the 2 GB board's D0 stepping",
            ),
            source=f"{_ONNX_SOURCE}; Pi 4 over Pi 5: 4.84, github.com/aallan/benchmarking-ml-on-the-edge",
        ),
        PiBoard(
            label="raspberry-pi-zero-2w", machine="Raspberry Pi Zero 2 W, 1.0 GHz, 4 threads (not at hand)",
            engine="onnxruntime", slower={p: ONNX[p] * ZERO_2W for p in ONNX}, thread=ZERO_2W_THREAD,
            power=Power(
                idle_w=0.6, busy_w=2.4,
                source="idle: 120 mA at 5 V (cnx-software.com 2021-12-09); busy: 1.4 W above a Zero W "
                "(andrejacobs.org 2021), which is taken as 1 W",
            ),
            source=f"{_ONNX_SOURCE}; Zero 2 W over Pi 4: 2.1, ncnn's list",
        ),
    )
}  # fmt: skip
"""The estimated tables by label. The runtime does not offer TensorFlow Lite, the best engine: its table is a bound."""
