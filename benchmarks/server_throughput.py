"""Requests a second that one server process with one worker thread serves, from one client on the same machine.

python benchmarks/server_throughput.py --cnn FOLDER --seconds 3

Client and server share the machine: give the server a core of its own (`--cores 0`), the client has the rest.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import grpc
import numpy as np

from tidesplit.compression.codec.image_codec import encode_image
from tidesplit.compression.codec.knobs import Knobs
from tidesplit.compression.codec.pixels import natural_picture, to_input
from tidesplit.runtime.cnn import Cnn, load_cnn
from tidesplit.runtime.wire.messages import PROBE, Request, build_probe, build_request
from tidesplit.runtime.wire.protocol import METHODS

AT_ONCE = 4  # requests kept under way: enough that the worker never waits for the client


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cnn", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--cores", type=int, nargs="+", help="cores that the server may use")
    options = parser.parse_args()
    cnn = load_cnn(options.cnn)
    command = [sys.executable, "-m", "tidesplit.runtime.server", "--cnn", str(options.cnn), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        if options.cores:
            for task in os.listdir(f"/proc/{process.pid}/task"):
                os.sched_setaffinity(int(task), options.cores)
        assert process.stdout is not None
        address = process.stdout.readline().split("listening on ")[1].split(",")[0]
        for title, message in _messages(cnn):
            times = _ask(address, message, options.seconds)
            print(
                f"{title:10s} {len(times) / options.seconds:7.0f} requests/s, "
                f"median {1e3 * np.median(times):.1f} ms, p95 {1e3 * np.quantile(times, 0.95):.1f} ms, n {len(times)}"
            )
    finally:
        process.terminate()
        process.wait(10)


def _messages(cnn: Cnn) -> list[tuple[str, object]]:
    pixels = natural_picture(cnn.input_px)
    made: list[tuple[str, object]] = [(PROBE, build_probe("1", bytes(1000)))]
    made.append(("p0", build_request(Request(cnn.name, 0, "", "1", encode_image(pixels, "jpeg", 75)))))
    for partition in cnn.codec.cuts:
        _, y, score = cnn.session(f"head-p{partition}-c1.00").run(None, {"x": to_input(pixels)})
        payload = cnn.codec.encode(y[0], score[0, 0], Knobs(partition, 1.0, 1.0, 4))
        made.append((f"p{partition}", build_request(Request(cnn.name, partition, "", "1", payload))))
    return made


def _ask(address: str, message: object, seconds: float) -> list[float]:
    """Times of the requests answered within `seconds`, AT_ONCE of them under way."""
    method = METHODS["ModelInfer"]
    times: list[float] = []
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary(method.path, request_serializer=method.request.SerializeToString)
        call(message, timeout=10.0)
        end_s = time.perf_counter() + seconds
        under_way = [(time.perf_counter(), call.future(message, timeout=10.0)) for _ in range(AT_ONCE)]
        while under_way:
            start_s, future = under_way.pop(0)
            future.result()
            now_s = time.perf_counter()
            if now_s < end_s:
                times.append(now_s - start_s)
                under_way.append((now_s, call.future(message, timeout=10.0)))
    return times


if __name__ == "__main__":
    main()
