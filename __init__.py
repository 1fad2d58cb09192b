"""Tidesplit: reinforcement-learning control of split CNN inference over a mobile uplink."""

import os

__version__ = "0.1.0"

# ONNX Runtime 1.32 reports its use to Microsoft, also on Linux. It reads this when it is imported, so it is set here:
# before any module of ours. Its function `disable_telemetry_events` comes too late for the first reports.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
