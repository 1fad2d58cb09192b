"""Requests a second that one server process with one worker thread serves, from one client on the same machine.

    python benchmarks/server_throughput.py --cnn FOLDER --seconds 3

Client and server share the machine: give the server a core of its own (--cores 0), the client has the rest.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import grpc

from tidesplit.benchmarks.processes import served
from tidesplit.benchmarks.results import percentiles
from tidesplit.compression.codec.image_codec import encode_image
from tidesplit.compression.codec.knobs import Knobs
from tidesplit.compression.codec.pixels import natural_picture, to_input
from tidesplit.runtime.cnn import Cnn, load_cnn
from tidesplit.runtime.wire.messages import PROBE, Request, build_probe, build_request
from tidesplit.runtime.wire.protocol import METHODS

AT_ONCE = 4  # requests kept under way: enough that the worker never waits for the client


def messages(cnn: Cnn) -> Iterator[tuple[str, object]]:
    """A probe, a picture, and a full-width feature of every cut, each with its name."""
    pixels = natural_picture(cnn.input_px)
    yield PROBE, build_probe("1", bytes(1000))
    yield "p0", build_request(Request(cnn.name, 0, "", "1", encode_image(pixels, "jpeg", 75)))
    for partition in cnn.codec.cuts:
        _, y, score = cnn.session(f"head-p{partition}-c1.00").run(None, {"x": to_input(pixels)})
        payload = cnn.codec.encode(y[0], score[0, 0], Knobs(partition, 1.0, 1.0, 4))
        yield f"p{partition}", build_request(Request(cnn.name, partition, "", "1", payload))


def ask(address: str, message: object, seconds: float, at_once: int = AT_ONCE) -> list[float]:
    """Times of the requests answered within ``seconds``, ``at_once`` of them under way."""
    method = METHODS["ModelInfer"]
    times: list[float] = []
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary(method.path, request_serializer=method.request.SerializeToString)
        call(message, timeout=10.0)
        end_s = time.perf_counter() + seconds
        under_way = [(time.perf_counter(), call.future(message, timeout=10.0)) for _ in range(at_once)]
        while under_way:
            start_s, future = under_way.pop(0)
            refused = future.exception() is not None
            now_s = time.perf_counter()
            if now_s < end_s:
                times += [] if refused else [now_s - start_s]
                under_way.append((now_s, call.future(message, timeout=10.0)))
    return times


def line(title: str, times_s: Sequence[float], seconds: float) -> str:
    """Requests a second, and the spread of their times."""
    ms = percentiles([1e3 * time_s for time_s in times_s], median=50, p95=95)
    rate = f"{title:10s} {len(times_s) / seconds:7.0f} requests/s"
    return f"{rate}, median {ms['median']:.1f} ms, p95 {ms['p95']:.1f} ms, n {len(times_s)}"


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cnn", type=Path, required=True, help="folder of tidesplit export")
    parser.add_argument("--seconds", type=float, default=3.0, help="time for each kind of request")
    parser.add_argument("--cores", type=int, nargs="+", default=[], help="processor cores that the server may use")
    options = parser.parse_args(argv)
    with served("--cnn", str(options.cnn), cores=options.cores) as (host, port):
        for title, message in messages(load_cnn(options.cnn)):
            print(line(title, ask(f"{host}:{port}", message, options.seconds), options.seconds), flush=True)


if __name__ == "__main__":
    main()
