"""The device's channel to the server: opened for a message, and closed where it is of no use."""

from __future__ import annotations

import threading
from typing import Any

import grpc

from tidesplit.runtime.wire.protocol import METHODS
from tidesplit.runtime.wire.security import Credentials
from tidesplit.runtime.wire.stream_place import DEVICE_METADATA

__all__ = ["ServerConnection"]

CLOSE_S = 2.0  # a channel closes within milliseconds


class ServerConnection:
    """Counts the messages under way, so that the channel changes only between messages. Any thread may call.

    After a failure that waiting does not mend, the channel is closed until the next message: gRPC would try to connect
    twice a second.
    """

    def __init__(self, address: str, safety: Credentials, device: str) -> None:
        self._address, self._safety, self._device = address, safety, device
        self._lock = threading.Lock()
        self._channel: Any = None  # None until the next message
        self._under_way, self._useless, self._closed = 0, False, False

    def begin(self, message: Any, limit_s: float, as_stream: bool) -> Any:
        """Send a ModelInferRequest. Returns gRPC's future, or its call as a stream of one message.

        Raises:
            ValueError: the connection was closed.
        """
        with self._lock:
            if self._closed:
                raise ValueError("the client was closed")
            if self._channel is None:
                self._open()
            # Of a stream, gRPC hands out the initial metadata before the message. The bytes are the same.
            call = self._call_as_stream if as_stream else self._call.future
            begun = call(message, timeout=limit_s, metadata=self._metadata)
            self._under_way += 1
            return begun

    def ended(self, lasting: bool) -> bool:
        """A message ended, `lasting` where it failed for a reason that waiting does not mend.

        Returns True where `rest` should be called, on another thread than gRPC's.
        """
        with self._lock:
            self._under_way -= 1
            self._useless = lasting
            return lasting and not self._under_way

    def rest(self) -> None:
        """Close the channel until the next message, unless it is in use again."""
        with self._lock:
            left = self._leave() if self._useless and not self._under_way else None
        _close(left)

    def renew(self) -> None:
        """Take credentials whose files have changed, unless a message is under way that would be lost."""
        left = None
        with self._lock:
            if not self._under_way and (found := self._safety.renewed()) is not None:
                self._safety, left = found, self._leave()
        _close(left)

    def fault(self) -> str:
        """The reason why this device's own certificate is not valid now, empty where it is."""
        return self._safety.fault()

    def close(self) -> None:
        """Close for good. Messages under way are given up."""
        with self._lock:
            self._closed, left = True, self._leave()
        _close(left)

    def _open(self) -> None:
        self._metadata = (*self._safety.metadata, (DEVICE_METADATA, self._device))
        self._channel = self._safety.channel(grpc, self._address)
        method = METHODS["ModelInfer"]
        coders = (method.request.SerializeToString, method.response.FromString)
        self._call = self._channel.unary_unary(method.path, *coders)
        self._call_as_stream = self._channel.unary_stream(method.path, *coders)

    def _leave(self) -> Any:
        """Give up the channel and return it, to be closed without the lock: gRPC first waits for its callbacks."""
        left, self._channel = self._channel, None
        return left


def _close(channel: Any) -> None:
    """Close a channel. Where Ctrl-C came while a call was being made, gRPC would wait for that call for ever."""
    if channel is not None:
        closing = threading.Thread(target=channel.close, name="close", daemon=True)
        closing.start()
        closing.join(CLOSE_S)
