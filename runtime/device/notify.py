"""Reports to systemd that the service is ready and alive, see sd_notify(3)."""

from __future__ import annotations

import os
import socket

__all__ = ["Notifier"]


class Notifier:
    """Sends states to the socket `address`, by default NOTIFY_SOCKET of the environment; without one, nowhere."""

    def __init__(self, address: str | None = None) -> None:
        found = os.environ.get("NOTIFY_SOCKET", "") if address is None else address
        self._address = "\0" + found[1:] if found.startswith("@") else found  # @ stands for the abstract namespace
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) if found else None

    def __call__(self, state: str) -> None:
        """Send a state such as READY=1 or WATCHDOG=1. Ends quietly where the service manager does not listen."""
        if self._socket is not None:
            try:
                self._socket.sendto(state.encode("ascii"), self._address)
            except OSError:
                self.close()

    def close(self) -> None:
        """Close the socket. Later states are not sent."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
