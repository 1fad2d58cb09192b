"""Answer frames from devices: tidesplit server --port 50051

Runs the rest of one CNN for each frame, over gRPC with the Open Inference Protocol. With --next it is the middle server
of three tiers. It prints one line when it listens. After SIGTERM or SIGINT it refuses new requests for half a second,
finishes those that it has accepted within 5 s, and ends.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from dataclasses import fields
from pathlib import Path

from tidesplit.compression.heap import lean_heap, trimmed_heap
from tidesplit.data.option_types import number, whole_number
from tidesplit.runtime.cnn import Cnn, load_cnn
from tidesplit.runtime.export import cached_server, say
from tidesplit.runtime.server.serving import Server, ServerOptions
from tidesplit.runtime.wire.security import read_token


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        prog="tidesplit server", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    p.add_argument("--port", type=whole_number(0, 65535), default=50051, help="0 is any free port (default 50051)")
    which = p.add_mutually_exclusive_group()
    which.add_argument("--cnn", type=Path, metavar="FOLDER", help="models that tidesplit export wrote")
    which.add_argument(
        "--profile", default="efficientnet_lite0", metavar="NAME",
        help="bundled CNN, exported into the cache folder at the first start (default efficientnet_lite0)",
    )  # fmt: skip
    p.add_argument(
        "--next", default="", metavar="HOST:PORT", dest="next_address",
        help="next server; this one is then the middle server",
    )  # fmt: skip
    p.add_argument("--next-ca", type=Path, metavar="FILE", help="authority that signed the next server's certificate")
    p.add_argument(
        "--threads", type=whole_number(1, 256), default=1, metavar="N", help="batches computed at once (default 1)"
    )
    p.add_argument(
        "--max-concurrent", type=whole_number(1, 4096), default=64, metavar="N",
        help="requests accepted at once; others are refused (default 64)",
    )  # fmt: skip
    p.add_argument(
        "--client-share", type=number(0.0, 1.0), default=0.75, metavar="S",
        help="part of these that one device may have; further ones are refused with a pause (default 0.75)",
    )  # fmt: skip
    p.add_argument(
        "--client-rate", type=number(0.0, 1e6), default=0.0, metavar="R",
        help="requests a second of one device, averaged over 2 s; 0 is any number (default 0)",
    )  # fmt: skip
    p.add_argument(
        "--max-batch", type=whole_number(1, 64), default=16, metavar="N",
        help="frames of one partition computed together, within 25 ms (default 16)",
    )  # fmt: skip
    p.add_argument(
        "--longest-wait-ms", type=number(1.0, 1e5), default=100.0, metavar="MS",
        help="a frame that would wait longer for its turn is refused with a pause (default 100)",
    )  # fmt: skip
    p.add_argument(
        "--stream-mib", type=whole_number(1, 65536), default=128, metavar="MIB",
        help="memory for the streams of all devices; the least recently used ones make room (default 128)",
    )  # fmt: skip
    p.add_argument(
        "--metrics-port", type=whole_number(0, 65535), metavar="PORT", help="serve Prometheus metrics on this port"
    )
    safety = p.add_argument_group("security", "Certificates and keys are PEM files.")
    safety.add_argument("--tls-cert", type=Path, metavar="FILE", help="this server's certificate chain; turns TLS on")
    safety.add_argument("--tls-key", type=Path, metavar="FILE", help="the key of that certificate")
    safety.add_argument("--client-ca", type=Path, metavar="FILE", help="require client certificates of this authority")
    safety.add_argument(
        "--token-file", type=Path, metavar="FILE", help="require this bearer token, and send it to --next"
    )
    safety.add_argument("--insecure", action="store_true", help="allow plaintext over a network")
    return p


def read_options(given: argparse.Namespace) -> ServerOptions:
    """The server's options from the command line. Reads the token's file."""
    token = "" if given.token_file is None else read_token(given.token_file)
    names = {field.name for field in fields(ServerOptions)} - {"token"}
    return ServerOptions(token=token, **{name: value for name, value in vars(given).items() if name in names})


def _load(given: argparse.Namespace) -> Cnn:
    if given.cnn is not None:
        return load_cnn(given.cnn)
    return cached_server(given.profile, bool(given.next_address), say)


async def _serve(server: Server, cnn: Cnn, how: str) -> None:
    """Serve until a signal comes."""
    asked_to_stop = asyncio.Event()
    for wanted in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(wanted, asked_to_stop.set)
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
    """Run the command. Returns 0 after a signal, 2 after a user's mistake."""
    given = parser().parse_args(arguments)
    lean_heap()
    how = "plaintext" if given.tls_cert is None else "TLS" if given.client_ca is None else "mutual TLS"
    try:
        options = read_options(given)
        cnn = _load(given)
        with trimmed_heap():
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
