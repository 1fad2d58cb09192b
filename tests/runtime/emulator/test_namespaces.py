"""IP packets between two network namespaces, and one sentence where namespaces are not possible."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runtime.punctual import on_time
from tidesplit.runtime.emulator import namespaces

ROOT = Path(__file__).resolve().parents[3]

SERVE = """
import socket
with socket.create_server(("10.77.0.2", 8001)) as server:
    print("ready", flush=True)
    while True:
        peer, _ = server.accept()
        peer.recv(65536)
        peer.sendall(b".")
"""
ASK = """
import socket, time
start = time.perf_counter()
with socket.create_connection(("10.77.0.2", 8001), timeout=5) as client:
    connected = time.perf_counter()
    client.sendall(bytes(1000))
    client.recv(1)
    print(connected - start, time.perf_counter() - connected)
"""
IMPOSSIBLE = [
    (sys, "platform", "darwin", "got the system darwin"),
    (os, "geteuid", lambda: 1000, "expected root; tidesplit emulate needs no root"),
    (shutil, "which", lambda _: None, "found no command ip"),
    (namespaces, "TUN", Path("/nowhere/tun"), "found no /nowhere/tun"),
]


@pytest.mark.parametrize(("where", "name", "value", "sentence"), IMPOSSIBLE)
def test_a_missing_requirement_is_one_sentence_and_code_2(
    where: object,
    name: str,
    value: object,
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for target, attribute, good in (
        (sys, "platform", "linux"),
        (os, "geteuid", lambda: 0),
        (shutil, "which", lambda _: "ip"),
        (namespaces, "TUN", Path(__file__)),
    ):
        monkeypatch.setattr(target, attribute, good)
    assert namespaces.why_not() is None
    monkeypatch.setattr(where, name, value)
    assert namespaces.main(["--trace", "lte"]) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1


def spawn(*command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.skipif(namespaces.why_not() is not None, reason=f"namespaces: {namespaces.why_not()}")
@on_time
def test_tcp_between_the_namespaces_has_the_links_rate_and_round_trip(tmp_path: Path) -> None:
    trace = tmp_path / "slow.csv"
    trace.write_text("time_s,bandwidth_mbps\n0,0.2\n1,0.2\n")
    with spawn(sys.executable, "-m", "tidesplit", "namespaces", "--trace", str(trace), "--rtt-ms", "80") as link:
        try:
            assert link.stderr is not None
            if "error" in (said := link.stderr.readline()):
                pytest.skip(said)
            connect_s, answer_s = measure()
            link.send_signal(signal.SIGINT)
            assert link.wait(5) == 0
        finally:
            link.kill()
    assert 0.080 < connect_s < 0.084 + 0.15
    assert 0.120 < answer_s < 0.126 + 0.15  # 1,052 bytes with their headers take 42 ms


def measure() -> tuple[float, float]:
    """Seconds for connecting, and for an answer to 1,000 bytes."""
    inside = ("ip", "netns", "exec")
    with spawn(*inside, namespaces.SERVER, sys.executable, "-c", SERVE) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == "ready\n"
            ask = [*inside, namespaces.CLIENT, sys.executable, "-c", ASK]
            said = subprocess.run(ask, capture_output=True, text=True, timeout=10, check=True).stdout
        finally:
            server.kill()
    connect_s, answer_s = map(float, said.split())
    return connect_s, answer_s
