"""The two byte streams of one TCP connection through the link emulator; sockets, all of them non-blocking."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import socket
import struct

READ_BYTES = 65_536
DEEP_BYTES = 1 << 20  # a mobile network's buffer: senders feel back-pressure only beyond it
ABORT = struct.pack("ii", 1, 0)  # SO_LINGER with no time to linger: close() sends a reset


class Stream:
    """One direction: from ``source`` over the line to ``sink``.

    ``outbox`` is what has arrived and the sink's socket does not take yet. ``read`` says whether the source has more
    to say, ``ended`` whether the sink has been told that nothing follows, which happens at ``end_due_s``.
    """

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self.source, self.sink = source, sink
        self.outbox = bytearray()
        self.read, self.ended = True, False
        self.end_due_s = math.inf

    def receive(self) -> bytes | None:
        """What the source has sent, empty at its end, None if there is nothing now.

        Raises:
            ConnectionError: the source has broken off.
        """
        try:
            return self.source.recv(READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError as error:
            raise ConnectionError(*error.args) from error

    def flush(self) -> None:
        """Give the sink what it takes; a broken sink takes nothing more."""
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
        """Tell the sink that nothing follows."""
        self.ended = True
        self.outbox.clear()
        with contextlib.suppress(OSError):
            self.sink.shutdown(socket.SHUT_WR)


class Connection:
    """A client's connection and the one to the server made for it."""

    def __init__(self, client: socket.socket, to: tuple[str, int], family: socket.AddressFamily) -> None:
        self.client, self.server = client, socket.socket(family, socket.SOCK_STREAM)
        self.up, self.down = Stream(self.client, self.server), Stream(self.server, self.client)
        for end in (self.client, self.server):
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        status = self.server.connect_ex(to)
        self.connecting = status == errno.EINPROGRESS
        self.failed = None if status in (0, errno.EINPROGRESS) else os.strerror(status)

    @property
    def closed(self) -> bool:
        """Whether it has been closed, by us."""
        return self.client.fileno() < 0

    def connected(self) -> None:
        """The attempt to reach the server has come to an end, well or not (then ``failed`` says why)."""
        status = self.server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        self.connecting, self.failed = False, os.strerror(status) if status else None

    def close(self, *, abort: bool = False) -> None:
        """Close both ends, with a reset if ``abort``."""
        for end in (self.client, self.server):
            if abort:
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
            end.close()
