"""The device's models of an exported CNN in the form of ncnn, next to their ONNX models.

Made from the ONNX models, so that both engines have the same weights. Models of 8-bit integers stay with ONNX Runtime:
a Cortex-A72 needs more instructions for ncnn's int8 than for its float32. Making the files needs the extra `train`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tidesplit.data.files import whole
from tidesplit.runtime.cnn import MANIFEST, NCNN, Cnn, CnnError, load_cnn

DEVICE = ("device-", "head-", "finish-")
INT8 = "-i8"


def for_engine(cnn: Cnn, engine: str, report: Callable[[str, int], None] = lambda *_: None) -> Cnn:
    """The CNN with its device's models in an engine. The files of ncnn are written where the folder has none.

    Raises:
        CnnError: onnx is not installed, and files must be written.
    """
    if engine == "ncnn" and not any(file.endswith(NCNN) for file in cnn.files):
        cnn = _with_files(cnn, report)
    return replace(cnn, engine=engine)


def _with_files(cnn: Cnn, report: Callable[[str, int], None]) -> Cnn:
    """Write the files of each float32 model of the device, and at the end their hashes into the manifest."""
    try:
        import onnx

        from tidesplit.models.ncnn_model import to_ncnn
    except ImportError as error:
        raise CnnError(
            f"{cnn.folder} has no models for ncnn, and making them needs {error.name}: "
            "run tidesplit export --engine ncnn where 'tidesplit[train]' is installed"
        ) from error
    files = dict(cnn.files)
    used = {file for model, chain in cnn.models.items() if model.startswith(DEVICE) for file in chain}
    for name in sorted(Path(file).stem for file in used):
        if not name.endswith(INT8):
            layers, weights = to_ncnn(onnx.load_model_from_string(cnn.read(f"{name}.onnx")))
            for suffix, data in zip(NCNN, (layers.encode(), weights), strict=True):
                (cnn.folder / (name + suffix)).write_bytes(data)
                files[name + suffix] = hashlib.sha256(data).hexdigest()
            report(name + NCNN[1], len(weights))
    path = cnn.folder / MANIFEST
    manifest = json.loads(path.read_text(encoding="utf-8"))
    with whole(path) as part:
        part.write_text(json.dumps({**manifest, "files": files}) + "\n", encoding="utf-8")
    return load_cnn(cnn.folder)
