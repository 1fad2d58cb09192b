"""The thread that carries bytes between clients, the two lines and the server: a loop around select(2).

It uses select(2) because epoll rounds its time-out up to whole milliseconds. The timer slack of select(2) is 50 us.
"""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Sequence

from tidesplit.runtime.emulator.lines import Lines
from tidesplit.runtime.emulator.places import Place
from tidesplit.runtime.emulator.shaper import slices
from tidesplit.runtime.emulator.streams import DEEP_BYTES, Connection, Stream

IDLE_S = 0.5  # longest wait of the loop
MOST_FDS = 1_024  # select(2) cannot handle descriptors from here on
END, BREAK = b"", None  # items on the line: the sender's orderly end, and a broken connection
MARK_BYTES = 1  # of such an item: TCP's FIN and RST take one sequence number
Cargo = tuple[Connection, Stream, bytes | None]


class Relay:
    """Serves ``listeners``. Each client gets a connection of its own to one of the places ``target``.

    ``failure`` is the reason why the newest connection failed, None after one that succeeded.
    """

    def __init__(self, listeners: Sequence[socket.socket], target: Sequence[Place], lines: Lines[Cargo]) -> None:
        self._listeners, self._target, self._lines = listeners, target, lines
        self._alarm, self._bell = socket.socketpair()
        for end in (*listeners, self._alarm, self._bell):
            end.setblocking(False)
        self.connections: list[Connection] = []
        self.up_bytes = self.down_bytes = 0
        self.failure: str | None = None
        self._closing = False

    def ring(self) -> None:
        """Wake the thread after a change, from any other thread."""
        with contextlib.suppress(OSError):  # a full pipe wakes it anyway, and behind a closed one there is no thread
            self._bell.send(b"!")

    def stop(self) -> None:
        """Let the thread close all sockets and end."""
        self._closing = True
        self.ring()

    def run(self) -> None:
        """Carry bytes until `stop`."""
        try:
            while not self._closing:
                self._turn()
        finally:
            for connection in self.connections:
                connection.close()
            for end in (*self._listeners, self._alarm, self._bell):
                end.close()

    def _turn(self) -> None:
        with self._lines.lock:
            readers, writers, wait_s = *self._interest(), self._wait_s()
        readable, writable, _ = select.select(readers, writers, [], wait_s)
        with self._lines.lock:
            now_s = self._lines.now_s()
            self._lines.play(now_s)
            self._strokes()
            if self._alarm in readable:
                self._alarm.recv(4096)
            for listener in self._listeners:
                if listener in readable:
                    self._accept(listener)
            for connection in list(self.connections):
                if connection.connecting and connection.server in writable:
                    self.failure = None if connection.connected() else self.failure
                self._read(connection, connection.up, readable)
                self._read(connection, connection.down, readable)
            self._deliver()
            self._tidy()

    def _interest(self) -> tuple[list[socket.socket], list[socket.socket]]:
        """Sockets to read from, while the buffer has room, and sockets to write to."""
        readers, writers = [*self._listeners, self._alarm], []
        for one in self.connections:
            for stream, line in ((one.up, self._lines.up), (one.down, self._lines.down)):
                room = line.held_bytes < DEEP_BYTES and len(stream.outbox) < DEEP_BYTES
                if stream.read and room and not (one.connecting and stream is one.down):
                    readers.append(stream.source)
                if stream.outbox and not (one.connecting and stream is one.up):
                    writers.append(stream.sink)
            if one.connecting:
                writers.append(one.server)
        return readers, writers

    def _wait_s(self) -> float:
        streams = (stream for one in self.connections for stream in (one.up, one.down))
        ends_s = (stream.end_due_s for stream in streams if not stream.ended and not stream.outbox)
        next_s = min(self._lines.next_s(), min(ends_s, default=float("inf")))
        return min(max(next_s - self._lines.now_s(), 0.0), IDLE_S)

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):  # the client has left already
            client, _ = listener.accept()
            connection = Connection(client, self._target)
            if max(client.fileno(), connection.server.fileno()) >= MOST_FDS:
                connection.failed = "this process has too many open files"
            self.connections.append(connection)

    def _read(self, connection: Connection, stream: Stream, readable: list[socket.socket]) -> None:
        """Put a source's bytes on the line, in packets."""
        if not stream.read or stream.source not in readable:
            return
        cargo: bytes | None = BREAK
        with contextlib.suppress(ConnectionError):
            cargo = stream.receive()
            if cargo is None:
                return
        self._lines.begin()
        up = stream is connection.up
        stream.read = bool(cargo)
        parts = slices(cargo, self._lines.now.packet_bytes) if cargo else [cargo]
        sizes = [len(part) if part else MARK_BYTES for part in parts]
        (self._lines.up if up else self._lines.down).put(
            self._lines.now_s(), [(connection, stream, part) for part in parts], sizes
        )
        self.up_bytes += len(cargo or b"") if up else 0
        self.down_bytes += len(cargo or b"") if not up else 0

    def _deliver(self) -> None:
        """Pass arrived items to their receivers."""
        now_s = self._lines.now_s()
        for connection, stream, part in [*self._lines.up.take(now_s), *self._lines.down.take(now_s)]:
            if part is BREAK:
                connection.close(abort=True)
            elif part == END:
                stream.end_due_s = now_s + self._lines.now.slow_close_s
            elif part and not stream.ended:
                stream.outbox += part
                if not (connection.connecting and stream is connection.up):
                    stream.flush()  # one packet at a time, as on a real link

    def _tidy(self) -> None:
        """Pass on ends that are due, and close connections that have ended."""
        now_s = self._lines.now_s()
        for one in self.connections:
            for stream in (one.up, one.down):
                if one.closed or (one.connecting and stream is one.up):
                    continue
                stream.flush()
                if stream.end_due_s <= now_s and not stream.outbox and not stream.ended:
                    stream.end()
            if one.failed:
                self.failure = one.failed
            if one.failed or (one.up.ended and one.down.ended):
                one.close(abort=one.failed is not None)
        self.connections = [one for one in self.connections if not one.closed]

    def _strokes(self) -> None:
        """Carry out the faults of a single moment."""
        for kind in self._lines.strokes:
            for one in self.connections:
                if kind == "reset":
                    one.close(abort=True)
                elif not one.down.ended:
                    one.down.end()
        self._lines.strokes.clear()
        self.connections = [one for one in self.connections if not one.closed]
