"""Messages between device and servers: requests, answers, addresses, security. Values and bytes, no sockets."""

import os

# gRPC prints a line for every failed attempt to connect, twice a second. Our reports have each reason once, so gRPC is
# silent unless the user sets this variable. It reads the variable when it is first imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
