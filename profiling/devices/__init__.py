"""Timings of machines that are not at hand, estimated from published measurements."""
