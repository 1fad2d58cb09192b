"""Uplink bandwidth over time: trace files, the link arithmetic over a trace, and a generator of synthetic traces."""
