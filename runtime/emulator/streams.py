"""The two byte streams of one TCP connection through the link emulator. All sockets are non-blocking."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import socket
import struct
from collections import deque
from collections.abc import Sequence

from tidesplit.runtime.emulator.places import Place

READ_BYTES = 65_536
DEEP_BYTES = 1 << 20  # buffer of a mobile network: senders are held back only beyond it
ABORT = struct.pack("ii", 1, 0)  # SO_LINGER with a time of 0: close() sends a reset


class Stream:
    """One direction: from ``source`` over the line to ``sink``.

    ``outbox`` holds arrived bytes that the sink's socket does not accept yet. ``read`` is True until the source ends.
    ``ended`` is True once that end was passed to the sink, which is due at ``end_due_s``.
    """

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self.source, self.sink = source, sink
        self.outbox = bytearray()
        self.read, self.ended = True, False
        self.end_due_s = math.inf

    def receive(self) -> bytes | None:
        """Bytes from the source: empty at its end, None where there are none now.

        Raises:
            ConnectionError: the source's connection is broken.
        """
        try:
            return self.source.recv(READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError as error:
            raise ConnectionError(*error.args) from error

    def flush(self) -> None:
        """Give the sink as many bytes as it accepts. A broken sink gets no more."""
        while self.outbox and not self.ended:
            try:
                sent = self.sink.send(self.outbox)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                self.ended = True
                break
            del self.outbox[:sent]
        if self.ended:
            self.outbox.clear()

    def end(self) -> None:
        """Pass the stream's end to the sink."""
        self.ended = True
        self.outbox.clear()
        with contextlib.suppress(OSError):
            self.sink.shutdown(socket.SHUT_WR)


class Connection:
    """A client's connection, and the connection to the server made for it.

    The server's addresses in ``to`` are tried in turn. ``failed`` is the reason of the last, None before and after
    success.
    """

    def __init__(self, client: socket.socket, to: Sequence[Place]) -> None:
        self.client = self.server = client
        self.up, self.down = Stream(client, client), Stream(client, client)
        self.connecting = False
        self.failed: str | None = None
        self._untried = deque(to)
        _prepare(client)
        self._dial()

    def _dial(self) -> None:
        """Begin to connect to the next address that can be tried."""
        while self._untried:
            family, address = self._untried.popleft()
            try:
                server = socket.socket(family)
            except OSError as error:  # a system without IPv6
                self.failed = error.strerror
                continue
            if self.server is not self.client:
                self.server.close()
            self.server = self.up.sink = self.down.source = server
            _prepare(server)
            status = server.connect_ex(address)
            self.connecting = status == errno.EINPROGRESS
            self.failed = None if status in (0, errno.EINPROGRESS) else os.strerror(status)
            if self.failed is None:
                return

    @property
    def closed(self) -> bool:
        """True after `close`."""
        return self.client.fileno() < 0

    def connected(self) -> bool:
        """Take the result of connecting to the server. After a failure the next address is tried.

        Returns:
            True after success.
        """
        status = self.server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        self.connecting, self.failed = False, os.strerror(status) if status else None
        if status:
            self._dial()
        return status == 0

    def close(self, *, abort: bool = False) -> None:
        """Close both ends, with a reset where ``abort``."""
        for end in (self.client, self.server):
            if abort:
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
            end.close()


def _prepare(end: socket.socket) -> None:
    end.setblocking(False)
    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
