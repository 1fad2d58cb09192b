"""Emulate a mobile link between a client and a server: a TCP relay that follows an uplink trace. Needs no root.

    tidesplit emulate --trace lte --rtt-ms 60 --listen 127.0.0.1:9000 --to 127.0.0.1:50051 --fault blackhole@10+8

The client connects to the address of --listen, here with tidesplit edge --server 127.0.0.1:9000.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from types import FrameType

import numpy as np

from tidesplit.envs.traces.summary import doubts, summed_up
from tidesplit.envs.traces.trace import Trace, load_traces
from tidesplit.runtime.emulator.faults import help_text, script
from tidesplit.runtime.emulator.proxy import Link, Status
from tidesplit.runtime.wire.address import Address, read_address

REFRESH_S = 0.5  # of the live line


def main(argv: Sequence[str] | None = None) -> int:
    """Run until interrupted. Returns 0 then, 2 after a user's mistake."""
    options = parser().parse_args(argv)
    try:
        trace = trace_of(options.trace, options.loop_from)
        link = link_of(options, trace)
    except ValueError as error:
        return complain(str(error))
    try:
        with link:
            serve(link, options, trace)
    except OSError as error:
        return complain(f"--listen {options.listen} --to {options.to}: {error.strerror or error}")
    return 0


def link_of(options: argparse.Namespace, trace: Trace) -> Link:
    """The link that the options describe. It does not listen yet.

    Raises:
        ValueError: an option or a fault cannot be used.
    """
    return Link(
        trace,
        to=read_address("--to", options.to),
        rtt_s=options.rtt_ms / 1e3,
        jitter_s=options.jitter_ms / 1e3,
        loss=options.loss,
        downlink_bps=options.downlink_mbps * 1e6,
        rng=np.random.default_rng(options.seed),
        listen=read_address("--listen", options.listen, least_port=0),
        script=script(options.fault),
    )


def trace_of(spec: str, start_s: float) -> Trace:
    """The single trace of ``spec``, starting ``start_s`` after its beginning.

    Raises:
        ValueError: there is no such trace, or several, or the start is not within it.
    """
    traces = load_traces(spec)
    if len(traces) != 1:
        raise ValueError(f"--trace {spec}: got a folder of {len(traces)} traces, expected one file")
    if not 0.0 <= start_s < traces[0].duration_s:
        raise ValueError(f"--loop-from {start_s:g}: expected a time within the trace's {traces[0].duration_s:g} s")
    return traces[0].with_offset(start_s)


def about(trace: Trace) -> str:
    """A line about the trace, and one for each doubt about its numbers."""
    sentences = (*summed_up([trace]), *(f"warning: {doubt}" for doubt in doubts([trace])))
    return "".join(f"{sentence}\n" for sentence in sentences)


def serve(link: Link, options: argparse.Namespace, trace: Trace) -> None:
    """Show the link on one line until Ctrl-C or SIGTERM."""
    with on_signals():
        own = Address(read_address("--listen", options.listen, least_port=0).host, link.address[1])
        say(f"listening on {own}, uplink {options.trace}, to {options.to}; Ctrl-C ends\n")
        say(about(trace))
        watch(link)
    say(f"{line(link.status())}\n" if not sys.stderr.isatty() else "\n")


def watch(link: Link) -> None:
    """Refresh the live line forever. A server that cannot be reached is reported once for each reason."""
    terminal, shown = sys.stderr.isatty(), None
    while True:
        status = link.status()
        if status.failure != shown:
            shown = status.failure
            say((("\r\x1b[K" if terminal else "") + f"server {shown}\n") if shown else "")
        if terminal:
            say(f"\r{line(status)}\x1b[K")
        time.sleep(REFRESH_S)


@contextlib.contextmanager
def on_signals() -> Iterator[None]:
    """Let the block inside end quietly on Ctrl-C or SIGTERM."""
    for number in (signal.SIGINT, signal.SIGTERM):  # background jobs of a shell ignore SIGINT without a handler
        signal.signal(number, _interrupt)
    with contextlib.suppress(KeyboardInterrupt):
        yield


def line(status: Status) -> str:
    """The link's status as one line of text."""
    parts = [
        f"{status.time_s:7.1f} s",
        "gone" if status.conditions.dark else f"{status.bandwidth_bps / 1e6:.2f} Mbit/s",
        f"queue {status.queued_s * 1e3:.0f} ms",
        f"sent up {status.up_bytes / 1e6:.2f} MB",
        f"down {status.down_bytes / 1e6:.2f} MB",
        f"{status.connections} open",
        *([status.failure] if status.failure else []),
    ]
    return "  ".join(parts)


def say(text: str) -> None:
    """Write to the terminal at once."""
    sys.stderr.write(text)
    sys.stderr.flush()


def complain(sentence: str, program: str = "tidesplit emulate") -> int:
    """Print a mistake of the user. Returns the exit code for it."""
    say(f"{program}: error: {sentence}\n")
    return 2


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="tidesplit emulate",
        description=__doc__,
        epilog=help_text(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--trace", required=True, help="uplink: a CSV, Mahimahi or Pensieve file, or lte (bundled)")
    made.add_argument(
        "--rtt-ms", type=float, default=60.0, metavar="MS", help="round trip, unless the trace has rtt_ms (60)"
    )
    made.add_argument(
        "--jitter-ms", type=float, default=0.0, metavar="MS", help="standard deviation of one-way delays (0)"
    )
    made.add_argument(
        "--loss", type=float, default=0.0, metavar="P", help="share of packets lost, and so a round trip late (0)"
    )
    made.add_argument(
        "--downlink-mbps", type=float, default=50.0, metavar="M", help="rate from server to client, constant (50)"
    )
    made.add_argument(
        "--listen", required=True, metavar="HOST:PORT", help="address for clients; port 0 is any free port"
    )
    made.add_argument("--to", required=True, metavar="HOST:PORT", help="address of the server")
    made.add_argument("--loop-from", type=float, default=0.0, metavar="S", help="start the trace at S seconds (0)")
    made.add_argument("--fault", action="append", default=[], metavar="FAULT", help="a fault as below; may be repeated")
    made.add_argument("--seed", type=int, default=0, help="seed of jitter and loss (0)")
    return made


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
