"""Types of command-line options that say what they expect."""

from __future__ import annotations

import argparse
import contextlib


def whole_number(least: int, most: int) -> type[int]:
    """An argparse type: a whole number from ``least`` to ``most``."""

    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and least <= int(text) <= most):
            raise argparse.ArgumentTypeError(f"{text!r} received, a whole number from {least} to {most} expected")
        return int(text)

    return read  # type: ignore[return-value]  # argparse takes any callable


def number(least: float, most: float) -> type[float]:
    """An argparse type: a number from ``least`` to ``most``."""

    def read(text: str) -> float:
        with contextlib.suppress(ValueError):
            if least <= (value := float(text)) <= most:
                return value
        raise argparse.ArgumentTypeError(f"{text!r} received, a number from {least:g} to {most:g} expected")

    return read  # type: ignore[return-value]  # argparse takes any callable
