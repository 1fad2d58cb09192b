"""A net of somebody else, from `prepare` to answered frames, by the public commands in processes of their own:

    python benchmarks/foreign_nets.py nets:resnet18 --pictures DIR --out FOLDER --json rows.json -- --weights FILE

What follows `--` is for `tidesplit prepare`. Then `tidesplit train` makes a policy for a Raspberry Pi 4 with this
machine as its server. `tidesplit edge` sends frames over loopback: by the policy, then all by one cut, then all as one
kind of picture. The row of the net is added to the JSON file. `--short` trains on few labels, for the path's sake only.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tidesplit.agents import bundle as bundles
from tidesplit.benchmarks.processes import served
from tidesplit.benchmarks.results import write_json
from tidesplit.compression.codec.knobs import sender, stream_of
from tidesplit.profiling.measuring.clock import machine_facts
from tidesplit.profiling.points import profile as profiles
from tidesplit.profiling.points.profile import OperatingPoint, Profile

COMMAND = ("-m", "tidesplit")
SHORT = """
import sys
from functools import partial
from tidesplit import train
from tidesplit.agents.judging import ladder
from tidesplit.agents.learning import training
ladder.Tuning.__init__.__kwdefaults__.update(lanes=4, episode_s=4.0)
few = training.ImitationConfig(labels_per_round=800)
training.Recipe = partial(training.Recipe, imitation=few, copying=few)
sys.exit(train.main())
"""
SHORT_OPTIONS = ("--fps", "5", "--deadline-ms", "400", "--holdout-s", "5", "--steps", "0")
LIMITS = (500, 1000)
"""Bytes for which the best point of each cut is shown."""


class FailedError(RuntimeError):
    """A command that did not end well. The message has its last line."""


def run(*words: str | Path, program: Sequence[str] = COMMAND) -> dict[str, Any]:
    """Run a command of Tidesplit. Returns its words, minutes, and minutes of processor time.

    Raises:
        FailedError: it did not end well.
    """
    given, begun_s, before = [*map(str, words)], time.perf_counter(), _children_s()
    told = deque[str](maxlen=1)
    with subprocess.Popen([sys.executable, *program, *given], text=True, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        for line in process.stderr:
            print(line, end="", file=sys.stderr, flush=True)
            told.append(line.strip())
    if process.returncode:
        raise FailedError(told[0] if told else f"exit code {process.returncode}")
    took = {"minutes": (time.perf_counter() - begun_s) / 60, "cpu_minutes": (_children_s() - before) / 60}
    return {"command": f"tidesplit {' '.join(given)}", **{name: round(value, 2) for name, value in took.items()}}


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def rows_of(profile: Profile) -> Iterator[dict[str, Any]]:
    """The uncut net, and of each cut and of video the best point within each of `LIMITS`."""
    uncut = profile.point("device-c1.00")
    yield _row(uncut, uncut, None)
    for partition in range(profile.partitions):
        kind = [p for p in profile.points if p.partition == partition and (partition > 0 or p.stream is not None)]
        for limit in LIMITS:
            fit = [p for p in kind if p.bytes_mean <= limit]
            if fit:
                yield _row(max(fit, key=lambda point: point.accuracy), uncut, limit)


def _row(point: OperatingPoint, uncut: OperatingPoint, limit: int | None) -> dict[str, Any]:
    compute = point.head_macs / (uncut.head_macs or 1.0)
    return {
        "point": point.id, "within_bytes": limit, "bytes": round(point.bytes_mean), "accuracy": point.accuracy,
        "interval": list(point.accuracy_ci95), "n": point.n, "lost": round(uncut.accuracy - point.accuracy, 4),
        "compute": round(compute, 3),
    }  # fmt: skip


def answers(bundle: Path, cnn: Path, pictures: Path, frames: int) -> dict[str, dict[str, int]]:
    """Who answered the frames: by the policy, by one cut, by one picture."""
    ids = [name for name in bundles.load(bundle).table.ids if name == sender(name)]
    fixed = [next(filter(kind, ids), "") for kind in (_cut, _picture)]
    found = dict[str, dict[str, int]]()
    with served("--cnn", str(cnn)) as (host, port):
        for point in ("", *filter(None, fixed)):
            log = bundle / f"frames-{point or 'policy'}.jsonl"
            log.unlink(missing_ok=True)
            words = ["edge", "--bundle", bundle, "--server", f"{host}:{port}", "--source", pictures, "--json", log]
            words += ["--frames", frames // 5 if point else frames, "--fps", 20, "--deadline-ms", 2000]
            run(*map(str, words), *(("--point", point) if point else ()))
            lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
            found[point or "policy"] = dict(Counter(line["answered_by"] for line in lines))
    return found


def _cut(point: str) -> bool:
    return point[0] == "p" and not point.startswith("p0-")


def _picture(point: str) -> bool:
    return point.startswith("p0-") and not stream_of(point)


def whole(options: argparse.Namespace) -> dict[str, Any]:
    """Everything for one net: its row."""
    out, bundle, row = options.out, options.out.with_name(f"{options.out.name}-policy"), dict[str, Any]()
    row["net"], row["machine"] = options.net, machine_facts(0)
    try:
        row["prepare"] = run("prepare", options.net, "--pictures", options.pictures, "--out", out, *options.prepare)
        profile = profiles.load(out)
        row["measure"], row["px"], row["classes"] = (profile.cnn[name] for name in ("measure", "input_px", "classes"))
        row["points"] = list(rows_of(profile))
        words = ("--profile", out, "--server", "this-machine", "--trace", "lte.csv", "--out", bundle)
        if options.short:
            row["train"] = run(*words, *SHORT_OPTIONS, program=("-c", SHORT)) | {"command": "train, shortened"}
        else:
            row["train"] = run("train", *words)
        run("export", "--bundle", bundle, "--cnn", out / "cnn")
        row["answered_by"] = answers(bundle, out / "cnn", options.pictures, options.frames)
    except FailedError as error:
        row["failed"] = str(error)
    return row


def main() -> None:
    """Run one net, and add its row to the JSON file."""
    words = sys.argv[1:]
    at = words.index("--") if "--" in words else len(words)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("net", metavar="NET", help="of tidesplit prepare")
    parser.add_argument("--pictures", type=Path, required=True, help="folder of pictures")
    parser.add_argument("--out", type=Path, required=True, help="folder to write; the policy lies next to it")
    parser.add_argument(
        "--frames",
        type=int,
        default=300,
        help="sent by the policy; a fifth of them by each fixed point (default: %(default)s)",
    )
    parser.add_argument("--short", action="store_true", help="train on few labels, for the path's sake only")
    parser.add_argument("--json", type=Path, help="file of rows to add to")
    options = parser.parse_args(words[:at])
    options.prepare = words[at + 1 :]
    row = whole(options)
    before = json.loads(options.json.read_text()) if options.json and options.json.exists() else {"rows": []}
    kept = [old for old in before["rows"] if old["net"] != row["net"]]
    write_json(options.json, {"rows": [*kept, row]})
    print(json.dumps(row, indent=1))


if __name__ == "__main__":
    main()
