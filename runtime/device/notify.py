"""Tell systemd that the service is ready and alive (sd_notify(3)): a datagram to the socket that it names."""

from __future__ import annotations

import os
import socket

__all__ = ["Notifier"]


class Notifier:
    """Sends states to `address` (default: the environment's NOTIFY_SOCKET); does nothing where there is none."""

    def __init__(self, address: str | None = None) -> None:
        found = os.environ.get("NOTIFY_SOCKET", "") if address is None else address
        self._address = "\0" + found[1:] if found.startswith("@") else found  # @ stands for the abstract namespace
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) if found else None

    def __call__(self, state: str) -> None:
        """Send e.g. READY=1 or WATCHDOG=1. A service manager that does not listen is no reason to stop."""
        if self._socket is not None:
            try:
                self._socket.sendto(state.encode("ascii"), self._address)
            except OSError:
                self.close()

    def close(self) -> None:
        """Close the socket; nothing is sent any more."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
