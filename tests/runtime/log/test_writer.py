"""Outputs of the log: one that fails or hangs takes no other with it, and files survive restarts and rotation."""

import io
import json
import os
import sys
import threading
import weakref
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.runtime.waiting import until
from tidesplit.runtime.log import writer as logs
from tidesplit.runtime.log.outputs import Appended, Board, JsonLines
from tidesplit.runtime.log.writer import Live, Log

FULL = Path("/dev/full")


def record(frame, **more):
    demand = SimpleNamespace(deadline_s=0.1, fps=20.0)
    usual = {
        "answered_by": "device", "latency_s": 0.02, "utility": 0.9, "sent_bytes": 0, "row": 1, "error": None,
        "state": {"goodput": 1e5}, "decision": "device-c0.25", "breaker": "closed", "picture_age_s": 0.03,
        "pictures_skipped": 2, "arrival_s": 0.05 * frame, "waited_s": 0.0, "joules": None, "spending": None,
        "values": None,
    }  # fmt: skip
    made = SimpleNamespace(frame=frame, demand=demand, **(usual | more))
    made.as_json = lambda: {"frame": frame}
    return made


def frames(path):
    return [json.loads(line)["frame"] for line in path.read_text().splitlines()]


class Failing:
    """Fails as often as it is asked to, then takes frames."""

    title = "the card"

    def __init__(self, failures):
        self.left, self.frames = failures, []

    def __call__(self, one):
        if self.left:
            self.left -= 1
            raise OSError(28, "No space left on device")
        self.frames.append(one.frame)


def test_a_failing_sink_is_said_once_and_tried_again(monkeypatch):
    monkeypatch.setattr(logs, "RETRY_S", 0.0)
    said, good, card = [], [], Failing(3)
    with Log([card, good.append], said.append) as log:
        for frame in range(10):
            log(record(frame))
    assert [one.frame for one in good] == list(range(10))
    assert card.frames == list(range(3, 10))
    assert len([s for s in said if "No space left" in s]) == 1
    assert [s for s in said if "works again, 3 frames are missing" in s]
    assert all(s.startswith("the card") for s in said)


def test_a_sink_that_hangs_takes_no_other_with_it_and_no_memory(monkeypatch):
    monkeypatch.setattr(logs, "WAITING", 20)
    monkeypatch.setattr(logs, "END_S", 0.2)
    said, good, release = [], [], threading.Event()
    with Log([lambda _: release.wait() and None, good.append], said.append) as log:
        for frame in range(100):
            log(record(frame))
            until(lambda: len(good) > frame)  # noqa: B023  # called here only
    assert [one.frame for one in good] == list(range(100))
    assert said == ["an output of the log: 100 frames are missing in it"]
    release.set()


def test_large_answers_wait_in_so_many_bytes():
    said, release, values = [], threading.Event(), np.zeros(4 << 20, np.float32)
    with Log([lambda _: release.wait() and None], said.append) as log:
        for frame in range(5):
            log(record(frame, values=values))
        (lane,) = log._lanes
        assert (len(lane._waiting), lane._lost) == (2, 3)  # the one that is written is among them
        release.set()
        until(lambda: not lane._waiting)
        log(record(5, values=values))
        until(lambda: not lane._waiting)
    assert said == ["an output of the log: 3 frames are missing in it"]


def test_the_live_line_keeps_no_answers():
    live, values = Live("", io.StringIO()), np.zeros(9, np.float32)
    gone = weakref.ref(values)
    live(one := record(0, values=values))
    assert one.values is values  # other outputs write it
    del one, values
    assert gone() is None


def test_a_full_device_is_said(tmp_path):
    if not FULL.exists():
        pytest.skip("needs /dev/full")
    said, other = [], tmp_path / "log"
    with Log([JsonLines(FULL), JsonLines(other)], said.append) as log:
        for frame in range(5):
            log(record(frame))
    assert frames(other) == list(range(5))
    assert "No space left" in said[0]


def test_lines_are_appended_after_a_restart_and_after_a_crash(tmp_path):
    path = tmp_path / "log.jsonl"
    for start in (0, 2):
        lines = JsonLines(path)
        lines(record(start))
        lines(record(start + 1))
        lines.close()
    assert frames(path) == [0, 1, 2, 3]
    path.write_text(path.read_text() + '{"cut')
    lines = JsonLines(path)
    lines(record(4))
    lines.close()
    assert path.read_text().splitlines()[-2] == '{"cut'
    assert json.loads(path.read_text().splitlines()[-1])["frame"] == 4
    assert set(json.loads(path.read_text().splitlines()[0])) == {"time", "frame"}


def test_every_kind_of_rotation_loses_no_line(tmp_path):
    path, moved = tmp_path / "log.jsonl", tmp_path / "log.jsonl.1"
    lines = JsonLines(path)
    lines(record(0))
    path.rename(moved)
    lines(record(1))  # not told yet
    lines.reopen()
    lines(record(2))
    assert (frames(moved), frames(path)) == ([0, 1], [2])
    os.truncate(path, 0)  # copytruncate
    lines(record(3))
    assert frames(path) == [3]
    path.unlink()
    lines(record(4))
    assert frames(path) == [4]
    lines.close()


def test_half_a_line_is_taken_back(tmp_path, monkeypatch):
    file = Appended(tmp_path / "log")
    file.write(b"one\n")
    real, left = os.write, [3]

    def short(descriptor, data):
        if not left:
            raise OSError(28, "No space left on device")
        return real(descriptor, data[: left.pop()])

    monkeypatch.setattr(os, "write", short)
    with pytest.raises(OSError, match="No space"):
        file.write(b"second\n")
    monkeypatch.undo()
    file.write(b"third\n")
    file.close()
    assert (tmp_path / "log").read_bytes() == b"one\nthird\n"


def test_the_standard_output_takes_lines_too(capfd):
    lines = JsonLines(Path("-"))
    lines(record(7))
    lines.close()
    assert json.loads(capfd.readouterr().out)["frame"] == 7


@pytest.mark.parametrize(("name", "reason"), [("nowhere/log.jsonl", "No such file"), ("log", "Permission denied")])
def test_a_path_that_cannot_be_opened_is_a_mistake(tmp_path, name, reason, monkeypatch):
    if name == "log":
        monkeypatch.setattr(os, "open", failing(13, reason))
    with pytest.raises(ValueError, match=f"--json .*{name} cannot be opened: {reason}"):
        JsonLines(tmp_path / name)


def failing(number, reason):
    def opened(*_):
        raise OSError(number, reason)

    return opened


def test_a_folder_is_no_log(tmp_path):
    with pytest.raises(ValueError, match="is a folder"):
        JsonLines(tmp_path)


@pytest.mark.parametrize("number", [28, 30])
def test_a_full_or_read_only_card_is_no_mistake(tmp_path, number, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", failing(number, "card"))
        lines = JsonLines(tmp_path / "log")
    lines(record(1))
    lines.close()
    assert frames(tmp_path / "log") == [1]


def test_a_board_goes_on_in_a_new_file_if_its_folder_is_gone(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    board = Board(tmp_path / "board")
    for frame in (0, 1):
        board(record(frame))
    (old,) = (tmp_path / "board").iterdir()
    assert [e.step for e in EventFileLoader(str(old)).Load() if e.HasField("summary")] == [0, 1]
    old.unlink()
    (tmp_path / "board").rmdir()
    board(record(2))
    board.close()
    (new,) = (tmp_path / "board").iterdir()
    events = list(EventFileLoader(str(new)).Load())
    assert [e.step for e in events if e.HasField("summary")] == [2]
    assert "edge/picture_age_ms" in {value.tag for e in events for value in e.summary.value}


def test_tensorboard_that_is_missing_is_one_sentence(tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ValueError, match="pip install tensorboard"):
        Board(tmp_path)


def test_the_live_line_bears_a_closed_terminal():
    class Gone:
        def isatty(self):
            return False

        def write(self, _):
            raise BrokenPipeError(32, "Broken pipe")

    said, good = [], []
    with Log([Live("", Gone()), good.append], said.append) as log:
        log(record(0))
        log(record(1))
    assert len(good) == 2
    assert said[0].startswith("the terminal: [Errno 32] Broken pipe")


def test_the_live_line_has_the_age_of_pictures_and_the_skipped_ones():
    live = Live("")
    for frame in range(3):
        live(record(frame))
    assert "camera 60.0 fps  pictures 30 ms old  6 pictures skipped" in live.text()


@pytest.mark.parametrize(("fps", "warnings"), [(19.5, 0), (10.0, 1), (25.0, 1)])
def test_a_camera_of_another_rate_is_said_once(fps, warnings):
    out = io.StringIO()
    live = Live("", out, every_s=1e3)
    for frame in range(150):
        live(record(frame, arrival_s=frame / fps, pictures_skipped=0))
    assert out.getvalue().count(f"the camera gives {fps:.1f} pictures a second, 20 expected") == warnings
