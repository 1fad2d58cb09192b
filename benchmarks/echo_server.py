"""A gRPC server that answers every request with the same bytes: what gRPC costs in Python, whatever a server does.

python -m tidesplit.benchmarks.echo_server --port 0
"""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

import grpc
import grpc.aio

from tidesplit.runtime.wire.protocol import SERVER_OPTIONS, SERVICE

ANSWER = bytes(4100)  # as long as an answer with a thousand logits


async def serve(port: int) -> None:
    """Serve until the process ends."""

    async def echo(_data: bytes, _context: Any) -> bytes:
        return ANSWER

    server = grpc.aio.server(options=list(SERVER_OPTIONS))
    calls = {"ModelInfer": grpc.unary_unary_rpc_method_handler(echo)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, calls),))
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    print(f"listening on 127.0.0.1:{port}, echo", flush=True)
    await server.wait_for_termination()


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0, help="0 is any free port (default 0)")
    asyncio.run(serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
