"""The command of the device: a bundle, pictures, a server. Each mistake gets one sentence and exit code 2."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.agents.small import BUMPY
from tests.profiles import synthetic_profile
from tests.runtime.deployed import CLASSES, DEMAND, points, points_of_three, server_process
from tests.runtime.waiting import LIMIT_S, until
from tidesplit.agents.learning.bundle_writer import write_bundle
from tidesplit.agents.learning.training import PpoConfig, Recipe, new_model, policy_of
from tidesplit.compression.codec.pixels import natural_picture
from tidesplit.envs.simulation.scenario import scenario_from
from tidesplit.envs.world.physics import USUAL
from tidesplit.envs.world.vocabulary import Demand
from tidesplit.runtime import edge
from tidesplit.runtime.cnn import Cnn
from tidesplit.runtime.log.record import Record

ROOT = Path(edge.__file__).parents[1]
KEYS = {
    "frame", "arrival_s", "decision", "predicted_ms", "actual_ms", "bytes", "dropped", "answered_by", "class", "label",
    "picture", "utility", "demand", "observation", "mask", "breaker", "error", "time", "confidence", "top5", "tensors",
    "pictures_skipped", "by_rule", "resting", "out_of_range", "race", "temperature_c", "joules",
    "stream", "sequence", "key", "reference_age", "motion", "spending",
}  # fmt: skip


@pytest.fixture(scope="module")
def bundle(cnn: Cnn, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained policy over the small CNN's points, with the exported CNN."""
    folder = tmp_path_factory.mktemp("bundle")
    profile, table = points(cnn.partitions)
    scenario = scenario_from(trace=[BUMPY], profile=profile, device="device", server="server", demands=[DEMAND])
    torch.manual_seed(0)
    model = new_model(scenario, Recipe(ppo=PpoConfig(lanes=4, rollout=8, batch=32)))
    write_bundle(
        folder, policy_of(model), profile=profile, table=table, machines=("device", "server"), demand=DEMAND,
        config={"trace": "lte"},
    )  # fmt: skip
    (folder / "cnn").symlink_to(cnn.folder)
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three drawn pictures of two classes."""
    root = tmp_path_factory.mktemp("pictures")
    for number, label in enumerate((CLASSES[0], CLASSES[0], CLASSES[1])):
        (root / label).mkdir(exist_ok=True)
        Image.fromarray(natural_picture(64, number)).save(root / label / f"{number}.jpg")
    return root


def test_each_frame_has_a_line_in_the_log(
    bundle: Path, pictures: Path, cnn: Cnn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Under budgets also the prices and means so far. They stand in the last line too."""
    log, board = tmp_path / "log.jsonl", tmp_path / "board"
    with server_process(cnn.folder) as (_, port):
        code = edge.main(
            ["--bundle", str(bundle), "--server", f"localhost:{port}", "--source", str(pictures), "--frames", "30",
             "--json", str(log), "--tensorboard", str(board), "--pace", "device",
             "--max-watts", "4", "--max-gb-month", "20"]
        )  # fmt: skip
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert code == 0
    assert sorted(line["frame"] for line in lines) == list(range(30))
    assert all(set(line) == KEYS for line in lines)
    assert {line["answered_by"] for line in lines} <= {"server", "device", "miss"}
    assert {line["label"] for line in lines} == set(CLASSES[:2])
    assert all(len(line["mask"]) == 3 for line in lines)
    assert all(line["joules"] >= 2.0 * DEMAND.period_s for line in lines)  # idle at least
    assert list(board.iterdir())
    assert {(line["demand"]["max_watts"], line["demand"]["max_gb_month"]) for line in lines} == {(4.0, 20.0)}
    assert {tuple(line["spending"]) for line in lines} == {("joule_price", "byte_price", "watts", "gb_month")}
    assert len({line["observation"]["joule_price"] for line in lines}) > 10
    last = capsys.readouterr().err.splitlines()[-1]
    assert " GB of 20 GB a month: " in last
    assert " W of 4 W: " in last
    for line in lines:
        if line["class"] is not None:
            assert line["top5"][0] == [line["class"], line["confidence"]]
            assert sum(share for _, share in line["top5"]) == pytest.approx(1.0, abs=1e-3)  # of four classes
        else:
            assert (line["top5"], line["confidence"]) == ([], None)


def test_a_policy_of_three_tiers_decides_for_both_hops(pictures: Path, cnn: Cnn, tmp_path: Path) -> None:
    profile, _ = points_of_three(cnn.partitions)
    scenario = scenario_from(
        trace=[BUMPY], profile=profile, device="device", server="server", cloud="server", tiers=3, demands=[DEMAND]
    )
    torch.manual_seed(0)
    model = new_model(scenario, Recipe(ppo=PpoConfig(lanes=4, rollout=8, batch=32)))
    bundle, log = tmp_path / "bundle", tmp_path / "log.jsonl"
    write_bundle(
        bundle, policy_of(model), profile=profile, table=scenario.table,
        machines=("device", "server", "server"), demand=DEMAND, config={"trace": "lte"},
    )  # fmt: skip
    (bundle / "cnn").symlink_to(cnn.folder)
    with (
        server_process(cnn.folder) as (_, last),
        server_process(cnn.folder, "--next", f"localhost:{last}") as (_, port),
    ):
        options = ["--bundle", str(bundle), "--server", f"localhost:{port}", "--source", str(pictures)]
        assert edge.main([*options, "--frames", "30", "--json", str(log), "--pace", "device"]) == 0
        assert edge.main([*options, "--next-point", "cloud"]) == 2
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert sorted(line["frame"] for line in lines) == list(range(30))
    assert all(set(line) == KEYS for line in lines)
    assert all("hop2_goodput" in line["observation"] for line in lines)


def test_the_last_line_has_energy_and_data() -> None:
    """At 20 fps: 1,000 bytes a frame are 51.84 GB in 30 days, and 0.15 J a frame are 3 W."""
    tally, mask = edge.Tally(), np.ones(1, dtype=bool)
    for joules, size in ((0.1, 500), (0.2, 1500)):
        one = Record(0, "", None, Demand(fps=20.0), "", 0, {}, mask, {}, latency_s=0.05, answered_by="server")
        one.joules, one.sent_bytes = joules, size
        tally(one)
    assert tally.text().endswith("mean latency 50.0 ms, 51.8 GB a month, estimated 0.150 J a frame (3.00 W)")


def test_frames_come_from_a_stream_too(bundle: Path, pictures: Path, cnn: Cnn) -> None:
    data = b"".join(p.read_bytes() for p in sorted(pictures.rglob("*.jpg")) * 5)
    with server_process(cnn.folder) as (_, port):
        done = subprocess.run(
            [sys.executable, "-m", "tidesplit.runtime.edge", "--bundle", str(bundle), "--server", f"localhost:{port}",
             "--source", "-"],
            input=data, capture_output=True, cwd=ROOT, timeout=60, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    assert b"15 frames" in done.stderr


@contextmanager
def edge_process(bundle: Path, *options: str, **more: Any) -> Iterator[subprocess.Popen[bytes]]:
    """The command. It is killed where a test fails before it has ended."""
    command = [sys.executable, "-m", "tidesplit", "edge", "--bundle", str(bundle), "--server", "localhost:1"]
    with subprocess.Popen([*command, *options], cwd=ROOT, **more) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopping_while_a_camera_is_silent_prints_the_summary(
    bundle: Path, pictures: Path, tmp_path: Path, number: signal.Signals
) -> None:
    log, frame = tmp_path / "log.jsonl", next(pictures.rglob("*.jpg")).read_bytes()
    pipe = subprocess.PIPE
    with edge_process(bundle, "--source", "-", "--json", str(log), stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stdin is not None
        process.stdin.write(frame * 2)
        process.stdin.flush()
        until(lambda: log.exists() and len(log.read_bytes().splitlines()) == 2)
        process.send_signal(number)
        assert process.wait(LIMIT_S) == 130
        assert process.stderr is not None
        last = process.stderr.read().decode().splitlines()[-1]
    assert last.startswith("tidesplit edge: 2 frames: server 0.0 %")


def test_a_full_disk_stops_neither_frames_nor_heartbeat_and_the_log_is_rotated(
    bundle: Path, pictures: Path, tmp_path: Path
) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    log, board = tmp_path / "log.jsonl", tmp_path / "no" / "board"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(LIMIT_S)
        environment = os.environ | {"NOTIFY_SOCKET": str(tmp_path / "notify")}
        options = ["--source", str(pictures), "--fps", "50", "--deadline-ms", "250", "--json"]
        with edge_process(bundle, *options, "/dev/full", stderr=subprocess.PIPE, env=environment) as process:
            got = [manager.recv(256) for _ in range(3)]
            process.terminate()
            assert process.wait(LIMIT_S) == 130
            assert process.stderr is not None
            said = process.stderr.read().decode()
        assert got[0] == b"READY=1"
        assert all(state.startswith(b"WATCHDOG=1") for state in got[1:])
        assert said.count("No space left") == 1
        assert "Traceback" not in said
    with edge_process(bundle, *options, str(log), "--tensorboard", str(board), stderr=subprocess.DEVNULL) as process:
        until(lambda: log.exists() and log.stat().st_size > 5000)
        log.rename(tmp_path / "log.jsonl.1")
        process.send_signal(signal.SIGHUP)
        until(lambda: log.exists() and log.stat().st_size > 5000)
        process.terminate()
        assert process.wait(LIMIT_S) == 130
    text = "".join((tmp_path / name).read_text() for name in ("log.jsonl.1", "log.jsonl"))
    numbers = [json.loads(line)["frame"] for line in text.splitlines()]
    assert sorted(numbers) == list(range(len(numbers)))


@pytest.mark.parametrize("data", [b"", b"no picture at all"])
def test_a_stream_without_a_frame_is_an_error(bundle: Path, data: bytes) -> None:
    pipe = subprocess.PIPE
    with edge_process(bundle, "--source", "-", stdin=pipe, stderr=pipe) as process:
        _, said = process.communicate(data, 60)
    assert process.returncode == 2
    assert b"the stream ended without a picture" in said.splitlines()[-1]


def test_the_log_on_the_standard_output_is_nothing_but_lines_and_no_one_need_read_the_error_output(
    bundle: Path, pictures: Path
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    options = ["--source", str(pictures), "--frames", "5", "--json", "-", "--privacy"]
    with edge_process(bundle, *options, stdout=subprocess.PIPE, stderr=writing) as process:
        out, _ = process.communicate(timeout=60)
    os.close(writing)
    lines = [json.loads(line) for line in out.splitlines()]
    assert sorted(line["frame"] for line in lines) == list(range(5))
    assert process.returncode == 0
    assert {len(line["mask"]) for line in lines} == {2}, "without the point that sends pictures"


def test_the_device_needs_no_torch(bundle: Path) -> None:
    script = (
        "import sys, tidesplit.runtime.edge, tidesplit.runtime.export;"
        "code = tidesplit.runtime.edge.main(sys.argv[1:]);"
        "assert not {'torch', 'gymnasium', 'pandas', 'scipy', 'stable_baselines3'} & set(sys.modules), 'too much';"
        "sys.exit(code)"
    )
    options = ["--bundle", str(bundle), "--server", "localhost:1", "--frames", "5"]
    done = subprocess.run(
        [sys.executable, "-c", script, *options], capture_output=True, cwd=ROOT, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--bundle", "nowhere"], "no bundle"),
        (["--server", "localhost"], "HOST:PORT expected"),
        (["--server", "localhost:99999"], "HOST:PORT expected"),
        (["--server", "http://localhost:1"], "without http://"),
        (["--server", "example.org:50051"], "--tls-ca, or --insecure"),
        (["--source", "nowhere"], "is not a folder of pictures"),
        (["--frames", "0"], "1 or more expected"),
        (["--threads", "0"], "1 or more expected"),
        (["--fps", "0"], "frames a second"),
        (["--pace", "toaster"], "no timings of 'toaster'"),
        (["--max-watts", "-1"], "a budget above 0"),
        (["--max-watts", "3", "--pace", "server"], "the profile has no watts of this device"),
        (["--tls-cert", "a.pem"], "belong together"),
        (["--token-file", "nowhere"], "nowhere"),
        (["--json", "nowhere/log"], "--json nowhere/log cannot be opened: No such file"),
    ],
)
def test_mistakes_get_one_sentence(
    bundle: Path, options: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    usual = {"--bundle": str(bundle), "--server": "localhost:1", "--frames": "3"}
    given = usual | dict(zip(options[::2], options[1::2], strict=True))
    assert edge.main([word for pair in given.items() for word in pair]) == 2
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert told.startswith("tidesplit edge: error: ")
    assert sentence in told


def test_a_cnn_of_other_weights_is_refused(
    bundle: Path, cnn: Cnn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in bundle.iterdir():
        if file.name != "cnn":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "cnn").mkdir()
    for model in cnn.folder.glob("*.onnx"):
        (tmp_path / "cnn" / model.name).write_bytes(b"altered" if "part" in model.name else model.read_bytes())
    (tmp_path / "cnn" / "cnn.json").write_bytes((cnn.folder / "cnn.json").read_bytes())
    assert edge.main(["--bundle", str(tmp_path), "--server", "localhost:1", "--frames", "3"]) == 2
    assert "it was altered" in capsys.readouterr().err


def test_the_program_in_the_docs_runs(
    bundle: Path, cnn: Cnn, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures as arrays in, records out, and the counts of all frames."""
    page = (ROOT / "docs" / "use.md").read_text(encoding="utf-8")
    (text,) = (block for block in page.split("```python\n")[1:] if "watch(" in block)
    with server_process(cnn.folder) as (_, port):
        text = text.split("```")[0].replace("out/lte", str(bundle)).replace("50051", str(port))
        exec(compile(text.replace("range(100)", "range(12)"), "use.md", "exec"), {"__name__": "of_the_docs"})
    *lines, last = capsys.readouterr().out.splitlines()
    assert sorted(int(line.split()[0]) for line in lines) == list(range(12))
    assert last.startswith("12 frames: server ")


def test_watch_takes_options_by_name_and_says_mistakes(
    bundle: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    got: list[Record] = []

    def breaks(record: Record) -> None:
        got.append(record)
        raise KeyError("my own mistake")

    log = tmp_path / "log.jsonl"
    counts = edge.watch(bundle, "localhost:1", breaks, source=str(pictures), frames=5, json=str(log))
    assert (counts.frames, len(log.read_text().splitlines())) == (5, 5)
    assert capsys.readouterr().err.count("my own mistake") == 1, "it is said once"
    assert got[0].frame == 0
    with pytest.raises(ValueError, match="watch has no option sauce"):
        edge.watch(bundle, "localhost:1", breaks, sauce="x")
    with pytest.raises(ValueError, match=r"picture 0: float64 \(4, 4, 3\) received, uint8"):
        edge.watch(bundle, "localhost:1", breaks, iter([np.zeros((4, 4, 3))]))


def test_mqtt_options_are_read(bundle: Path, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--bundle", str(bundle), "--server", "localhost:1", "--source", str(pictures), "--frames", "3"]
    assert edge.main([*common, "--mqtt", "localhost"]) == 2
    assert "--mqtt localhost: HOST[:PORT]/TOPIC expected" in capsys.readouterr().err
    assert edge.main([*common, "--mqtt", "127.0.0.1:1/door", "--mqtt-discovery"]) == 0
    assert capsys.readouterr().err.count("--mqtt 127.0.0.1:1/door: [Errno 111] Connection refused") == 1


@pytest.mark.parametrize(
    ("demand", "probe_after_s"),
    [(Demand(), 0.5), (Demand(max_watts=4.0), 60.0), (Demand(max_gb_month=10.0), 3.4992)],
)
def test_probes_of_a_device_keep_to_its_budgets(demand: Demand, probe_after_s: float) -> None:
    table = scenario_from(profile=synthetic_profile()).table
    table = replace(table, machine=table.machine._replace(busy_w=5.0))
    assert edge.world_under(demand, USUAL, table).probe_after_s == pytest.approx(probe_after_s)
