"""The server's metrics: counts for Triton's ModelStatistics, and with --metrics-port more for Prometheus."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tidesplit.runtime.wire.answers import FrameAnswer
from tidesplit.runtime.wire.messages import PROBE

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)  # a frame's deadline is about 0.1
SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 32)
Gauges = Mapping[str, tuple[str, Callable[[], int]]]  # by name: the help text, and what reads the present value


@dataclass
class RequestCounts:
    """Frames of one partition, or probes: seconds in all, and the time of the last one since 1970."""

    answered: int = 0
    refused: int = 0
    total_s: float = 0.0
    wait_s: float = 0.0
    compute_s: float = 0.0
    last_s: float = 0.0

    def add(self, total_s: float, wait_s: float, compute_s: float) -> None:
        """Count an answer."""
        self.answered += 1
        self.total_s += total_s
        self.wait_s += wait_s
        self.compute_s += compute_s
        self.last_s = time.time()


class Metrics:
    """Everything that the server reports. This class counts what ModelStatistics needs, `Prometheus` all of it."""

    def __init__(self) -> None:
        self.counts: defaultdict[str, RequestCounts] = defaultdict(RequestCounts)  # by partition
        self.batches: Counter[str] = Counter()  # by model key

    def answered(self, partition: int, answer: FrameAnswer, total_s: float) -> None:
        """A frame got its logits, `total_s` after it came."""
        self.counts[str(partition)].add(total_s, answer.timing.wait_s, answer.timing.compute_s)

    def probed(self, total_s: float) -> None:
        """A probe was answered, `total_s` after it came."""
        self.counts[PROBE].add(total_s, 0.0, 0.0)

    def refused(self, partition: str, code: str) -> None:  # noqa: ARG002  # Prometheus counts by code too
        """A request ended with a status. `partition` is empty where the request named none of this server's."""
        self.counts[partition].refused += 1

    def limited(self, limit: str) -> None:
        """A request was refused because of a limit, one of `client_limits.Limit`."""

    def batch(self, key: str, size: int) -> None:  # noqa: ARG002  # Prometheus counts sizes too
        """`size` frames were computed together by the model `key`."""
        self.batches[key] += 1

    def streamed(self, partition: int, kind: str) -> None:
        """A payload of a stream came: a "key", a "relative" one, or one whose reference is "unknown"."""

    def close(self) -> None:
        """Stop serving metrics."""


class Prometheus(Metrics):
    """Counters and histograms in a registry of their own, served over HTTP by a thread."""

    def __init__(self, host: str, port: int, gauges: Gauges) -> None:
        from prometheus_client import CollectorRegistry, Gauge, Histogram, start_http_server
        from prometheus_client import Counter as Total

        super().__init__()
        registry = CollectorRegistry()
        self._answers = Total(
            "tidesplit_answers", "Frames that got logits", ["partition", "fell_back"], registry=registry
        )
        self._refused = Total(
            "tidesplit_refused",
            "Requests that ended with a status instead of logits",
            ["partition", "code"],
            registry=registry,
        )
        self._seconds = Histogram(
            "tidesplit_seconds",
            "Parts of a frame's time: wait, compute, next (second hop, there and back), total",
            ["partition", "part"],
            buckets=SECONDS,
            registry=registry,
        )
        self._sizes = Histogram(
            "tidesplit_batch_size", "Frames computed together", ["model"], buckets=SIZES, registry=registry
        )
        self._streamed = Total(
            "tidesplit_stream_payloads", "Payloads of streams by kind: key, relative, unknown (reference)",
            ["partition", "kind"], registry=registry,
        )  # fmt: skip
        self._limited = Total(
            "tidesplit_limited", "Requests refused by limit: rate, share (of one client), full, displaced, wait",
            ["limit"], registry=registry,
        )  # fmt: skip
        for name, (text, read) in gauges.items():
            Gauge(name, text, registry=registry).set_function(read)
        self._server, self._thread = start_http_server(port, addr=host, registry=registry)
        self.port: int = self._server.server_port

    def answered(self, partition: int, answer: FrameAnswer, total_s: float) -> None:
        """Count it, and the parts of its time."""
        super().answered(partition, answer, total_s)
        label = str(partition)
        self._answers.labels(label, str(bool(answer.fell_back)).lower()).inc()
        parts = {"wait": answer.timing.wait_s, "compute": answer.timing.compute_s, "total": total_s}
        if answer.next_timing is not None:
            parts["next"] = answer.next_timing.total_s
        for part, seconds in parts.items():
            self._seconds.labels(label, part).observe(seconds)

    def refused(self, partition: str, code: str) -> None:
        """Count it by status."""
        super().refused(partition, code)
        self._refused.labels(partition, code).inc()

    def limited(self, limit: str) -> None:
        """Count it by limit."""
        self._limited.labels(limit).inc()

    def batch(self, key: str, size: int) -> None:
        """Count its size."""
        super().batch(key, size)
        self._sizes.labels(key).observe(size)

    def streamed(self, partition: int, kind: str) -> None:
        """Count it."""
        self._streamed.labels(str(partition), kind).inc()

    def close(self) -> None:
        """Stop the thread and close its socket."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def start_metrics(host: str, port: int, gauges: Gauges) -> Prometheus:
    """Serve metrics at /metrics.

    Raises:
        ValueError: prometheus-client is missing, or the port is taken.
    """
    try:
        return Prometheus(host, port, gauges)
    except ImportError as error:
        raise ValueError(
            f"--metrics-port needs prometheus-client: pip install 'tidesplit[server]' ({error})"
        ) from error
    except (OSError, OverflowError) as error:
        raise ValueError(f"--metrics-port {port}: cannot listen there ({error})") from error
