"""What a preparation leaves: a folder with the profile, and the CNN's models with their manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tidesplit.compression.codec.wire import WireCodec
from tidesplit.prepare.cut_net import CutNet
from tidesplit.prepare.result.models_of_cut_net import Chains, Files
from tidesplit.prepare.source.preprocessing import Preprocess
from tidesplit.prepare.task import Words
from tidesplit.profiling.measuring.assemble import points_of
from tidesplit.profiling.points.profile import Profile, Provenance
from tidesplit.runtime.cnn import MANIFEST, Cnn
from tidesplit.runtime.export import write_files
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
    files: Files, models: Chains,
) -> Cnn:  # fmt: skip
    """Write the models and, last, their manifest. Files of an earlier preparation are removed."""
    (folder / MANIFEST).unlink(missing_ok=True)
    for old in folder.glob("*.onnx"):
        if old.name not in files:
            old.unlink()
    facts = {
        "name": name, "weights_sha256": sha256, "input_px": preprocess.size, "preprocess": preprocess.values(),
        "classes": form.classes, **({} if form.classes else {"outputs": dict(form.shapes)}),
    }  # fmt: skip
    return write_files(folder, facts, codec, models, files.items())


def profile_of(
    name: str, net: CutNet, words: Words, rows: Sequence[Mapping[str, Any]], facts: Mapping[str, Any],
    command: str, machine: str,
) -> Profile:  # fmt: skip
    """The profile of measured rows. ``facts``: of the CNN, its weights' hash among them."""
    points = points_of(net, rows)
    return Profile(
        name=name, partitions=net.partitions, points=points, devices={}, cnn=dict(facts),
        accuracy_provenance=Provenance(
            kind="measured", source=command, machine=machine, n=min(p.n for p in points),
            spread=f"{words.interval} 95 % of {words.measure}",
        ),
    )  # fmt: skip
