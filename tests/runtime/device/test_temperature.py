"""The processor's temperature: contents of the system's file and what they mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from tidesplit.runtime.device.temperature import ZONE, read_celsius


@pytest.mark.parametrize(
    ("content", "degrees"),
    [
        (b"52078\n", 52.078),
        (b"85000", 85.0),
        (b"  0\n", 0.0),
        (b"-12500\n", -12.5),
        (b"150000\n", 150.0),
        (b"150001\n", None),
        (b"-40001\n", None),
        (b"-2147483648\n", None),  # a sensor that is off
        (b"", None),
        (b"\n", None),
        (b"-\n", None),
        (b"52.078\n", None),
        (b"52_078\n", None),
        (b"0x5208\n", None),
        (b"nan\n", None),
        (b"52078\n51000\n", None),
        (b"52078 C\n", None),
        (b"\xff\xfe5\x002\x00", None),
        ("٥٢".encode(), None),
        (b"1" * 100_000, None),
    ],
)
def test_contents(content: bytes, degrees: float | None, tmp_path: Path) -> None:
    file = tmp_path / "temp"
    file.write_bytes(content)
    assert read_celsius(file) == degrees


def test_without_a_sensor(tmp_path: Path) -> None:
    assert read_celsius(tmp_path / "temp") is None
    assert read_celsius(tmp_path) is None, "a folder cannot be read"


def test_this_machine() -> None:
    assert ZONE.name == "temp"
    assert isinstance(read_celsius(), float | None)
