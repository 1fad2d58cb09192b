"""The processor's temperature, as Linux says it: thousandths of a degree Celsius in a file of one line."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["ZONE", "read_celsius"]

ZONE = Path("/sys/class/thermal/thermal_zone0/temp")  # the only zone of a Raspberry Pi, its processor
PLAUSIBLE = (-40.0, 150.0)  # degrees; a sensor that is off or broken gives values beyond them
LONGEST = 16  # characters of a number that makes sense


def read_celsius(file: Path = ZONE) -> float | None:
    """The temperature in degrees Celsius. None where there is no sensor, or where it gives no plausible number."""
    try:
        with file.open(encoding="ascii") as opened:
            text = opened.read(LONGEST + 1)
    except (OSError, ValueError):  # also a sensor that cannot be read just now
        return None
    if not re.fullmatch(r"\s*-?[0-9]+\s*", text):
        return None
    degrees = int(text) / 1e3
    return degrees if PLAUSIBLE[0] <= degrees <= PLAUSIBLE[1] else None
