"""Hostile messages and payloads: python benchmarks/hostile.py --messages 100000 --payloads 1000000

First over the wire: hostile messages of streams to a server process, and an honest stream meanwhile.
Device ids, names, sequence numbers, references and payloads are made up, damaged, repeated, too long or out of order,
keys of ever new devices fill the server, and some clients leave at once. Prints the statuses that the messages got, the
memory of the server process, and what became of the honest stream's frames. Then hostile payloads and messages in this
process, see `hostile_payloads`: how each ended, and the most that memory grew.

Ends with 1 where an error had no type, an honest frame no answer, or memory grew by more than 64 MiB. Streams may take
half of that on the server.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from tidesplit.benchmarks.hostile_payloads import Hostile
from tidesplit.benchmarks.processes import memory_mib, serving
from tidesplit.benchmarks.results import write_json
from tidesplit.compression.codec.knobs import Knobs
from tidesplit.compression.codec.memory import CutMemory
from tidesplit.compression.codec.pixels import natural_picture
from tidesplit.compression.codec.video import VideoEncoder
from tidesplit.profiling.measuring.clock import machine_facts
from tidesplit.runtime.cnn import Cnn, load_cnn
from tidesplit.runtime.export import cached_server, say
from tidesplit.runtime.wire.messages import Request, build_request
from tidesplit.runtime.wire.protocol import METHODS
from tidesplit.runtime.wire.stream_place import StreamPlace

AT_ONCE = 24  # messages under way: fewer than a server takes, so that most refusals are about their contents
LIMIT_S = 60.0  # a busy machine answers late, which is not what is tested
MOST_MIB, STREAM_MIB = 64, 32  # growth of either process, and what the server may hold of streams
TYPED = {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "ABORTED reference unknown", "RESOURCE_EXHAUSTED", "CANCELLED"}
VIDEO = "p0-h264-q34"
BITS = 2
LENGTH = 24  # payloads of a true stream
NUMBERS = (-(2**63), -1, 0, 1, 2, 5, 2**31, 2**53, 2**63 - 1)
TEXTS = (
    "",
    "/",
    "p1",
    "d/",
    "/p1",
    "d/p1/p1",
    "d/p99",
    "d/P1",
    "d\0/p1",
    "d/p0-h264-q34-2048px",
    "\u00fc/p1",
    "d/" + "p" * 60,
)
PERIOD_S = 1 / 30


def cut_payloads(cnn: Cnn, partition: int, rng: np.random.Generator) -> list[bytes]:
    """Payloads of one stream of a cut, each relative to the one before."""
    cut, payloads = cnn.codec.cuts[partition], []
    y = rng.normal(size=cut.shape).astype(np.float32)
    memory: CutMemory | None = None
    for _ in range(LENGTH):
        y = y + rng.normal(0.0, 0.1, y.shape).astype(np.float32)
        payload, memory = cnn.codec.encode_next(y, y[0], Knobs(partition, 1.0, 1.0, BITS), memory)
        payloads.append(payload)
    return payloads


def video_payloads(cnn: Cnn) -> list[bytes]:
    """Payloads of one stream of video; none at all where PyAV is missing."""
    picture = natural_picture(cnn.input_px)
    try:
        encoder = VideoEncoder("h264", 34, cnn.input_px)
    except ImportError:
        return []
    return [encoder.encode(np.roll(picture, k, axis=1), key=k == 0) for k in range(LENGTH)]


def honest_streams(cnn: Cnn, rng: np.random.Generator) -> dict[str, list[bytes]]:
    """Payloads of true streams by name: of the last two cuts that have memory, and of video."""
    partitions = sorted({p for p, bits in cnn.codec.changes if bits == BITS})
    streams = {f"p{p}": cut_payloads(cnn, p, rng) for p in partitions[-2:]}
    video = video_payloads(cnn)
    return streams | ({VIDEO: video} if video else {})


@dataclass
class Attacker:
    """Makes hostile messages from those of true streams."""

    cnn: Cnn
    streams: dict[str, list[bytes]]
    rng: np.random.Generator

    def messages(self, count: int) -> Iterator[Any]:
        """So many ModelInferRequests."""
        ways: Sequence[Callable[[], Any]] = (
            self._in_order, self._in_order, self._new_device, self._out_of_order, self._damaged, self._other_payload,
            self._parameters, self._parameters, self._other_partition,
        )  # fmt: skip
        for _ in range(count):
            yield ways[int(self.rng.integers(len(ways)))]()

    def _request(self, name: str, number: int, device: str, reference: int | None) -> Request:
        place = StreamPlace(name, number, reference, device)
        return Request(self.cnn.name, int(name[1]), "", str(number), self.streams[name][number % LENGTH], place=place)

    def _drawn(self) -> tuple[str, int]:
        return str(self.rng.choice(list(self.streams))), int(self.rng.integers(LENGTH))

    def _in_order(self) -> Any:
        """A payload that is right where the one before it came just now."""
        name, number = self._drawn()
        return build_request(self._request(name, number, f"d{self.rng.integers(3)}", number - 1 if number else None))

    def _new_device(self) -> Any:
        return build_request(self._request(self._drawn()[0], 0, self.rng.bytes(20).hex(), None))

    def _out_of_order(self) -> Any:
        name, number = self._drawn()
        return build_request(self._request(name, number, "d0", int(self.rng.integers(-1, number + 2))))

    def _damaged(self) -> Any:
        name, number = self._drawn()
        request = self._request(name, number, f"d{self.rng.integers(3)}", number - 1 if number else None)
        data = bytearray(request.payload)
        for at in self.rng.integers(len(data), size=3):
            data[at] ^= 1 << int(self.rng.integers(8))
        kept = bytes(data[: int(self.rng.integers(1, len(data) + 1))]) if self.rng.random() < 0.5 else bytes(data)
        return build_request(replace(request, payload=kept + bytes(int(self.rng.choice([0, 0, 1, 70_000])))))

    def _other_payload(self) -> Any:
        """A payload of another stream, or none at all, as a key."""
        name, other = self._drawn()[0], self._drawn()[0]
        payload = self.streams[other][0] if self.rng.random() < 0.7 else self.rng.bytes(int(self.rng.integers(1, 300)))
        return build_request(replace(self._request(name, 0, "d1", None), payload=payload))

    def _parameters(self) -> Any:
        """Parameters of a wrong kind, out of range, too many or too few."""
        name, number = self._drawn()
        message = build_request(self._request(name, number, "d2", max(number - 1, 0)))
        for key in ("stream", "sequence", "reference", "next_point"):
            parameter, kind = message.parameters[key], self.rng.integers(5)
            if kind == 0 or (key == "next_point" and kind < 4):
                del message.parameters[key]
            elif kind == 1:
                parameter.int64_param = NUMBERS[self.rng.integers(len(NUMBERS))]
            elif kind == 2:
                parameter.string_param = TEXTS[self.rng.integers(len(TEXTS))]
            elif kind == 4:
                parameter.string_param = "x" * int(self.rng.integers(300))
        return message

    def _other_partition(self) -> Any:
        name, number = self._drawn()
        request = self._request(name, number, "d0", None)
        return build_request(replace(request, partition=int(self.rng.integers(10))))


def attack(address: str, messages: Iterator[Any], rng: np.random.Generator) -> Counter[str]:
    """Send the messages, AT_ONCE under way; one client in forty leaves at once. Returns how often each status came."""
    method, statuses = METHODS["ModelInfer"], Counter[str]()
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary(method.path, request_serializer=method.request.SerializeToString)
        under_way: deque[Any] = deque()
        for message in messages:
            under_way.append(call.future(message, timeout=LIMIT_S))
            if rng.random() < 1 / 40:
                under_way[-1].cancel()
            if len(under_way) >= AT_ONCE:
                statuses[_status(under_way.popleft())] += 1
        statuses.update(_status(future) for future in under_way)
    return statuses


def _status(future: Any) -> str:
    """The name of a call's status, of a reference that is unknown with its sentence."""
    code = str(future.code().name)
    return f"{code} reference unknown" if (future.details() or "").startswith("reference unknown") else code


@dataclass
class Honest:
    """A device that sends a true stream of 30 frames a second, on a thread, and counts its answers."""

    address: str
    cnn: Cnn
    name: str
    payloads: list[bytes]
    statuses: Counter[str] = field(default_factory=Counter)

    def __enter__(self) -> Honest:
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._send)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _send(self) -> None:
        method, number, name = METHODS["ModelInfer"], 0, self.name
        with grpc.insecure_channel(self.address) as channel:
            call = channel.unary_unary(method.path, request_serializer=method.request.SerializeToString)
            while not self._over.wait(PERIOD_S):
                at = number % LENGTH
                place = StreamPlace(name, number, number - 1 if at else None, "honest")
                request = Request(self.cnn.name, int(name[1]), "", str(number), self.payloads[at], place=place)
                future = call.future(build_request(request), timeout=LIMIT_S)
                self.statuses[_status(future)] += 1
                number += 1


def over_the_wire(cnn: Cnn, attacker: Attacker, messages: int, rng: np.random.Generator) -> dict[str, Any]:
    """Figures of an attack on a server process."""
    with serving("--cnn", str(cnn.folder), "--stream-mib", str(STREAM_MIB)) as process:
        server, address = process.pid, "{}:{}".format(*process.address)
        attack(address, attacker.messages(messages // 100), rng)  # so that all code and models are in memory
        before_mib, begun_s = memory_mib(server), time.perf_counter()
        most_mib, statuses = before_mib, Counter[str]()
        with Honest(address, cnn, *next(iter(attacker.streams.items()))) as honest:
            for _ in range(100):
                statuses += attack(address, attacker.messages(messages // 100), rng)
                most_mib = max(most_mib, memory_mib(server))
        return {
            "messages": sum(statuses.values()), "seconds": round(time.perf_counter() - begun_s, 1),
            "statuses": dict(sorted(statuses.items())), "server_mib_before": round(before_mib, 1),
            "server_mib_most": round(most_mib, 1), "server_stream_mib": STREAM_MIB, "honest": dict(honest.statuses),
        }  # fmt: skip


def in_this_process(hostile: Hostile, payloads: int) -> dict[str, Any]:
    """Figures of hostile payloads and messages in this process."""
    begun_s = time.perf_counter()
    hostile.run(payloads)
    return {
        "payloads": hostile.ends.total(), "payloads_seconds": round(time.perf_counter() - begun_s, 1),
        "payloads_ends": dict(sorted(hostile.ends.items())), "payloads_mib_most": round(hostile.most_mib, 1),
        "untyped": hostile.untyped[:20],
    }  # fmt: skip


def faults(found: dict[str, Any]) -> list[str]:
    """Sentences on what should not be in the figures."""
    said = [f"no type: {error}" for error in found.get("untyped", ())]
    said += [f"{n} messages got {status}" for status, n in found.get("statuses", {}).items() if status not in TYPED]
    said += [f"{n} honest frames got {status}" for status, n in found.get("honest", {}).items() if status != "OK"]
    grown = {
        "the server": found.get("server_mib_most", 0.0) - found.get("server_mib_before", 0.0),
        "this process": found.get("payloads_mib_most", 0.0),
    }
    over = {name: mib for name, mib in grown.items() if mib > MOST_MIB}
    return said + [f"{name} grew by {mib:.0f} MiB, more than {MOST_MIB}" for name, mib in over.items()]


def main() -> int:
    """Run the benchmark. Returns 1 where something is wrong."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--cnn", type=Path, metavar="FOLDER", help="models of a server; default: the bundled CNN's")
    p.add_argument("--messages", type=int, default=100_000, help="over the wire (default 100000; 0 for none)")
    p.add_argument("--payloads", type=int, default=0, help="in this process (default 0)")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--json", type=Path, help="write the figures to this file; those of the part left out stay in it")
    options = p.parse_args()
    cnn = load_cnn(options.cnn) if options.cnn else cached_server("efficientnet_lite0", report=say)
    rng = np.random.default_rng(options.seed)
    streams = honest_streams(cnn, rng)
    found: dict[str, Any] = {}
    if options.messages:
        found |= over_the_wire(cnn, Attacker(cnn, streams, rng), options.messages, rng)
    if options.payloads:
        found |= in_this_process(Hostile(cnn, streams, random.Random(options.seed)), options.payloads)
    for name, value in found.items():
        print(f"{name}: {value}")
    before = json.loads(options.json.read_text()) if options.json and options.json.exists() else {}
    write_json(options.json, {**before, **found, "machine": machine_facts(1)})
    wrong = faults(found)
    print("\n".join(wrong) or f"all typed, nothing over {MOST_MIB} MiB")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
