"""The emulator on real loopback sockets: times against the arithmetic, faults, and the command line."""

from __future__ import annotations

import contextlib
import math
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.runtime.punctual import on_time
from tests.runtime.waiting import LIMIT_S, until
from tidesplit.envs.traces.trace import Trace
from tidesplit.runtime.emulator import __main__ as emulate
from tidesplit.runtime.emulator.faults import Conditions, script
from tidesplit.runtime.emulator.proxy import Link
from tidesplit.runtime.emulator.shaper import constant, uplink_of

ROOT = Path(__file__).resolve().parents[3]
LATE_S = 0.15  # possible lateness of a thread on a busy machine; medians have tighter limits
RTT_S = 0.06


class Sink:
    """A server that answers one byte for each ``frame`` bytes and notes the times of their arrival."""

    def __init__(self, frame: int) -> None:
        self.frame, self.heard, self.ends = frame, 0, 0
        self.stamps: list[float] = []
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self.socket.getsockname()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.socket.accept()
            except OSError:
                return
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client:
            try:
                while data := client.recv(65_536):
                    frames = (self.heard + len(data)) // self.frame - self.heard // self.frame
                    self.heard += len(data)
                    self.stamps += [time.perf_counter()] * frames
                    client.sendall(b"." * frames)
                self.ends += 1
            except OSError:
                return


@pytest.fixture
def sink() -> Iterator[Sink]:
    server = Sink(1000)
    yield server
    server.socket.close()


def dial(link: Link) -> socket.socket:
    client = socket.create_connection(link.address, timeout=5.0)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def ask(client: socket.socket, size: int = 1000) -> float:
    """Seconds from sending ``size`` bytes to the answer's first byte."""
    start_s = time.perf_counter()
    client.sendall(bytes(size))
    assert client.recv(1) == b"."
    return time.perf_counter() - start_s


@pytest.mark.parametrize("size", [200, 10_000])
@pytest.mark.parametrize("bits_per_s", [1e6, 20e6])
@on_time
def test_median_latency_is_as_computed(size: int, bits_per_s: float) -> None:
    server = Sink(size)
    with Link(constant(bits_per_s), to=server.address, rtt_s=RTT_S) as link, dial(link) as client:
        took = [ask(client, size) for _ in range(7)]
    server.socket.close()
    wanted = 8 * size / bits_per_s + RTT_S
    assert min(took) > wanted - 0.002
    assert np.median(took) == pytest.approx(wanted, rel=0.10)


@on_time
def test_arrivals_follow_a_varying_trace() -> None:
    server = Sink(1000)
    trace = Trace("steps", np.arange(6) * 0.1, 0.6, np.array([2e6, 0.4e6, 0.0, 4e6, 1e6, 0.2e6]))
    with Link(trace, to=server.address, rtt_s=0.02) as link, dial(link) as client:
        link.start()
        start_s = time.perf_counter()
        client.sendall(bytes(40_000))
        assert len(read(client, 40)) == 40
        got = np.array(server.stamps[:40]) - start_s
    server.socket.close()
    ends = 1000.0 * np.arange(1, 41)
    lanes = np.zeros(40, dtype=np.int64)
    # A frame arrives with its last packet. Packets have at most 1,448 bytes.
    packets = np.minimum(np.ceil(ends / 1448) * 1448, 40_000)
    wanted = uplink_of(trace).finish_s(lanes, np.zeros(40), packets) + 0.01
    assert np.median(np.abs(got - wanted)) < 0.010
    assert (got - wanted).min() > -0.002


def read(client: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (more := client.recv(size - len(data))):
        data += more
    return data


@on_time
def test_connections_share_the_uplink(sink: Sink) -> None:
    with Link(constant(0.4e6), to=sink.address, rtt_s=0.0) as link, dial(link) as one, dial(link) as two:
        one.sendall(bytes(10_000))  # 200 ms of the line
        time.sleep(0.02)
        assert 0.1 < ask(two) < 0.2 + LATE_S


def test_all_bytes_arrive_in_both_directions() -> None:
    data = np.random.default_rng(0).bytes(300_000)
    echo = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        peer, _ = echo.accept()
        with peer:
            while piece := peer.recv(65_536):
                peer.sendall(piece)

    threading.Thread(target=serve, daemon=True).start()
    with Link(constant(40e6), to=echo.getsockname(), rtt_s=0.01, loss=0.01, jitter_s=0.001) as link, echo:
        with dial(link) as client:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            assert read(client, len(data) + 1) == data
        until(lambda: not link.status().connections)
        status = link.status()
    assert (status.connections, status.held_bytes, status.up_bytes, status.down_bytes) == (0, 0, 300_000, 300_000)


@on_time
def test_blackhole_holds_bytes_and_lets_them_flow_afterwards(sink: Sink) -> None:
    with Link(constant(8e6), to=sink.address, rtt_s=0.02) as link, dial(link) as client:
        ask(client)
        link.blackhole(True)
        threading.Timer(0.3, link.blackhole, args=(False,)).start()
        assert 0.29 < ask(client) < 0.33 + LATE_S


@on_time
def test_conditions_set_by_hand(sink: Sink) -> None:
    with Link(constant(8e6), to=sink.address, rtt_s=0.02) as link, dial(link) as client:
        link.change(extra_latency_s=0.1)
        assert np.median([ask(client) for _ in range(3)]) == pytest.approx(0.121, abs=0.02)
        link.change(extra_latency_s=0.0, bandwidth_factor=0.1)
        assert np.median([ask(client) for _ in range(3)]) == pytest.approx(0.030, abs=0.01)
        with pytest.raises(ValueError, match="bandwidth_factor"):
            link.change(bandwidth_factor=math.nan)
        assert link.status().conditions == Conditions(bandwidth_factor=0.1)


def test_reset_reaches_the_client(sink: Sink) -> None:
    with Link(constant(8e6), to=sink.address, rtt_s=0.02) as link, dial(link) as client:
        ask(client)
        link.reset()
        with pytest.raises(ConnectionError):
            client.recv(1)
        with dial(link) as again:
            ask(again)


def test_half_close_ends_only_the_answers(sink: Sink) -> None:
    with Link(constant(8e6), to=sink.address, rtt_s=0.02) as link, dial(link) as client:
        ask(client)
        link.half_close()
        assert client.recv(1) == b""
        client.sendall(bytes(1000))
        until(lambda: sink.heard == 2000)


@on_time
def test_script_plays_on_the_traces_clock(sink: Sink) -> None:
    faults = script(["blackhole@0.2+0.3", "reset@1.0", "slow-close@0=50"])
    with Link(constant(8e6), to=sink.address, rtt_s=0.02, script=faults) as link, dial(link) as client:
        assert link.now_s() == 0.0
        link.start()
        assert ask(client) < 0.1 + LATE_S
        time.sleep(max(0.3 - link.now_s(), 0.0))
        ask(client)
        assert 0.5 < link.now_s() < 0.53 + LATE_S
        with pytest.raises(ConnectionError):
            client.recv(1)
        assert 0.9 < link.now_s() < 1.0 + LATE_S


def test_no_server_is_a_reset_and_a_reason() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        address = gone.getsockname()
    with Link(constant(8e6), to=address) as link:
        with pytest.raises(ConnectionError):  # after the connection, or while it is made
            knock(link)
        assert "refused" in (link.status().failure or "")


SIX, FOUR = socket.AF_INET6, socket.AF_INET
LOOPBACK = {FOUR: "127.0.0.1", SIX: "::1"}


@pytest.fixture
def six_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """`localhost` is ::1 and then 127.0.0.1, as in the hosts file of Debian and Raspberry Pi OS."""
    try:
        socket.create_server(("::1", 0), family=SIX).close()
    except OSError:
        pytest.skip("needs IPv6 on loopback")

    real = socket.getaddrinfo

    def look_up(host: str, port: int, *more: int, **named: int) -> list[tuple[object, ...]]:
        if host != "localhost":
            return list(real(host, port, *more, **named))
        six, four = (SIX, socket.SOCK_STREAM, 6, "", ("::1", port, 0, 0)), ("127.0.0.1", port)
        return [six, (FOUR, socket.SOCK_STREAM, 6, "", four)]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


@pytest.mark.usefixtures("six_first")
@pytest.mark.parametrize("family", [FOUR, SIX])
@pytest.mark.parametrize("client", [FOUR, SIX])
def test_all_addresses_of_a_name_are_listened_on_and_tried(family: socket.AddressFamily, client: int) -> None:
    """Whichever of them the server has, and whichever the client tries."""
    with socket.create_server((LOOPBACK[family], 0), family=family) as server:
        to = ("localhost", server.getsockname()[1])
        with Link(constant(8e6), to=to, rtt_s=0.0, listen=("localhost", 0)) as link:
            assert link.address[0] == "127.0.0.1"
            with socket.socket(client) as caller:
                caller.settimeout(5.0)
                caller.connect((LOOPBACK[client], link.address[1]))
                caller.sendall(b"up")
                answering, _ = server.accept()
                with answering:
                    answering.settimeout(5.0)
                    assert answering.recv(2) == b"up"
                    answering.sendall(b"down")
                    assert caller.recv(4) == b"down"
            assert link.status().failure is None


@pytest.mark.usefixtures("six_first")
def test_a_name_that_nobody_serves_is_a_reason_which_goes_when_a_server_comes() -> None:
    with socket.create_server((LOOPBACK[FOUR], 0)) as gone:
        port = gone.getsockname()[1]
    with Link(constant(8e6), to=("localhost", port)) as link:
        with pytest.raises(ConnectionError):
            knock(link)
        assert link.status().failure == f"localhost:{port}: Connection refused"
        with socket.create_server((LOOPBACK[FOUR], port)) as server, dial(link) as client:
            server.settimeout(5.0)
            answering, _ = server.accept()
            with answering:
                answering.sendall(b".")
                assert client.recv(1) == b"."  # so the emulator knows that it is connected
            assert link.status().failure is None


def test_a_taken_address_is_an_error_and_leaves_no_socket(sink: Sink) -> None:
    with pytest.raises(OSError, match="in use"), Link(constant(8e6), to=sink.address, listen=sink.address):
        pass


def knock(link: Link) -> None:
    with socket.create_connection(link.address, timeout=5.0) as client:
        client.recv(1)


@on_time
def test_closing_is_quick_whatever_is_under_way(sink: Sink) -> None:
    with Link(constant(1e3), to=sink.address) as link, dial(link) as client:
        client.sendall(bytes(100_000))
        start_s = time.perf_counter()
        link.close()
        assert time.perf_counter() - start_s < 1.0
    link.close()


@pytest.mark.parametrize(
    ("bad", "name"), [({"rtt_s": -1.0}, "rtt_s"), ({"loss": 1.5}, "loss"), ({"downlink_bps": 0.0}, "downlink_bps")]
)
def test_a_link_refuses_impossible_values(bad: dict[str, float], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        Link(constant(1e6), to=("127.0.0.1", 1), **bad)


HERE = ["--listen", "127.0.0.1:0", "--to", "127.0.0.1:9"]
MISTAKES = [
    (["--trace", "no-such-trace", *HERE], "trace 'no-such-trace': no such file"),
    (["--trace", "lte", "--listen", "127.0.0.1", "--to", "127.0.0.1:9"], "--listen 127.0.0.1: HOST:PORT expected"),
    (["--trace", "lte", "--listen", "127.0.0.1:0", "--to", "h:99999"], "--to h:99999: HOST:PORT expected"),
    (["--trace", "lte", *HERE, "--fault", "flood@1"], "fault 'flood@1'"),
    (["--trace", "lte", *HERE, "--loss", "7"], "got loss 7"),
    (["--trace", "lte", *HERE, "--rtt-ms", "-4"], "got rtt_s -0.004"),
    (["--trace", "lte", *HERE, "--loop-from", "-4"], "--loop-from -4"),
    (["--trace", "lte", "--listen", "203.0.113.1:0", "--to", "127.0.0.1:9"], "--listen 203.0.113.1:0"),
]


@pytest.mark.parametrize(("arguments", "sentence"), MISTAKES)
def test_a_mistake_is_one_sentence_and_code_2(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert emulate.main(arguments) == 2
    said = capsys.readouterr().err.strip()
    assert sentence in said
    assert "\n" not in said


def test_a_trace_in_other_units_is_doubted(tmp_path: Path) -> None:
    file = tmp_path / "cooked.txt"
    file.write_text("0 1523\n1000 2412\n2000 871\n3000 0\n")
    assert emulate.about(emulate.trace_of(str(file), 0.0)).splitlines() == [
        "uplink cooked: 3000 s, mean 1094 Mbit/s, at most 2412 Mbit/s, steps of 1000 s",
        "warning: trace cooked: a mean of 1094 Mbit/s is implausible for a mobile uplink: bandwidth in Mbit/s expected",
        "warning: trace cooked: a median step of 1000 s is implausible for a mobile uplink: time in seconds expected",
    ]


def test_command_serves_until_interrupted(sink: Sink) -> None:
    to = f"{sink.address[0]}:{sink.address[1]}"
    command = [sys.executable, "-m", "tidesplit", "emulate", "--trace", "lte", "--rtt-ms", "40"]
    command += ["--listen", "127.0.0.1:0", "--to", to, "--loop-from", "3"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        watchdog = threading.Timer(LIMIT_S, process.kill)
        watchdog.start()
        try:
            said = interrupt_after_one_frame(process)
        finally:
            process.kill()
            watchdog.cancel()
    assert process.returncode == 0
    assert "Traceback" not in said
    assert "sent up 0.00 MB" in said
    assert "uplink lte: 1200 s, mean 0.8" in said


def test_a_server_that_refuses_is_said_at_once_without_a_terminal() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        to = f"127.0.0.1:{gone.getsockname()[1]}"
    command = [sys.executable, "-m", "tidesplit", "emulate", "--trace", "lte", "--listen", "127.0.0.1:0", "--to", to]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        watchdog = threading.Timer(LIMIT_S, process.kill)
        watchdog.start()
        try:
            assert process.stderr is not None
            port = int(process.stderr.readline().split("listening on 127.0.0.1:")[1].split(",")[0])
            assert process.stderr.readline().startswith("uplink lte")
            for _ in range(3):
                with contextlib.suppress(ConnectionResetError):  # the link resets it, at times before it is made
                    socket.create_connection(("127.0.0.1", port), timeout=5.0).close()
            assert process.stderr.readline() == f"server {to}: Connection refused\n"
            process.send_signal(signal.SIGINT)
            assert process.stderr.read().count("\n") == 1
        finally:
            process.kill()
            watchdog.cancel()


def interrupt_after_one_frame(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    port = int(process.stderr.readline().split("listening on 127.0.0.1:")[1].split(",")[0])
    with socket.create_connection(("127.0.0.1", port), timeout=5.0) as client:
        assert ask(client) > 0.040
    process.send_signal(signal.SIGINT)
    said = process.stderr.read()
    process.wait(LIMIT_S)
    return said
