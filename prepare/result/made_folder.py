"""What a preparation leaves: a folder with the profile, and the CNN's models with their manifest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from tidesplit.compression.codec.knobs import Precision
from tidesplit.compression.codec.wire import WireCodec
from tidesplit.compression.net.cnn_work import work_of
from tidesplit.data.files import whole
from tidesplit.prepare.cut_net import FULL, CutNet
from tidesplit.prepare.result.models_of_cut_net import SERVER_FILE, Files, chains
from tidesplit.prepare.source.preprocessing import Preprocess
from tidesplit.prepare.task import Words
from tidesplit.profiling.points.profile import OperatingPoint, Profile, Provenance
from tidesplit.runtime.cnn import FORMAT, MANIFEST, Cnn, load_cnn
from tidesplit.runtime.export import texts
from tidesplit.runtime.wire.output_tensors import AnswerForm


def weights_hash(files: Files, codec: WireCodec) -> str:
    """SHA-256 of all models and quantizer levels. Device and server agree by it."""
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(name.encode() + hashlib.sha256(files[name]).digest())
    for p in sorted(codec.cuts):
        digest.update(codec.low[p].tobytes() + codec.step[p].tobytes())
    return digest.hexdigest()


def write_cnn(
    folder: Path, name: str, sha256: str, preprocess: Preprocess, form: AnswerForm, codec: WireCodec,
    files: Files, precisions: tuple[Precision, ...],
) -> Cnn:  # fmt: skip
    """Write the models and, last, their manifest. Files of an earlier preparation are removed."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).unlink(missing_ok=True)
    for old in folder.glob("*.onnx"):
        if old.name not in files:
            old.unlink()
    for file, data in files.items():
        (folder / file).write_bytes(data)
    manifest = {
        "format": FORMAT,
        "name": name,
        "weights_sha256": sha256,
        "input_px": preprocess.size,
        "preprocess": preprocess.values(),
        "classes": list(form.classes),
        **({} if form.classes else {"outputs": dict(form.shapes)}),
        "cuts": {p: [cut.channels, cut.height, cut.width] for p, cut in codec.cuts.items()},
        "low": {p: low.tolist() for p, low in codec.low.items()},
        "step": {p: step.tolist() for p, step in codec.step.items()},
        "tables": texts(codec.tables),
        "changes": texts(codec.changes),
        "models": chains(len(codec.cuts) + 1, precisions, SERVER_FILE in files),
        "files": {file: hashlib.sha256(data).hexdigest() for file, data in files.items()},
    }
    with whole(folder / MANIFEST) as part:
        part.write_text(json.dumps(manifest) + "\n", encoding="utf-8")
    return load_cnn(folder)


def profile_of(
    name: str, net: CutNet, words: Words, rows: Sequence[Mapping[str, Any]], facts: Mapping[str, Any],
    command: str, machine: str,
) -> Profile:  # fmt: skip
    """The profile of measured rows. ``facts``: of the CNN, its weights' hash among them."""
    bottlenecks = {p: _bottleneck_macs(net, p) for p in net.bottlenecks}
    points = []
    for row in rows:
        head, tail = _macs(net, row["partition"], bottlenecks)
        low, high = row["accuracy_ci95"]
        points.append(OperatingPoint(**{**row, "accuracy_ci95": (low, high), "head_macs": head, "tail_macs": tail}))
    return Profile(
        name=name, partitions=net.partitions, points=tuple(points), devices={}, cnn=dict(facts),
        accuracy_provenance=Provenance(
            kind="measured", source=command, machine=machine, n=min(p.n for p in points),
            spread=f"{words.interval} 95 % of {words.measure}",
        ),
    )  # fmt: skip


def _macs(net: CutNet, partition: int, bottlenecks: Mapping[int, tuple[float, float]]) -> tuple[float, float]:
    """Multiply-accumulates of head and tail."""
    whole_net = float(sum(net.traced.macs.values()))
    if partition == net.partitions:
        return whole_net, 0.0
    if partition == 0:
        return 0.0, whole_net if net.server is None else net.server.macs
    cut, (encoder, decoder) = net.cuts[partition - 1], bottlenecks[partition]
    return cut.macs_before + encoder, cut.macs_after + decoder


def _bottleneck_macs(net: CutNet, partition: int) -> tuple[float, float]:
    """Multiply-accumulates of a bottleneck's encoder and decoder."""
    bottleneck, cut = net.bottlenecks[partition], net.bottlenecks[partition].cut
    encoder = work_of(bottleneck.encode, torch.zeros(net.cuts[partition - 1].shape), FULL)
    decoder = work_of(bottleneck.decode, torch.zeros(1, cut.channels, cut.height, cut.width))
    return float(encoder.macs), float(decoder.macs)
