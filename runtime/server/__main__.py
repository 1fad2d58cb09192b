"""Answer frames from devices: tidesplit server --port 50051

Serves the tails of one CNN over gRPC, by the Open Inference Protocol. With --next it is the middle of three tiers. It
prints one line when it listens. SIGTERM and SIGINT drain it: new requests are refused for half a second, what it has
taken is finished, 5 s at most.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from pathlib import Path

from tidesplit.compression.heap import lean_heap
from tidesplit.runtime.cnn import Cnn, load_cnn
from tidesplit.runtime.export import cached_server, say
from tidesplit.runtime.server.serving import Server, ServerOptions
from tidesplit.runtime.wire.security import read_token

__all__ = ["main"]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(prog="tidesplit server", description=__doc__.splitlines()[0])
    p.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    p.add_argument("--port", type=_number(0, 65535), default=50051, help="0 chooses a free one (default 50051)")
    which = p.add_mutually_exclusive_group()
    which.add_argument("--cnn", type=Path, metavar="FOLDER", help="models written by tidesplit export")
    which.add_argument(
        "--profile", default="efficientnet_lite0", metavar="NAME",
        help="bundled CNN; exported into the cache folder at the first start (default efficientnet_lite0)",
    )  # fmt: skip
    p.add_argument(
        "--next", default="", metavar="HOST:PORT", help="server behind this one, which is then the middle tier"
    )
    p.add_argument("--next-ca", type=Path, metavar="FILE", help="authority of the next server's certificate (PEM): TLS")
    p.add_argument(
        "--threads", type=_number(1, 256), default=1, metavar="N", help="frames computed at once (default 1)"
    )
    p.add_argument(
        "--max-concurrent", type=_number(1, 4096), default=64, metavar="N", help="requests taken (default 64)"
    )
    p.add_argument(
        "--max-batch", type=_number(1, 64), default=8, metavar="N",
        help="frames of one partition computed together, where the model takes several (default 8)",
    )  # fmt: skip
    p.add_argument("--metrics-port", type=_number(0, 65535), metavar="P", help="serve Prometheus metrics there")
    p.add_argument("--tls-cert", type=Path, metavar="FILE", help="the server's certificate chain (PEM)")
    p.add_argument("--tls-key", type=Path, metavar="FILE", help="its key (PEM)")
    p.add_argument("--client-ca", type=Path, metavar="FILE", help="clients need a certificate of this authority (PEM)")
    p.add_argument(
        "--token-file", type=Path, metavar="FILE", help="clients need this bearer token; the next server too"
    )
    p.add_argument("--insecure", action="store_true", help="allow plaintext over a network")
    return p


def _number(least: int, most: int) -> type[int]:
    """A type for argparse: a whole number within limits."""

    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and least <= int(text) <= most):
            raise argparse.ArgumentTypeError(f"{text!r} received, a whole number from {least} to {most} expected")
        return int(text)

    return read  # type: ignore[return-value]  # argparse takes any callable


def read_options(given: argparse.Namespace) -> ServerOptions:
    """The command line as options; reads the token."""
    return ServerOptions(
        host=given.host,
        port=given.port,
        threads=given.threads,
        max_concurrent=given.max_concurrent,
        max_batch=given.max_batch,
        metrics_port=given.metrics_port,
        next_address=given.next,
        next_ca=given.next_ca,
        tls_cert=given.tls_cert,
        tls_key=given.tls_key,
        client_ca=given.client_ca,
        token="" if given.token_file is None else read_token(given.token_file),
        insecure=given.insecure,
    )


def _load(given: argparse.Namespace) -> Cnn:
    if given.cnn is not None:
        return load_cnn(given.cnn)
    return cached_server(given.profile, bool(given.next), say)


async def _serve(server: Server, cnn: Cnn, how: str) -> None:
    """Until a signal comes."""
    asked_to_stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, asked_to_stop.set)
    await server.start()
    metrics = "" if server.metrics_port is None else f", metrics on port {server.metrics_port}"
    print(
        f"listening on {server.address}, {cnn.name} {cnn.version}, partitions "
        f"{', '.join(map(str, server.partitions))}, {how}{metrics}",
        flush=True,
    )
    await asked_to_stop.wait()
    await server.stop()


def main(arguments: list[str] | None = None) -> int:
    """Run; 0 when asked to stop, 2 for a user's mistake."""
    given = parser().parse_args(arguments)
    lean_heap()
    how = "plaintext" if given.tls_cert is None else "TLS" if given.client_ca is None else "mutual TLS"
    try:
        options = read_options(given)
        cnn = _load(given)
        asyncio.run(_serve(Server(cnn, options), cnn, how))
    except ValueError as error:
        print(f"tidesplit server: error: {error}", file=sys.stderr)
        return 2
    except ImportError as error:
        print(f"tidesplit server: error: {error}: pip install 'tidesplit[server]'", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
