"""Write a CNN's ONNX models: tidesplit export --profile NAME --out FOLDER

With --profile, all models of device and server. With --bundle, the models that a device with this trained policy needs,
into the bundle's folder `cnn`. Exporting needs the extra `train` (torch, onnx); running the models needs neither.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tidesplit.compression.codec.knobs import stream_of
from tidesplit.compression.codec.learned_entropy import Storable, named
from tidesplit.data.files import WEIGHTS, ranges_file, streams_file, whole
from tidesplit.runtime.cache import bound, cache_folder, used
from tidesplit.runtime.chains import Plan, device_plan
from tidesplit.runtime.cnn import ENGINES, FORMAT, MANIFEST, VERSION_DIGITS, Cnn, CnnError, load_cnn
from tidesplit.runtime.models import finish_model, first_model, middle_name, points_of, tail_name
from tidesplit.runtime.ncnn_files import for_engine

if TYPE_CHECKING:
    import onnx

    from tidesplit.compression.codec.wire import WireCodec
    from tidesplit.profiling.measuring.trained import Trained
    from tidesplit.profiling.points.profile import OperatingPoint, Profile


SUBFOLDER = "cnn"
CACHED = b"3"  # changes where an export of the same weights becomes another one; 3: by torch's exporter
Report = Callable[[str, int], None]
"""Called with each file's name and its size in bytes."""


def trained(name: str, weights: Path | None = None) -> Trained:
    """The network with its weights, the bundled ones if no others are given.

    Raises:
        CnnError: torch or onnx is not installed, or there are no such weights.
    """
    try:
        from tidesplit.profiling.measuring.trained import load_trained
    except ImportError as error:
        raise CnnError(
            f"exporting needs torch and onnx, and {error.name} is not installed: run it where 'tidesplit[train]' is"
        ) from error
    _weights_path(name, weights)
    try:
        return load_trained(name, weights)
    except (KeyError, ValueError, OSError) as error:
        raise CnnError(str(error)) from error


def _weights_path(name: str, weights: Path | None) -> Path:
    """The weights file that is given, or else the bundled one.

    Raises:
        CnnError: no CNN of that name is bundled.
    """
    path = weights or WEIGHTS / f"{name}.safetensors"
    if weights is None and not path.is_file():
        raise CnnError(f"no trained CNN called {name!r}; one of tidesplit prepare has a folder, which --cnn names")
    return path


def for_server(source: Trained, middles: bool) -> Plan:
    """The tails of all partitions. With `middles`, also the models from a picture or a cut to a later cut."""
    from tidesplit.compression.net import deploy

    system, last = source.system, source.system.partitions
    makers: dict[str, Callable[[], onnx.ModelProto]] = {}
    for first in range(last):
        makers[tail_name(first)] = partial(deploy.tail_model, system, first)
        for second in range(first + 1, last if middles else 0):
            makers[middle_name(first, second)] = partial(deploy.middle_model, system, first, second)
    return Plan({name: (name,) for name in makers}, makers)


def for_device(source: Trained, points: Iterable[OperatingPoint] | None = None) -> Plan:
    """The models that a device needs for some points, or all that there can be.

    Raises:
        CnnError: a point needs a model or tables that the network does not have.
    """
    if points is None:
        return device_plan(source)
    points = tuple(points)
    for point in points:
        if point.codec == "feature" and stream_of(point.id):
            _check_memory(source, point)
    needed = {name for point in points for name in (first_model(point), finish_model(point)) if name}
    plan = device_plan(source, needed)
    if missing := sorted(needed - plan.chains.keys()):
        raise CnnError(
            f"no model {missing[0]!r} of {source.system.net.name}; int8 needs its ranges: tidesplit fit-ranges"
        )
    return plan


def _check_memory(source: Trained, point: OperatingPoint) -> None:
    if (point.partition, point.bits) not in source.codec.wire.changes:
        raise CnnError(
            f"{point.id!r} needs tables of streams, and {source.system.net.name} has none for it: tidesplit fit-streams"
        )


def export(source: Trained, folder: Path, *plans: Plan, report: Report = lambda *_: None) -> Cnn:
    """Write the files of plans, and the manifest last: a folder with a manifest is complete."""
    net, chains = source.system.net, {name: chain for plan in plans for name, chain in plan.chains.items()}
    facts = {"name": net.name, "weights_sha256": source.sha256, "input_px": net.input_px, "classes": source.classes}
    models = {name: [f"{file}.onnx" for file in chain] for name, chain in chains.items()}
    makers = (maker for plan in plans for maker in plan.makers.items())
    files = ((f"{name}.onnx", make().SerializeToString()) for name, make in makers)
    return write_files(folder, facts, source.codec.wire, models, files, report)


def write_files(
    folder: Path, facts: Mapping[str, Any], wire: WireCodec, models: Mapping[str, Sequence[str]],
    files: Iterable[tuple[str, bytes]], report: Report = lambda *_: None,
) -> Cnn:  # fmt: skip
    """Write a CNN's files, and the manifest last.

    Args:
        folder: to write.
        facts: the manifest's entries about the CNN itself.
        wire: codec of its cuts.
        models: chain of files of each.
        files: by name.
        report: called for each.
    """
    folder.mkdir(parents=True, exist_ok=True)
    hashes: dict[str, str] = {}
    for name, data in files:
        (folder / name).write_bytes(data)
        hashes[name] = hashlib.sha256(data).hexdigest()
        report(name, len(data))
    return _with_manifest(folder, {
        "format": FORMAT, **facts,
        "cuts": {p: cut.shape for p, cut in wire.cuts.items()},
        "low": {p: low.tolist() for p, low in wire.low.items()},
        "step": {p: step.tolist() for p, step in wire.step.items()},
        "tables": _texts(wire.tables), "changes": _texts(wire.changes), "models": models, "files": hashes,
    })  # fmt: skip


def _with_manifest(folder: Path, manifest: Mapping[str, Any]) -> Cnn:
    with whole(folder / MANIFEST) as part:
        part.write_text(json.dumps(manifest) + "\n", encoding="utf-8")
    return load_cnn(folder)


def _texts(tables: Mapping[tuple[int, int], Storable]) -> dict[str, str]:
    """Tables as text, by name."""
    return {name: base64.b64encode(data).decode() for name, data in named(tables).items()}


def cached_server(name: str, middles: bool = False, report: Report = lambda *_: None) -> Cnn:
    """The server's models of a bundled CNN, from the user's cache folder. The first call exports them."""
    return _cached(name, None, "-middles" if middles else "", lambda source: (for_server(source, middles),), report)


def cached_all(name: str, weights: Path | None = None, report: Report = lambda *_: None) -> Cnn:
    """All models of device and server, those of a middle server left out, from the user's cache folder."""
    return _cached(name, weights, "-all", lambda source: (for_server(source, False), for_device(source)), report)


def _cached(
    name: str, weights: Path | None, kind: str, plans: Callable[[Trained], tuple[Plan, ...]], report: Report
) -> Cnn:
    """The CNN's models of some ``plans`` in the folder of their ``kind`` in the user's cache."""
    path = _weights_path(name, weights)
    sources = [file.read_bytes() for file in (path, ranges_file(path), streams_file(path)) if file.is_file()]
    version = hashlib.sha256(b"".join((*sources, CACHED))).hexdigest()[:VERSION_DIGITS]
    folder = cache_folder() / f"{name}-{version}{kind}"
    if (folder / MANIFEST).is_file():
        used(folder)
        return load_cnn(folder)
    source = trained(name, weights)
    cnn = export(source, folder, *plans(source), report=report)
    print(bound(folder), file=sys.stderr, flush=True)
    return cnn


def for_bundle(
    bundle: Path, report: Report = lambda *_: None, engine: str = ENGINES[0], weights: Path | None = None
) -> Cnn:
    """The models that a bundle's points need, in its folder `cnn`. The first call for an engine exports them.

    A folder of other weights than the policy's is written again.

    Raises:
        CnnError: there is no such CNN, or its weights are others than those that the policy was trained for.
    """
    from tidesplit.agents.bundle import load

    loaded, folder, held = load(bundle), bundle / SUBFOLDER, ""
    if (folder / MANIFEST).is_file():
        cnn = load_cnn(folder)
        if cnn.weights_sha256 == _expected(loaded.profile, cnn.weights_sha256):
            return for_engine(cnn, engine, report)
        held = f"{folder} holds other weights, {cnn.weights_sha256[:VERSION_DIGITS]}; "
    remedy = f"give tidesplit export --bundle {bundle} the right ones by --weights FILE or --cnn FOLDER"
    try:
        source = trained(loaded.profile.name, weights)
        _check_weights(loaded.profile, source.sha256, weights or "the bundled file", remedy)
    except CnnError as error:
        raise CnnError(held + str(error)) from error
    points = points_of(loaded.profile, loaded.table.ids)
    return for_engine(export(source, folder, for_device(source, points), report=report), engine, report)


def copy_for_bundle(bundle: Path, source: Cnn, report: Report = lambda *_: None, engine: str = ENGINES[0]) -> Cnn:
    """Copy the models that a bundle's points need from a folder of the same CNN, into the bundle's folder `cnn`.

    Raises:
        CnnError: the folder has other weights, or lacks a model.
    """
    from tidesplit.agents.bundle import load

    loaded, folder = load(bundle), bundle / SUBFOLDER
    remedy = f"give --cnn the folder of {loaded.profile.name} with these weights"
    _check_weights(loaded.profile, source.weights_sha256, source.folder, remedy)
    points = points_of(loaded.profile, loaded.table.ids)
    needed = sorted({name for point in points for name in (first_model(point), finish_model(point)) if name})
    if missing := [name for name in needed if not source.has(name)]:
        raise CnnError(f"{source.folder} has no model {missing[0]!r}, which the policy may choose")
    folder.mkdir(parents=True, exist_ok=True)
    files = sorted({file for name in needed for file in source.models[name]})
    for file in files:
        data = source.read(file)
        (folder / file).write_bytes(data)
        report(file, len(data))
    manifest = json.loads((source.folder / MANIFEST).read_text(encoding="utf-8"))
    manifest["models"] = {name: list(source.models[name]) for name in needed}
    manifest["files"] = {file: source.files[file] for file in files}
    return for_engine(_with_manifest(folder, manifest), engine, report)


def _expected(profile: Profile, found: str) -> str:
    """The hash of the weights that a profile was measured with; `found` where it names none."""
    return str(profile.cnn.get("weights_sha256", found))


def _check_weights(profile: Profile, found: str, place: Path | str, remedy: str) -> None:
    expected = _expected(profile, found)
    if expected != found:
        raise CnnError(
            f"{place} has weights {found[:VERSION_DIGITS]}, the policy was trained for {expected[:VERSION_DIGITS]}: "
            f"{remedy}"
        )


def say(name: str, size: int) -> None:
    """Report a file on the standard error output."""
    print(f"exported {name}, {size / 2**20:.1f} MiB", file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Run the command. Returns 0 when done, 2 after a user's mistake."""
    parser = argparse.ArgumentParser(
        prog="tidesplit export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--profile", metavar="NAME", help="trained CNN, such as efficientnet_lite0: all its models")
    which.add_argument(
        "--bundle", type=Path, help="folder that tidesplit train wrote: the models of its policy's points"
    )
    parser.add_argument(
        "--engine", choices=ENGINES, default=ENGINES[0],
        help="ncnn: write the float32 models of the device for ncnn too (default: onnxruntime)",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="folder to write; needed with --profile")
    others = parser.add_mutually_exclusive_group()
    others.add_argument("--weights", type=Path, metavar="FILE", help="weights of your own (default: the bundled ones)")
    others.add_argument(
        "--cnn",
        type=Path,
        metavar="FOLDER",
        help="with --bundle: take the models from the folder cnn of tidesplit prepare",
    )
    options = parser.parse_args(arguments)
    if options.profile and options.out is None:
        parser.error("--profile needs --out, the folder to write")
    try:
        if options.bundle and options.cnn:
            cnn = copy_for_bundle(options.bundle, load_cnn(options.cnn), say, options.engine)
        elif options.bundle:
            cnn = for_bundle(options.bundle, say, options.engine, options.weights)
        else:
            source = trained(options.profile, options.weights)
            cnn = export(source, options.out, for_server(source, True), for_device(source), report=say)
            cnn = for_engine(cnn, options.engine, say)
    except ValueError as error:
        print(f"tidesplit export: error: {error}", file=sys.stderr)
        return 2
    print(f"{len(cnn.models)} models of {cnn.name}, weights {cnn.version}, in {cnn.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
