"""Emulate a mobile link for IP packets, between two network namespaces. Needs Linux and root.

    tidesplit namespaces --trace lte --rtt-ms 60
    ip netns exec tidesplit-server tidesplit server --host 10.77.0.2 --insecure           # in other terminals
    ip netns exec tidesplit-client tidesplit edge --server 10.77.0.2:50051 --insecure ...

Each namespace has a TUN device. This process carries IP packets between the two at the times that `shaper` computes, so
the kernel needs no netem. TCP is the kernel's own, with handshake, slow start, retransmission and headers.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from tidesplit.runtime.emulator.__main__ import about, complain, on_signals, say, trace_of
from tidesplit.runtime.emulator.faults import Script
from tidesplit.runtime.emulator.lines import Lines, Setup
from tidesplit.runtime.emulator.streams import DEEP_BYTES

TUN = Path("/dev/net/tun")
CLIENT, SERVER = "tidesplit-client", "tidesplit-server"
ADDRESS = {CLIENT: "10.77.0.1", SERVER: "10.77.0.2"}
DEVICE = {CLIENT: "tidesplit0", SERVER: "tidesplit1"}
TUNSETIFF = 0x400454CA  # linux/if_tun.h
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
MOST_BYTES = 65_536
IDLE_S = 0.5


class NotPossibleError(RuntimeError):
    """This machine or this user cannot make namespaces. The message is one sentence."""


def why_not() -> str | None:
    """The first requirement that is missing; None where all known ones are met."""
    if not sys.platform.startswith("linux"):
        return f"got the system {sys.platform}, expected Linux"
    if os.geteuid() != 0:
        return "got a user without rights over network namespaces, expected root; tidesplit emulate needs no root"
    if shutil.which("ip") is None:
        return "found no command ip, expected iproute2 to be installed"
    return None if TUN.exists() else f"found no {TUN}, expected a kernel with TUN devices"


@contextlib.contextmanager
def namespaces() -> Iterator[tuple[int, int]]:
    """Both namespaces while the block runs. Yields the file descriptors of the client's and the server's TUN device.

    Raises:
        NotPossibleError: a requirement is missing, or the system refuses.
    """
    if reason := why_not():
        raise NotPossibleError(reason)
    with contextlib.ExitStack() as stack:
        client, server = (_end(stack, name, peer) for name, peer in ((CLIENT, SERVER), (SERVER, CLIENT)))
        yield client, server


def _end(stack: contextlib.ExitStack, name: str, peer: str) -> int:
    """One namespace with its device. ``stack`` removes both."""
    _ip("netns", "add", name)
    stack.callback(_ip, "netns", "del", name)
    try:
        device = _open(DEVICE[name])
    except OSError as error:
        raise NotPossibleError(f"the system refuses a TUN device ({error.strerror})") from error
    stack.callback(os.close, device)
    _ip("link", "set", "dev", DEVICE[name], "netns", name)  # this process keeps the descriptor
    _ip("-n", name, "addr", "add", ADDRESS[name], "peer", ADDRESS[peer], "dev", DEVICE[name])
    _ip("-n", name, "link", "set", "dev", "lo", "up")
    _ip("-n", name, "link", "set", "dev", DEVICE[name], "up")
    return device


def _open(name: str) -> int:
    import fcntl  # only POSIX has it, and `why_not` has to run elsewhere too

    device = os.open(TUN, os.O_RDWR | os.O_NONBLOCK)
    try:
        fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TUN | IFF_NO_PI))
    except OSError:
        os.close(device)
        raise
    return device


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, timeout=10, check=False)
    if done.returncode:
        raise NotPossibleError(f"'ip {' '.join(arguments)}' failed ({done.stderr.strip()})")


def carry(client: int, server: int, lines: Lines[bytes], loss: float, rng: np.random.Generator) -> None:
    """Carry packets between the two devices until interrupted. Lost ones and those beyond the buffer are dropped."""
    while True:
        with lines.lock:
            wait_s = min(max(lines.next_s() - lines.now_s(), 0.0), IDLE_S)
        readable, _, _ = select.select([client, server], [], [], wait_s)
        with lines.lock:
            for device, line in ((client, lines.up), (server, lines.down)):
                packet = os.read(device, MOST_BYTES) if device in readable else b""
                # Only IPv4: the kernel's IPv6 announcements are no traffic.
                if packet and packet[0] >> 4 == 4 and line.held_bytes < DEEP_BYTES and rng.random() >= loss:
                    lines.begin()
                    line.put(lines.now_s(), [packet], [len(packet)])
            now_s = lines.now_s()
            lines.play(now_s)
            for device, line in ((server, lines.up), (client, lines.down)):
                for packet in line.take(now_s):
                    with contextlib.suppress(OSError):  # a full device, or one that is down, loses packets
                        os.write(device, packet)


def main(argv: Sequence[str] | None = None) -> int:
    """Run until interrupted. Returns 0 then, 2 after a user's mistake or where namespaces are not possible."""
    parser = argparse.ArgumentParser(
        prog="tidesplit namespaces",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--trace", required=True, help="uplink: a CSV, Mahimahi or Pensieve file, or lte (bundled)")
    parser.add_argument(
        "--rtt-ms", type=float, default=60.0, metavar="MS", help="round trip, unless the trace has rtt_ms (60)"
    )
    parser.add_argument("--loss", type=float, default=0.0, metavar="P", help="share of packets lost (0)")
    parser.add_argument(
        "--downlink-mbps", type=float, default=50.0, metavar="M", help="rate from server to client, constant (50)"
    )
    options = parser.parse_args(argv)
    try:
        setup = Setup(
            trace_of(options.trace, 0.0), options.rtt_ms / 1e3, 0.0, options.loss, options.downlink_mbps * 1e6, Script()
        )
        rng = np.random.default_rng(0)
        with namespaces() as (client, server), on_signals():
            say(f"{CLIENT} is {ADDRESS[CLIENT]}, {SERVER} is {ADDRESS[SERVER]}, uplink {options.trace}; Ctrl-C ends\n")
            say(about(setup.trace))
            carry(
                client, server, Lines(replace(setup, loss=0.0), rng), setup.loss, rng
            )  # loss is applied in `carry`, where the packet is dropped
    except (NotPossibleError, ValueError) as error:
        return complain(str(error), "tidesplit namespaces")
    return 0


if __name__ == "__main__":
    sys.exit(main())
