"""Parts of a net with 8-bit integers, by ONNX Runtime's static quantizer.

Each part takes and gives float32, so any chain of them runs. The first convolution sees the picture and stays float32,
as in the bundled nets: it causes much of the error and little of the time.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from tidesplit.compression.session import session

Floats = npt.NDArray[np.float32]


class _Features(CalibrationDataReader):  # type: ignore[misc]
    """A part's inputs, one after another."""

    def __init__(self, features: Sequence[Floats]) -> None:
        self._rest: Iterator[Floats] = iter(features)

    def get_next(self) -> dict[str, Floats] | None:
        feature = next(self._rest, None)
        return None if feature is None else {"x": feature}


def int8_parts(parts: Sequence[bytes], pictures: Sequence[Floats]) -> list[bytes]:
    """The parts of a net as int8 models, calibrated on pictures `[1, 3, px, px]` in [-1, 1]."""
    found, features = list[bytes](), list(pictures)
    for number, part in enumerate(parts):
        found.append(_quantized(part, features, keep_first=number == 0, keep_last=number == len(parts) - 1))
        run = session(part, threads=1)
        features = [run.run(None, {"x": feature})[0] for feature in features]
    return found


def _quantized(part: bytes, features: Sequence[Floats], keep_first: bool, keep_last: bool) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        plain, ready, made = (Path(folder) / name for name in ("plain.onnx", "ready.onnx", "made.onnx"))
        plain.write_bytes(part)
        quant_pre_process(str(plain), str(ready), skip_symbolic_shape=True)
        graph = onnx.load(str(ready)).graph
        kept = [n.name for n in graph.node if n.op_type == "Conv"][: 1 if keep_first else 0]
        if keep_last and graph.node[-1].op_type == "Concat":  # of several outputs, whose values have other ranges
            kept.append(graph.node[-1].name)
        quantize_static(
            str(ready), str(made), _Features(features), quant_format=QuantFormat.QDQ, per_channel=True,
            weight_type=QuantType.QInt8, activation_type=QuantType.QUInt8, nodes_to_exclude=kept,
        )  # fmt: skip
        return made.read_bytes()
