"""Bandwidth over time: trace files, the link arithmetic on a trace, and a generator of synthetic traces."""
