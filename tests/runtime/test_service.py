"""The systemd unit of the device: what its command line runs, with the settings of docs/raspberry-pi.md."""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tidesplit.runtime import edge

ROOT = Path(edge.__file__).parents[1]
UNIT = ROOT / "deploy" / "tidesplit-edge.service"
PROGRAM = "/opt/tidesplit/venv/bin/tidesplit"


def settings():
    """The documented edge.env, as systemd reads it."""
    text = (ROOT / "docs" / "raspberry-pi.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```ini\n(.*?)^```$", text, re.M | re.S)
    return dict(line.split("=", 1) for line in block.splitlines())


def run_unit(tmp_path, **changed):
    """Words that the unit's command gives to the device, and what it feeds to it."""
    (command,) = re.findall(r"^ExecStart=(.*)$", UNIT.read_text(encoding="utf-8"), re.M)
    program, flag, script = shlex.split(command.replace("$$", "$"))
    stand_in = tmp_path / "tidesplit"
    stand_in.write_text('#!/bin/sh\nprintf "%s\\n" "$@" --\ncat\n')
    stand_in.chmod(0o755)
    done = subprocess.run(
        [program, flag, script.replace(PROGRAM, shlex.quote(str(stand_in)))],
        env=os.environ | settings() | changed, capture_output=True, text=True, check=True,
    )  # fmt: skip
    words, fed = done.stdout.split("\n--\n")
    return words.splitlines(), fed


def test_the_unit_feeds_the_camera_to_the_device(tmp_path):
    env = settings()
    camera = shlex.split(env["CAMERA"])
    assert camera[-3:] == ["--flush", "-o", "-"]
    words, fed = run_unit(tmp_path, CAMERA="printf pictures")
    assert (words[0], fed) == ("edge", "pictures")
    options = edge.parser().parse_args(words[1:])
    assert (options.source, options.server, str(options.json)) == ("-", env["SERVER"], env["LOG"])
    assert options.token_file is not None


def test_the_unit_takes_a_source_in_place_of_a_camera_program(tmp_path):
    words, fed = run_unit(tmp_path, CAMERA="", SOURCE="rtsp://camera/main stream")
    assert edge.parser().parse_args(words[1:]).source == "rtsp://camera/main stream"
    assert fed == ""


def test_systemd_accepts_the_unit(tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text(encoding="utf-8"), encoding="utf-8")
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    assert UNIT.name not in done.stderr, done.stderr
