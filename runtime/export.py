"""Write the CNN's ONNX models for device and server: tidesplit export --profile NAME --out FOLDER

Needs the `train` extra (torch, onnx); what it writes needs neither. With --bundle only the models that a device with
this trained policy uses are written, into the bundle's folder `cnn`.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tidesplit.compression.codec.knobs import RATIOS, device_id
from tidesplit.compression.codec.learned_entropy import named
from tidesplit.data.files import WEIGHTS, whole
from tidesplit.runtime.cnn import FORMAT, MANIFEST, Cnn, CnnError, load_cnn

if TYPE_CHECKING:
    from tidesplit.profiling.measuring.trained import Trained
    from tidesplit.profiling.points.table import PointTable

__all__ = ["cached_server", "export", "for_bundle", "for_device", "for_server"]

SUBFOLDER = "cnn"
Made = tuple[str, Callable[[], Any]]


def trained(name: str) -> Trained:
    """The network with its weights; CnnError where torch is not installed or there are no such weights."""
    try:
        from tidesplit.profiling.measuring.trained import load_trained
    except ImportError as error:
        raise CnnError(
            f"exporting needs torch and onnx, and {error.name} is not installed: run it where 'tidesplit[train]' is"
        ) from error
    try:
        return load_trained(name)
    except (KeyError, ValueError, OSError) as error:
        raise CnnError(f"no trained CNN called {name!r} ({error})") from error


def for_server(source: Trained, middles: bool) -> Iterator[Made]:
    """Tails of every partition; for the middle of three tiers also what lies before and between the cuts."""
    from tidesplit.compression.net import deploy

    system, last = source.system, source.system.net.partitions
    for p in range(last):
        yield f"tail-p{p}", lambda p=p: deploy.tail_model(system, p)  # type: ignore[misc]
    for second in range(1, last if middles else 0):
        yield f"middle-p0-p{second}", lambda b=second: deploy.head_model(system, b, 1.0)  # type: ignore[misc]
    for first in range(1, last if middles else 0):
        for second in range(first + 1, last):
            yield f"middle-p{first}-p{second}", lambda a=first, b=second: deploy.middle_model(system, a, b)  # type: ignore[misc]


def for_device(source: Trained, table: PointTable | None) -> Iterator[Made]:
    """Heads, finishes and whole nets: of the points in a table, or all. The narrowest net finishes image offload."""
    from tidesplit.compression.net import deploy

    system, last = source.system, source.system.net.partitions
    rows = None if table is None else set(zip(table.partition.tolist(), table.channel_ratio.tolist(), strict=True))
    for ratio in RATIOS:
        if rows is None or (last, ratio) in rows or ratio == RATIOS[0]:
            yield device_id(ratio), lambda r=ratio: deploy.device_model(system, r)  # type: ignore[misc]
    for p in range(1, last):
        for ratio in RATIOS:
            if rows is None or (p, ratio) in rows:
                yield f"head-p{p}-c{ratio:.2f}", lambda p=p, r=ratio: deploy.head_model(system, p, r)  # type: ignore[misc]
                yield f"finish-p{p}-c{ratio:.2f}", lambda p=p, r=ratio: deploy.finish_model(system, p, r)  # type: ignore[misc]


def export(
    source: Trained, folder: Path, made: Iterable[Made], report: Callable[[str, int], None] = lambda *_: None
) -> Cnn:
    """Write models and, last of all, the manifest: a folder that has one is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, str] = {}
    for name, make in made:
        data = make().SerializeToString()
        (folder / f"{name}.onnx").write_bytes(data)
        files[f"{name}.onnx"] = hashlib.sha256(data).hexdigest()
        report(name, len(data))
    wire = source.codec.wire
    told = {
        "format": FORMAT,
        "name": source.system.net.name,
        "weights_sha256": source.sha256,
        "input_px": source.system.net.input_px,
        "classes": list(source.classes),
        "cuts": {p: [cut.channels, cut.height, cut.width] for p, cut in wire.cuts.items()},
        "low": {p: low.tolist() for p, low in wire.low.items()},
        "step": {p: step.tolist() for p, step in wire.step.items()},
        "tables": {name: base64.b64encode(data).decode() for name, data in named(wire.tables).items()},
        "files": files,
    }
    with whole(folder / MANIFEST) as part:
        part.write_text(json.dumps(told) + "\n", encoding="utf-8")
    return load_cnn(folder)


def cached_server(name: str, middles: bool = False, report: Callable[[str, int], None] = lambda *_: None) -> Cnn:
    """The server's models of a bundled CNN, from the user's cache folder; exported at the first start."""
    weights = WEIGHTS / f"{name}.safetensors"
    if not weights.is_file():
        raise CnnError(f"no trained CNN called {name!r}: {weights} does not exist")
    version = hashlib.sha256(weights.read_bytes()).hexdigest()[:16]
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = root / "tidesplit" / f"{name}-{version}{'-middles' if middles else ''}"
    if (folder / MANIFEST).is_file():
        return load_cnn(folder)
    source = trained(name)
    return export(source, folder, for_server(source, middles), report)


def for_bundle(bundle: Path, report: Callable[[str, int], None] = lambda *_: None) -> Cnn:
    """The models that a bundle's points need, in its folder `cnn`; exported where they are not there yet."""
    from tidesplit.agents.bundle import load

    folder = bundle / SUBFOLDER
    if (folder / MANIFEST).is_file():
        return load_cnn(folder)
    loaded = load(bundle)
    source = trained(loaded.profile.name)
    return export(source, folder, for_device(source, loaded.table), report)


def _say(name: str, size: int) -> None:
    print(f"{name}.onnx  {size / 2**20:.1f} MiB", flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Run; 0 when done, 2 for a user's mistake."""
    parser = argparse.ArgumentParser(prog="tidesplit export", description=__doc__.splitlines()[0])
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--profile", help="name of a trained CNN: every model, of device and server")
    which.add_argument("--bundle", type=Path, help="folder of train.py: what its policy's points need on the device")
    parser.add_argument("--out", type=Path, help="folder to write (with --profile)")
    options = parser.parse_args(arguments)
    try:
        if options.bundle:
            cnn = for_bundle(options.bundle, _say)
        elif options.out is None:
            parser.error("--out is needed with --profile")
        else:
            source = trained(options.profile)
            cnn = export(source, options.out, chain(for_server(source, True), for_device(source, None)), _say)
    except ValueError as error:
        print(f"tidesplit export: error: {error}", file=sys.stderr)
        return 2
    print(f"{len(cnn.files)} models of {cnn.name}, weights {cnn.version}, in {cnn.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
