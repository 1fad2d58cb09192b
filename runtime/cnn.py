"""The deployed CNN: a folder of ONNX models and a manifest with their hashes, checked before a model is loaded.

`runtime.models` lists the models. The manifest has the chain of files that each is, and models share files: a head, a
finish and a whole net of one channel ratio have the layers before and behind a cut in common. A shared file is held in
memory once. Each file is an ONNX model. Those of the device may be there for ncnn too, as `.param` (layers) and `.bin`
(weights). Needs NumPy and ONNX Runtime only; ncnn where that engine is asked for.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from tidesplit.compression.codec.knobs import BITS, CutSpec
from tidesplit.compression.codec.learned_entropy import CodeTables, parse
from tidesplit.compression.codec.memory import ChangeTables
from tidesplit.compression.codec.wire import WireCodec
from tidesplit.compression.ncnn_session import NcnnSession
from tidesplit.compression.session import Session, SessionChain, session
from tidesplit.runtime.wire.output_tensors import AnswerForm

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
    """A deployed CNN. `engine` runs the models of the device.

    Args:
        files: the SHA-256 of each file, by name.
        models: the files that each model is a chain of, by the model's name.
        form: of its answers.
        crop: side of the middle that is taken of a picture, over its shorter side; 0: the whole picture is squashed.
    """

    folder: Path
    name: str
    weights_sha256: str
    input_px: int
    form: AnswerForm
    codec: WireCodec
    files: Mapping[str, str]
    models: Mapping[str, tuple[str, ...]]
    engine: str = ENGINES[0]
    crop: float = 0.0
    # Sessions in use, so that models with a file in common hold it once: by file, engine and threads.
    _opened: WeakValueDictionary[tuple[str, str, int], Session] = field(
        default_factory=WeakValueDictionary, init=False, repr=False, compare=False
    )

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
    def classes(self) -> tuple[str, ...]:
        """Names of its classes; empty where its answers are other tensors."""
        return self.form.classes

    @property
    def partitions(self) -> int:
        """Index of the last partition, the whole CNN on the device."""
        return max(self.codec.cuts, default=0) + 1

    def has(self, model: str) -> bool:
        """True where the folder has that model."""
        return model in self.models

    def session(self, model: str, threads: int = 1) -> Any:
        """A model in ONNX Runtime on the CPU, with its methods `run` and `get_inputs`.

        Raises:
            CnnError: a file is missing, altered or unreadable.
        """
        return self._chain(model, ENGINES[0], threads)

    def device_session(self, model: str, threads: int) -> Session:
        """A model in the CNN's engine. Files that ncnn does not have, such as int8 ones, run in ONNX Runtime.

        Raises:
            CnnError: a file is missing, altered or unreadable, or ncnn is not installed.
        """
        made: Session = self._chain(model, self.engine, threads)
        return made

    def _chain(self, model: str, engine: str, threads: int) -> Any:
        if not self.has(model):
            raise CnnError(f"{self.folder} has no model {model!r}; it has {', '.join(sorted(self.models))}")
        parts = [self._part(file, engine, threads) for file in self.models[model]]
        return parts[0] if len(parts) == 1 else SessionChain(parts)

    def _part(self, file: str, engine: str, threads: int) -> Session:
        open_: Callable[[str, int], Session] = self._onnx
        if engine == "ncnn" and Path(file).stem + NCNN[0] in self.files:
            open_ = self._ncnn
        key = file, open_.__name__, threads
        part = self._opened.get(key)
        if part is None:
            self._opened[key] = part = open_(file, threads)
        return part

    def _onnx(self, file: str, threads: int) -> Session:
        data = self.read(file)
        try:
            opened: Session = session(data, threads)
            return opened
        except Exception as error:  # ONNX Runtime's errors have no public class
            path, why = self.folder / file, " ".join(str(error).split())
            raise CnnError(f"{path}: ONNX Runtime cannot read it ({why})") from error

    def _ncnn(self, file: str, threads: int) -> Session:
        layers, weights = (Path(file).stem + suffix for suffix in NCNN)
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
        if Path(file).name != file:
            raise CnnError(f"{self.folder / MANIFEST}: the file name {file!r} is a path")
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
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise CnnError(f"{path}: a key is missing or holds a wrong value ({error!r})") from error


def _parse(folder: Path, manifest: Mapping[str, Any]) -> Cnn:
    cuts = {int(p): CutSpec(int(p), *(int(n) for n in shape)) for p, shape in manifest["cuts"].items()}
    low = {p: _levels(manifest["low"][str(p)], cut) for p, cut in cuts.items()}
    step = {p: _levels(manifest["step"][str(p)], cut) for p, cut in cuts.items()}
    # Optional: an older export has no tables. Its payloads are coded without them, and its cuts have no memory.
    tables, changes = (_decoded(manifest.get(key, {})) for key in ("tables", "changes"))
    sha256 = str(manifest["weights_sha256"])
    files = {str(name): str(digest) for name, digest in manifest["files"].items()}
    return Cnn(
        folder=folder,
        name=str(manifest["name"]),
        weights_sha256=sha256,
        input_px=int(manifest["input_px"]),
        form=_form(manifest["classes"], manifest.get("outputs")),
        codec=WireCodec(
            cuts, low, step, int(sha256[:4], 16), parse(CodeTables, tables, cuts), parse(ChangeTables, changes, cuts)
        ),
        files=files,
        crop=float(manifest.get("preprocess", {}).get("crop", 0.0)),
        models=_models(manifest.get("models"), files),
    )


def _form(classes: list[str], outputs: Mapping[str, list[int]] | None) -> AnswerForm:
    """The form of the answers. A manifest without outputs is of a classifier."""
    if outputs is None:
        return AnswerForm.of_classes([str(name) for name in classes])
    return AnswerForm({str(name): tuple(int(n) for n in shape) for name, shape in outputs.items()})


def _models(chains: Mapping[str, list[str]] | None, files: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Each model's chain of files. An older manifest names none: each ONNX file is the model of its name."""
    if chains is None:
        return {Path(file).stem: (file,) for file in files if file.endswith(".onnx")}
    models = {str(name): tuple(str(file) for file in chain) for name, chain in chains.items()}
    for name, chain in models.items():
        if not chain or not set(chain) <= files.keys():
            raise ValueError(f"model {name!r} is a chain of {list(chain)}, of which 'files' lacks some")
    return models


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
    """The bytes of a file, after checks of its size and hash."""
    if not path.is_file():
        raise CnnError(f"{path} is missing")
    if path.stat().st_size > LARGEST_BYTES:
        raise CnnError(f"{path}: {path.stat().st_size} bytes received, at most {LARGEST_BYTES} expected")
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != expected:
        raise CnnError(f"{path}: SHA-256 {found[:12]}... received, {expected[:12]}... expected; it was altered")
    return data
