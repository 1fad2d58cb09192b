"""A server as an object: it starts on a port, and stops only after it has answered every frame it accepted."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio

from tidesplit.runtime.cnn import Cnn
from tidesplit.runtime.server.batching import Batcher
from tidesplit.runtime.server.client_limits import ClientLimits
from tidesplit.runtime.server.held_streams import Limits
from tidesplit.runtime.server.metrics import Metrics, Prometheus, start_metrics
from tidesplit.runtime.server.next_hop import NextHop
from tidesplit.runtime.server.service import InferenceService
from tidesplit.runtime.server.stream_decoding import StreamDecoding
from tidesplit.runtime.server.tails import Tails
from tidesplit.runtime.wire.address import Address, read_address, read_host
from tidesplit.runtime.wire.protocol import SERVER_OPTIONS, SERVICE
from tidesplit.runtime.wire.security import (
    TokenCheck,
    check_plaintext,
    client_credentials,
    presentable,
    server_credentials,
)

DRAIN_S = 5.0  # a hundred times a frame's own time; systemd kills after 90 s, Kubernetes after 30 s
# While gRPC shuts down it ends new requests with CANCELLED, as if the client had cancelled them (grpc/grpc#41785).
# Therefore the server first answers new requests with UNAVAILABLE, for the time of fifteen frames.
REFUSE_S = 0.5
# Calls besides those that are answered: health, metadata, refusals. Beyond them gRPC itself refuses everybody's calls.
SPARE_CALLS = 128


@dataclass(frozen=True)
class ServerOptions:
    """Options of a server. Port 0 is any free port. With `next_address`, HOST:PORT, it is the middle server."""

    host: str = "127.0.0.1"
    port: int = 0
    threads: int = 1
    max_concurrent: int = 64
    max_batch: int = 16
    longest_wait_ms: float = 100.0
    client_share: float = 0.75
    client_rate: float = 0.0
    metrics_port: int | None = None
    stream_mib: int = 128
    next_address: str = ""
    next_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    client_ca: Path | None = None
    token: str = ""
    insecure: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError where the host is none, or options contradict each other."""
        object.__setattr__(self, "host", read_host("--host", self.host))
        check_plaintext("--host", self.host, self.tls_cert is not None, self.insecure, "--tls-cert and --tls-key")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("--tls-cert and --tls-key belong together, only one was given")
        if self.client_ca is not None and self.tls_cert is None:
            raise ValueError("--client-ca needs --tls-cert and --tls-key")


class Server:
    """One server in the running event loop."""

    def __init__(self, cnn: Cnn, options: ServerOptions) -> None:
        """Load the models, which takes seconds."""
        # Imported here so that the command line can name the missing package.
        from grpc_health.v1 import health, health_pb2, health_pb2_grpc

        self._health, self._serving = health.aio.HealthServicer(), health_pb2.HealthCheckResponse.SERVING
        self._add_health = health_pb2_grpc.add_HealthServicer_to_server
        self._cnn, self._options = cnn, options
        self._tails = Tails(cnn, middles=bool(options.next_address))
        self._metrics = Metrics()
        self._next: NextHop | None = None
        self.port = 0

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return self._where(self.port)

    @property
    def partitions(self) -> tuple[int, ...]:
        """The partitions that this server can continue from."""
        return self._tails.partitions

    @property
    def metrics_port(self) -> int | None:
        """The port of the Prometheus metrics; None where there are none."""
        return self._metrics.port if isinstance(self._metrics, Prometheus) else None

    async def start(self) -> None:
        """Start to listen.

        Raises:
            ValueError: an address or a file cannot be used.
        """
        options = self._options
        if options.next_address:
            self._next = self._next_hop()
        self._batcher = Batcher(
            self._tails, options.threads, options.max_batch, options.max_concurrent,
            observe=lambda key, size: self._metrics.batch(key, size), longest_wait_s=1e-3 * options.longest_wait_ms,
        )  # fmt: skip
        self.streams = StreamDecoding(
            self._tails.decode_next, options.threads, Limits(most_bytes=options.stream_mib << 20),
            observe=lambda partition, kind: self._metrics.streamed(partition, kind),
        )  # fmt: skip
        self._limits = ClientLimits(max(1, round(options.client_share * options.max_concurrent)), options.client_rate)
        self._service = InferenceService(
            self._tails, self._batcher, self.streams, self._next, options.max_concurrent, self._limits
        )
        try:
            self._metrics = self._service.metrics = self._start_metrics()
            self._server = self._build()
            self.port = self._listen()
            await self._server.start()
            for service in ("", SERVICE):
                await self._health.set(service, self._serving)
        except BaseException:
            await self._release()
            raise

    def _where(self, port: int) -> str:
        return str(Address(self._options.host, port))

    def _next_hop(self) -> NextHop:
        options = self._options
        address = read_address("--next", options.next_address)
        check_plaintext("--next", address.host, options.next_ca is not None, options.insecure, "--next-ca")
        own = (options.tls_cert, options.tls_key) if presentable(options.tls_cert) else (None, None)
        credentials = client_credentials(options.next_ca, *own, options.token, ca_option="--next-ca")
        return NextHop(str(address), self._cnn.form, credentials)

    def _start_metrics(self) -> Metrics:
        if self._options.metrics_port is None:
            return Metrics()
        host = self._options.host
        return start_metrics(
            "127.0.0.1" if host == "localhost" else host, self._options.metrics_port,
            {
                "tidesplit_waiting": ("Frames in the queue", lambda: self._batcher.waiting),
                "tidesplit_under_way": ("Requests taken and not yet answered", lambda: self._service.under_way),
                "tidesplit_clients": (
                    "Devices, or addresses of others, that have requests under way or came a moment ago",
                    lambda: len(self._limits),
                ),
                "tidesplit_streams": ("Streams held", lambda: len(self.streams.held)),
                "tidesplit_stream_bytes": ("Bytes of the streams held", lambda: self.streams.held.size),
            },
        )  # fmt: skip

    def _build(self) -> Any:
        options = self._options
        checks = [TokenCheck(options.token, lambda: self._metrics.refused("", "UNAUTHENTICATED"))]
        server = grpc.aio.server(
            interceptors=checks if options.token else [],
            options=list(SERVER_OPTIONS),
            maximum_concurrent_rpcs=options.max_concurrent + SPARE_CALLS,
        )
        server.add_generic_rpc_handlers((self._service.handler(),))
        self._add_health(self._health, server)
        return server

    def _listen(self) -> int:
        options = self._options
        where = self._where(options.port)
        try:
            if options.tls_cert is None or options.tls_key is None:
                return int(self._server.add_insecure_port(where))
            secret = server_credentials(options.tls_cert, options.tls_key, options.client_ca)
            return int(self._server.add_secure_port(where, secret))
        except RuntimeError as error:
            raise ValueError(
                f"cannot listen on {where}: the port is taken, or the host is not this machine's"
            ) from error

    async def stop(self, grace_s: float = DRAIN_S, refuse_s: float = REFUSE_S) -> None:
        """Refuse new requests for `refuse_s`, then let those under way end within another `grace_s`, and close."""
        self._service.draining = True
        await self._health.enter_graceful_shutdown()
        await asyncio.sleep(refuse_s)
        await self._server.stop(grace_s)
        await self._release()

    async def _release(self) -> None:
        await self.streams.close()
        await self._batcher.close()
        if self._next is not None:
            await self._next.close()
        self._metrics.close()
