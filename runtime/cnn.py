"""The deployed CNN: a folder of ONNX models and a manifest with their hashes, checked before a model is loaded.

`runtime.models` lists the models. Each is an ONNX model. Those of the device may be there for ncnn too, as `.param`
(layers) and `.bin` (weights). Needs NumPy and ONNX Runtime only; ncnn where that engine is asked for.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from tidesplit.compression.codec.knobs import BITS, CutSpec
from tidesplit.compression.codec.learned_entropy import CodeTables, parse
from tidesplit.compression.codec.memory import ChangeTables
from tidesplit.compression.codec.wire import WireCodec
from tidesplit.compression.ncnn_session import NcnnSession
from tidesplit.compression.session import Session, session

FORMAT = "tidesplit-cnn/1"
MANIFEST = "cnn.json"
LARGEST_BYTES = 256 * 2**20
ENGINES = ("onnxruntime", "ncnn")
NCNN = (".param", ".bin")
VERSION_DIGITS = 16  # of a SHA-256: 64 bits tell versions apart


class CnnError(ValueError):
    """A folder of models that cannot be trusted or used. The message has the value received and the one expected."""


@dataclass(frozen=True)
class Cnn:
    """A deployed CNN. `files` has the SHA-256 of each file, by name. `engine` runs the models of the device."""

    folder: Path
    name: str
    weights_sha256: str
    input_px: int
    classes: tuple[str, ...]
    codec: WireCodec
    files: Mapping[str, str]
    engine: str = ENGINES[0]

    @cached_property  # every request names it
    def version(self) -> str:
        """The start of the hash of the weights, and of the tables of streams if any. Device and server must agree."""
        changes = self.codec.changes
        if not changes:
            return self.weights_sha256[:VERSION_DIGITS]
        found = hashlib.sha256(self.weights_sha256.encode())
        for cut in sorted(changes):
            found.update(repr(cut).encode() + changes[cut].to_bytes())
        return found.hexdigest()[:VERSION_DIGITS]

    @property
    def partitions(self) -> int:
        """Index of the last partition, the whole CNN on the device."""
        return max(self.codec.cuts, default=0) + 1

    def has(self, model: str) -> bool:
        """True where the folder has that model."""
        return f"{model}.onnx" in self.files

    def session(self, model: str, threads: int = 1) -> onnxruntime.InferenceSession:
        """An ONNX Runtime session on the CPU.

        Raises:
            CnnError: the file is missing, altered or unreadable.
        """
        if not self.has(model):
            have = ", ".join(sorted({Path(f).stem for f in self.files}))
            raise CnnError(f"{self.folder} has no model {model!r}; it has {have}")
        path, data = self.folder / f"{model}.onnx", self.read(f"{model}.onnx")
        try:  # without an arena: those of many sessions together would fill a small device
            return session(data, threads, arena=False)
        except Exception as error:  # ONNX Runtime's errors have no public class
            raise CnnError(f"{path}: ONNX Runtime cannot read it ({' '.join(str(error).split())})") from error

    def device_session(self, model: str, threads: int) -> Session:
        """A session of the CNN's engine. A model that ncnn does not have, such as an int8 one, runs in ONNX Runtime.

        Raises:
            CnnError: a file is missing, altered or unreadable, or ncnn is not installed.
        """
        layers, weights = (model + suffix for suffix in NCNN)
        if self.engine != "ncnn" or layers not in self.files:
            opened: Session = self.session(model, threads)
            return opened
        self.read(layers)
        self.read(weights)
        try:
            return NcnnSession(self.folder / layers, self.folder / weights, threads)
        except ImportError as error:
            raise CnnError(f"the engine ncnn needs the package {error.name}: pip install 'tidesplit[ncnn]'") from error
        except ValueError as error:
            raise CnnError(str(error)) from error

    def read(self, file: str) -> bytes:
        """The bytes of a file, after checks of its size and hash.

        Raises:
            CnnError: the file is missing or altered.
        """
        return _checked(self.folder / file, self.files.get(file, ""))


def load_cnn(folder: Path) -> Cnn:
    """The CNN of a folder's manifest. A model is checked when its session is made.

    Raises:
        CnnError: there is no manifest, or it cannot be used.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CnnError(f"{folder} holds no CNN: it has no {MANIFEST}; tidesplit export writes one") from None
    except (OSError, ValueError) as error:
        raise CnnError(f"{path}: not a readable JSON file ({error})") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise CnnError(f'{path}: expected "format": "{FORMAT}"')
    try:
        return _parse(folder, manifest)
    except (KeyError, TypeError, ValueError) as error:
        raise CnnError(f"{path}: a key is missing or holds a wrong value ({error!r})") from error


def _parse(folder: Path, manifest: Mapping[str, Any]) -> Cnn:
    cuts = {int(p): CutSpec(int(p), *(int(n) for n in shape)) for p, shape in manifest["cuts"].items()}
    low = {p: _levels(manifest["low"][str(p)], cut) for p, cut in cuts.items()}
    step = {p: _levels(manifest["step"][str(p)], cut) for p, cut in cuts.items()}
    # Optional: an older export has no tables. Its payloads are coded without them, and its cuts have no memory.
    tables, changes = (_decoded(manifest.get(key, {})) for key in ("tables", "changes"))
    sha256 = str(manifest["weights_sha256"])
    return Cnn(
        folder=folder,
        name=str(manifest["name"]),
        weights_sha256=sha256,
        input_px=int(manifest["input_px"]),
        classes=tuple(str(c) for c in manifest["classes"]),
        codec=WireCodec(
            cuts, low, step, int(sha256[:4], 16), parse(CodeTables, tables, cuts), parse(ChangeTables, changes, cuts)
        ),
        files={str(name): str(digest) for name, digest in manifest["files"].items()},
    )


def _decoded(texts: Mapping[str, str]) -> dict[str, bytes]:
    return {str(name): base64.b64decode(text, validate=True) for name, text in texts.items()}


def _levels(rows: list[list[float]], cut: CutSpec) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    levels = np.array(rows, dtype=np.float32)
    if levels.shape != (len(BITS), cut.channels) or not np.isfinite(levels).all():
        raise ValueError(
            f"levels of shape {levels.shape} received, finite ones of {(len(BITS), cut.channels)} expected"
        )
    return levels


def _checked(path: Path, expected: str) -> bytes:
    """The bytes of a file, after checks of its name, size and hash."""
    if path.name != Path(path.name).name or not path.is_file():
        raise CnnError(f"{path} is missing")
    if path.stat().st_size > LARGEST_BYTES:
        raise CnnError(f"{path}: {path.stat().st_size} bytes received, at most {LARGEST_BYTES} expected")
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != expected:
        raise CnnError(f"{path}: SHA-256 {found[:12]}... received, {expected[:12]}... expected; it was altered")
    return data
