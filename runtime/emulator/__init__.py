"""An emulated mobile link between a client and a server."""
