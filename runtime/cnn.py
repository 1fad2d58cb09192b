"""The CNN as it is deployed: a folder of ONNX models under one manifest, every file checked before it is opened.

`head-p2-c0.75` turns an image into the feature, the values to send and the attention score; `finish-p2-c0.75` takes the
feature to logits on the device; `tail-p2` the received values on the server (`tail-p0` an image); `middle-p2-p4` turns
received values into those of a later cut (`middle-p0-p4` an image); `device-c0.50` is the whole CNN. NumPy and ONNX
Runtime alone.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from tidesplit.compression.codec.knobs import BITS, CutSpec
from tidesplit.compression.codec.learned_entropy import parse
from tidesplit.compression.codec.wire import WireCodec
from tidesplit.compression.session import session

__all__ = ["FORMAT", "MANIFEST", "Cnn", "CnnError", "load_cnn"]

FORMAT = "tidesplit-cnn/1"
MANIFEST = "cnn.json"
LARGEST_BYTES = 256 * 2**20
VERSION_DIGITS = 16  # of the weights' SHA-256: 64 bits tell versions apart


class CnnError(ValueError):
    """A folder of models that cannot be trusted or used; the sentence says which, what was received and expected."""


@dataclass(frozen=True)
class Cnn:
    """A deployed CNN. `files`: SHA-256 by file name."""

    folder: Path
    name: str
    weights_sha256: str
    input_px: int
    classes: tuple[str, ...]
    codec: WireCodec
    files: Mapping[str, str]

    @property
    def version(self) -> str:
        """What device and server must agree on: the start of the weights' hash."""
        return self.weights_sha256[:VERSION_DIGITS]

    @property
    def partitions(self) -> int:
        """Index of the last partition: the whole CNN on the device."""
        return max(self.codec.cuts, default=0) + 1

    def has(self, model: str) -> bool:
        """Whether the folder holds that model."""
        return f"{model}.onnx" in self.files

    def session(self, model: str, threads: int = 1) -> onnxruntime.InferenceSession:
        """An ONNX Runtime session on the CPU. Raises CnnError where the file is missing, altered or unreadable."""
        if not self.has(model):
            have = ", ".join(sorted(Path(f).stem for f in self.files))
            raise CnnError(f"{self.folder} has no model {model!r}; it has {have}")
        path = self.folder / f"{model}.onnx"
        try:  # without an arena: those of many sessions together would fill a small device
            return session(_checked(path, self.files[path.name]), threads, arena=False)
        except CnnError:
            raise
        except Exception as error:  # ONNX Runtime's errors have no public class of their own
            raise CnnError(f"{path}: ONNX Runtime cannot read it ({' '.join(str(error).split())})") from error


def load_cnn(folder: Path) -> Cnn:
    """Read a manifest. Models are checked and loaded when they are asked for."""
    path = folder / MANIFEST
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CnnError(f"{folder} holds no CNN: it has no {MANIFEST}; tidesplit export writes one") from None
    except (OSError, ValueError) as error:
        raise CnnError(f"{path}: not a readable JSON file ({error})") from error
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        raise CnnError(f'{path}: expected "format": "{FORMAT}"')
    try:
        return _parse(folder, told)
    except (KeyError, TypeError, ValueError) as error:
        raise CnnError(f"{path}: a key is missing or holds a wrong value ({error!r})") from error


def _parse(folder: Path, told: Mapping[str, Any]) -> Cnn:
    cuts = {int(p): CutSpec(int(p), *(int(n) for n in shape)) for p, shape in told["cuts"].items()}
    low = {p: _levels(told["low"][str(p)], cut) for p, cut in cuts.items()}
    step = {p: _levels(told["step"][str(p)], cut) for p, cut in cuts.items()}
    # Folders written before there were tables have none, and work without
    tables = {str(name): base64.b64decode(text, validate=True) for name, text in told.get("tables", {}).items()}
    sha256 = str(told["weights_sha256"])
    return Cnn(
        folder=folder,
        name=str(told["name"]),
        weights_sha256=sha256,
        input_px=int(told["input_px"]),
        classes=tuple(str(c) for c in told["classes"]),
        codec=WireCodec(cuts, low, step, tag=int(sha256[:4], 16), tables=parse(tables, cuts)),
        files={str(name): str(digest) for name, digest in told["files"].items()},
    )


def _levels(rows: list[list[float]], cut: CutSpec) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    levels = np.array(rows, dtype=np.float32)
    if levels.shape != (len(BITS), cut.channels) or not np.isfinite(levels).all():
        raise ValueError(
            f"levels of shape {levels.shape} received, finite ones of {(len(BITS), cut.channels)} expected"
        )
    return levels


def _checked(path: Path, expected: str) -> bytes:
    """Bytes of a file whose name, size and hash are as they should be."""
    if path.name != Path(path.name).name or not path.is_file():
        raise CnnError(f"{path} is missing")
    if path.stat().st_size > LARGEST_BYTES:
        raise CnnError(f"{path}: {path.stat().st_size} bytes received, at most {LARGEST_BYTES} expected")
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != expected:
        raise CnnError(f"{path}: SHA-256 {found[:12]}... received, {expected[:12]}... expected; it was altered")
    return data
