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


def test_the_unit_feeds_the_camera_to_the_device(tmp_path):
    (command,) = re.findall(r"^ExecStart=(.*)$", UNIT.read_text(encoding="utf-8"), re.M)
    program, flag, script = shlex.split(command.replace("$$", "$"))
    stand_in = tmp_path / "tidesplit"
    stand_in.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\ncat\n')
    stand_in.chmod(0o755)
    env = settings()
    shot = tmp_path / "two words"
    shot.write_text("pictures")
    camera = shlex.split(env["CAMERA"])
    assert camera[-2:] == ["-o", "-"]
    done = subprocess.run(
        [program, flag, script.replace(PROGRAM, shlex.quote(str(stand_in)))],
        env=os.environ | env | {"CAMERA": "printf pictures"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.endswith("\npictures")
    words = done.stdout.removesuffix("pictures").splitlines()
    assert words[0] == "edge"
    options = edge.parser().parse_args(words[1:])
    assert (options.source, options.server, str(options.json)) == ("-", env["SERVER"], env["LOG"])
    assert options.token_file is not None


def test_systemd_accepts_the_unit(tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text(encoding="utf-8"), encoding="utf-8")
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    assert UNIT.name not in done.stderr, done.stderr
