"""An emulated mobile link between a client and a server, for one TCP port or for whole network namespaces."""
