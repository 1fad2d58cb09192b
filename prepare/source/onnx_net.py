"""An ONNX file as a torch module, so that a net from any framework can be cut and its bottlenecks trained.

ONNX Runtime first folds constants and shapes for one picture. What is left is a straight list of operations, and each
is one torch function. The module's answers are compared with ONNX Runtime's.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from torch import Tensor, nn

from tidesplit.compression.session import ERRORS_ONLY, session
from tidesplit.prepare.source.preprocessing import PrepareError

TOLERANCE = 1e-3  # share of the largest logit
LARGEST_CONSTANT = 64  # whole numbers: an axis, a shape, paddings

Attributes = Mapping[str, Any]
Operation = Callable[..., Tensor]
"""From a node's inputs, None for one left out, and its attributes by keyword."""


class OnnxNet(nn.Module):
    """The net of an ONNX model. Its weights are buffers, so they are part of its state dict.

    With ``logits`` a classifier's softmax at the end is left out.
    """

    def __init__(self, model: onnx.ModelProto, logits: bool = True) -> None:
        super().__init__()
        nodes, self._outputs = list(model.graph.node), {value.name: value.name for value in model.graph.output}
        if logits and _ends_in_softmax(model.graph):
            last = nodes.pop()
            self._outputs[last.output[0]] = last.input[0]
        self._constants: dict[str, Any] = {}
        self._buffers_by_name: dict[str, str] = {}
        self._limits = {name for node in model.graph.node if node.op_type == "Clip" for name in node.input[1:]}
        self._scales = {name for node in model.graph.node if node.op_type == "Resize" for name in node.input[2:3]}
        for tensor in model.graph.initializer:
            self._keep(tensor.name, numpy_helper.to_array(tensor))
        self._nodes: list[tuple[Operation, list[str], str, Attributes]] = []
        for node in nodes:
            attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            if node.op_type == "Constant":
                self._keep(node.output[0], numpy_helper.to_array(attributes["value"]))
            else:
                self._nodes.append((OPERATIONS[node.op_type], list(node.input), node.output[0], attributes))
        self._input = next(v.name for v in model.graph.input if v.name not in self._buffers_by_name)
        text = b"".join(node.SerializeToString() for node in model.graph.node)
        self._text = hashlib.sha256(text + repr(sorted(self._constants.items())).encode()).hexdigest()

    def _keep(self, name: str, value: np.ndarray[Any, Any]) -> None:
        if (value.dtype.kind in "iub" or name in self._scales) and value.size <= LARGEST_CONSTANT:
            self._constants[name] = value.tolist()
            return
        if value.ndim == 0 or (name in self._limits and value.size == 1):  # torch.export needs their values
            self._constants[name] = value.item()
            return
        self._buffers_by_name[name] = f"w{len(self._buffers_by_name)}"
        self.register_buffer(self._buffers_by_name[name], torch.from_numpy(value.copy()))

    def extra_repr(self) -> str:
        """The graph's hash, so that nets of other structure differ."""
        return self._text

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """The outputs by name."""
        values: dict[str, Any] = {self._input: x, "": None, **self._constants}
        values |= {name: getattr(self, buffer) for name, buffer in self._buffers_by_name.items()}
        for operation, inputs, output, attributes in self._nodes:
            values[output] = operation(*(values[name] for name in inputs), **attributes)
        return {name: values[source] for name, source in self._outputs.items()}


def load_onnx(path: Path, px: int, layout: str, probabilities: bool = False) -> OnnxNet:
    """The net of a file, for square pictures of `px` pixels. With ``probabilities`` a softmax at its end stays.

    Raises:
        PrepareError: no such file, operations that are not known, or pictures of another size.
    """
    if not path.is_file():
        raise PrepareError(f"{path}: no such file, an ONNX model expected")
    shape = [1, 3, px, px] if layout == "NCHW" else [1, px, px, 3]
    model = _folded(path, shape)
    unknown = sorted({n.op_type for n in model.graph.node if n.op_type not in OPERATIONS and n.op_type != "Constant"})
    if unknown:
        raise PrepareError(
            f"{path}: operations {', '.join(unknown)} received, some of {', '.join(OPERATIONS)} expected"
        )
    net = OnnxNet(model, logits=not probabilities).eval()
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    try:
        whole, found = session(path.read_bytes()), net(x)
    except Exception as error:  # an operation in a form that its function here does not know
        raise PrepareError(f"{path}: torch cannot run it ({' '.join(str(error).split())[:200]})") from error
    if not probabilities and _ends_in_softmax(model.graph):
        found = {name: tensor.softmax(-1) for name, tensor in found.items()}
    for name, expected in zip(found, whole.run(list(found), {whole.get_inputs()[0].name: x.numpy()}), strict=True):
        off = float(np.abs(found[name].numpy() - expected).max() / (np.abs(expected).max() + 1e-9))
        if not off < TOLERANCE:
            raise PrepareError(f"{path}: torch's answers differ from ONNX Runtime's by {off:.2g} of their range")
    return net


def _folded(path: Path, shape: list[int]) -> onnx.ModelProto:
    """The model for one input of the shape, with constants and shapes folded."""
    try:
        model = onnx.load(path)
        fed = [v for v in model.graph.input if v.name not in {i.name for i in model.graph.initializer}]
        own = [d.dim_value for d in fed[0].type.tensor_type.shape.dim]
    except Exception as error:  # protobuf's errors have no common class
        raise PrepareError(f"{path}: not an ONNX model ({' '.join(str(error).split())[:120]})") from error
    if len(fed) != 1 or len(own) != 4 or any(had not in (0, new) for had, new in zip(own[1:], shape[1:], strict=True)):
        raise PrepareError(
            f"{path} takes {len(fed)} inputs, the first of shape {own}; one of shape {shape} expected "
            "(--px sets the size, --preprocess the layout)"
        )
    for dimension, size in zip(fed[0].type.tensor_type.shape.dim, shape, strict=True):
        dimension.dim_value = size
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.log_severity_level = ERRORS_ONLY
        options.optimized_model_filepath = str(Path(folder) / "folded.onnx")
        try:
            onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's errors have no public class
            raise PrepareError(f"{path}: ONNX Runtime cannot read it ({' '.join(str(error).split())[:200]})") from error
        return onnx.load(options.optimized_model_filepath)


def _ends_in_softmax(graph: onnx.GraphProto) -> bool:
    """True where the only output is a softmax over classes `[1, classes]`."""
    last, (first, *others) = graph.node[-1], graph.output
    classes = len(first.type.tensor_type.shape.dim) in (0, 2)  # 0: the file does not say it
    return bool(last.op_type == "Softmax" and last.output[0] == first.name and classes and not others)


def _paddings(x: Tensor, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int], auto: bytes,
              pads: Sequence[int]) -> tuple[int, int, int, int]:  # fmt: skip
    """Paddings left, right, top and bottom, as `F.pad` takes them."""
    if auto in (b"NOTSET", b"VALID"):
        top, left, bottom, right = pads if auto == b"NOTSET" else (0, 0, 0, 0)
        return left, right, top, bottom
    found = list[int]()
    for side, k, s, d in zip(x.shape[:1:-1], kernel[::-1], stride[::-1], dilation[::-1], strict=True):
        total = max(0, (-(-side // s) - 1) * s + d * (k - 1) + 1 - side)
        small, large = total // 2, total - total // 2
        found += [small, large] if auto == b"SAME_UPPER" else [large, small]
    return found[0], found[1], found[2], found[3]


def _conv(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, strides: Sequence[int] = (1, 1),
          pads: Sequence[int] = (0, 0, 0, 0), dilations: Sequence[int] = (1, 1), group: int = 1,
          auto_pad: bytes = b"NOTSET", **_: Any) -> Tensor:  # fmt: skip
    left, right, top, bottom = _paddings(x, weight.shape[2:], strides, dilations, auto_pad, pads)
    if (left, top) != (right, bottom):
        x, left, top = F.pad(x, [left, right, top, bottom]), 0, 0
    return F.conv2d(x, weight, bias, tuple(strides), (top, left), tuple(dilations), group)


def _conv_transposed(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, strides: Sequence[int] = (1, 1),
                     pads: Sequence[int] = (0, 0, 0, 0), dilations: Sequence[int] = (1, 1), group: int = 1,
                     output_padding: Sequence[int] = (0, 0), **_: Any) -> Tensor:  # fmt: skip
    top, left, bottom, right = pads
    if (left, top) != (right, bottom):
        raise PrepareError("a transposed convolution with other paddings on the left than on the right received")
    return F.conv_transpose2d(
        x, weight, bias, tuple(strides), (top, left), tuple(output_padding), group, tuple(dilations)
    )


def _resize(x: Tensor, _: Any = None, scales: Sequence[float] | None = None, sizes: Sequence[int] | None = None, *,
            mode: bytes = b"nearest", coordinate_transformation_mode: bytes = b"half_pixel",
            **__: Any) -> Tensor:  # fmt: skip
    """Nearest, bilinear or bicubic. Other ways of rounding are found when the net's answers are compared."""
    found = sizes[2:] if sizes else [int(side * scale) for side, scale in zip(x.shape, scales or (), strict=True)][2:]
    if mode == b"nearest":
        return F.interpolate(x, list(found), mode="nearest")
    corners = coordinate_transformation_mode == b"align_corners"
    return F.interpolate(x, list(found), mode=f"bi{mode.decode()}", align_corners=corners)


def _max_pool(x: Tensor, *, kernel_shape: Sequence[int], strides: Sequence[int] = (1, 1),
              pads: Sequence[int] = (0, 0, 0, 0), dilations: Sequence[int] = (1, 1), auto_pad: bytes = b"NOTSET",
              ceil_mode: int = 0, **_: Any) -> Tensor:  # fmt: skip
    paddings = _paddings(x, kernel_shape, strides, dilations, auto_pad, pads)
    if any(paddings):
        x = F.pad(x, list(paddings), value=float("-inf"))
    return F.max_pool2d(x, tuple(kernel_shape), tuple(strides), 0, tuple(dilations), bool(ceil_mode))


def _average_pool(x: Tensor, *, kernel_shape: Sequence[int], strides: Sequence[int] = (1, 1),
                  pads: Sequence[int] = (0, 0, 0, 0), auto_pad: bytes = b"NOTSET", ceil_mode: int = 0,
                  count_include_pad: int = 0, **_: Any) -> Tensor:  # fmt: skip
    left, right, top, bottom = _paddings(x, kernel_shape, strides, (1, 1), auto_pad, pads)
    if (left, top) != (right, bottom):
        raise PrepareError("average pooling with other paddings on the left than on the right received")
    return F.avg_pool2d(x, tuple(kernel_shape), tuple(strides), (top, left), bool(ceil_mode), bool(count_include_pad))


def _norm(x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, *, epsilon: float = 1e-5,
          **_: Any) -> Tensor:  # fmt: skip
    return F.batch_norm(x, mean, variance, scale, bias, False, 0.0, epsilon)


def _gemm(a: Tensor, b: Tensor, c: Tensor | None = None, *, alpha: float = 1.0, beta: float = 1.0, transA: int = 0,  # noqa: N803
          transB: int = 0, **_: Any) -> Tensor:  # noqa: N803  # fmt: skip
    product = alpha * ((a.mT if transA else a) @ (b.mT if transB else b))
    return product if c is None else product + beta * c


def _clip(x: Tensor, low: float | None = None, high: float | None = None, *, min: float | None = None,  # noqa: A002
          max: float | None = None, **_: Any) -> Tensor:  # noqa: A002  # fmt: skip
    return x.clamp(min if low is None else low, max if high is None else high)


def _reshape(x: Tensor, shape: list[int], **_: Any) -> Tensor:
    """The first axis stays the batch: the folded model has 1 there."""
    sizes = [x.shape[i] if size == 0 else size for i, size in enumerate(shape)]
    return x.reshape([x.shape[0], *sizes[1:]] if sizes[0] == 1 else sizes)


def _mean(x: Tensor, axes_input: list[int] | None = None, *, axes: Sequence[int] | None = None, keepdims: int = 1,
          **_: Any) -> Tensor:  # fmt: skip
    over = list(axes if axes is not None else axes_input or range(x.dim()))
    return x.mean(over, keepdim=bool(keepdims))


def _squeeze(x: Tensor, axes_input: list[int] | None = None, *, axes: Sequence[int] | None = None) -> Tensor:
    return x.squeeze(tuple(axes if axes is not None else axes_input or range(1, x.dim())))


def _unsqueeze(x: Tensor, axes_input: list[int] | None = None, *, axes: Sequence[int] | None = None) -> Tensor:
    for axis in sorted(axes if axes is not None else axes_input or ()):
        x = x.unsqueeze(axis)
    return x


def _pad(x: Tensor, pads_input: list[int] | None = None, value: float | None = None, *_: Any,
         pads: Sequence[int] | None = None, mode: bytes = b"constant", **__: Any) -> Tensor:  # fmt: skip
    amounts = list(pads if pads is not None else pads_input or ())
    pairs = list(zip(amounts[: x.dim()], amounts[x.dim() :], strict=True))
    if mode == b"constant":
        return F.pad(x, [n for pair in pairs[::-1] for n in pair], value=value or 0.0)
    for axis, pair in enumerate(pairs):
        if any(pair):  # NumPy's modes have the names of ONNX
            x = x.index_select(axis, torch.tensor(np.pad(np.arange(x.shape[axis]), pair, mode.decode()).tolist()))  # type: ignore[call-overload]
    return x


def _slice(x: Tensor, starts: list[int], ends: list[int], axes: list[int] | None = None,
           steps: list[int] | None = None) -> Tensor:  # fmt: skip
    chosen = [slice(None)] * x.dim()
    for i, axis in enumerate(axes or range(len(starts))):
        chosen[axis] = slice(starts[i], ends[i] if ends[i] < 2**31 - 1 else None, (steps or [1] * len(starts))[i])
    return x[tuple(chosen)]


OPERATIONS: dict[str, Operation] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transposed,
    "Resize": _resize,
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": lambda x: x.mean((2, 3), keepdim=True),
    "GlobalMaxPool": lambda x: x.amax((2, 3), keepdim=True),
    "BatchNormalization": _norm,
    "Gemm": _gemm,
    "MatMul": lambda a, b: a @ b,
    "Relu": lambda x: x.relu(),
    "LeakyRelu": lambda x, alpha=0.01: F.leaky_relu(x, alpha),
    "PRelu": lambda x, slope: torch.where(x < 0, slope * x, x),
    "Sigmoid": lambda x: x.sigmoid(),
    "Tanh": lambda x: x.tanh(),
    "Erf": lambda x: x.erf(),
    "Exp": lambda x: x.exp(),
    "Sqrt": lambda x: x.sqrt(),
    "Softplus": lambda x: F.softplus(x),
    "Elu": lambda x, alpha=1.0: F.elu(x, alpha),
    "HardSigmoid": lambda x, alpha=0.2, beta=0.5: (alpha * x + beta).clamp(0.0, 1.0),
    "HardSwish": lambda x: F.hardswish(x),
    "Clip": _clip,
    "Add": lambda a, b: a + b,
    "Sub": lambda a, b: a - b,
    "Mul": lambda a, b: a * b,
    "Div": lambda a, b: a / b,
    "Pow": lambda a, b: a**b,
    "Concat": lambda *parts, axis: torch.cat(parts, axis),
    "Flatten": lambda x, axis=1: x.flatten(axis) if axis == 1 else x.reshape(*x.shape[:axis], -1),
    "Reshape": _reshape,
    "Transpose": lambda x, perm: x.permute(*perm),
    "ReduceMean": _mean,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Pad": _pad,
    "Slice": _slice,
    "Softmax": lambda x, axis=-1: x.softmax(axis),
    "Identity": lambda x: x,
    "Dropout": lambda x, *_, **__: x,
    "Cast": lambda x, to: x,  # noqa: ARG005  (between floats: the folded model has no others left)
}
"""Torch functions by ONNX operation."""
