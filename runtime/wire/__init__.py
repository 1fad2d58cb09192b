"""Messages between device and servers: requests, answers, addresses, security. Values and bytes, no sockets."""
