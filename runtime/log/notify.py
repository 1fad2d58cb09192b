"""Reports to systemd that the service is ready and alive, see sd_notify(3)."""

from __future__ import annotations

import contextlib
import os
import socket


class Notifier:
    """Sends states to the socket `address`, by default NOTIFY_SOCKET of the environment; without one, nowhere."""

    def __init__(self, address: str | None = None) -> None:
        found = os.environ.get("NOTIFY_SOCKET", "") if address is None else address
        self._address = "\0" + found[1:] if found.startswith("@") else found  # @ stands for the abstract namespace

    def __call__(self, state: str) -> None:
        """Send a state such as READY=1 or WATCHDOG=1. It is lost where the service manager does not listen just now."""
        if self._address:
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as opened:
                opened.sendto(state.encode("ascii"), self._address)
