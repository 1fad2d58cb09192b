"""The server's metrics. Without --metrics-port nothing is counted and prometheus-client is not needed."""

from __future__ import annotations

from collections.abc import Callable

from tidesplit.runtime.wire.answers import FrameAnswer

__all__ = ["Metrics", "Prometheus", "start_metrics"]

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)  # a frame's deadline is about 0.1
SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 32)


class Metrics:
    """Everything that the server reports. This class counts nothing, `Prometheus` all of it."""

    def answered(self, partition: int, answer: FrameAnswer, total_s: float) -> None:
        """A frame got its logits, `total_s` after it came."""

    def refused(self, partition: str, code: str) -> None:
        """A request ended with a status. `partition` is empty where the request named none of this server's."""

    def batch(self, key: str, size: int) -> None:
        """`size` frames were computed together by the model `key`."""

    def close(self) -> None:
        """Stop serving metrics."""


class Prometheus(Metrics):
    """Counters and histograms in a registry of their own, served over HTTP by a thread."""

    def __init__(self, host: str, port: int, waiting: Callable[[], int], under_way: Callable[[], int]) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

        registry = CollectorRegistry()
        self._answers = Counter(
            "tidesplit_answers", "Frames that got logits", ["partition", "fell_back"], registry=registry
        )
        self._refused = Counter(
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
        for name, text, read in (
            ("tidesplit_waiting", "Frames in the queue", waiting),
            ("tidesplit_under_way", "Requests taken and not yet answered", under_way),
        ):
            Gauge(name, text, registry=registry).set_function(read)
        self._server, self._thread = start_http_server(port, addr=host, registry=registry)
        self.port: int = self._server.server_port

    def answered(self, partition: int, answer: FrameAnswer, total_s: float) -> None:
        """Count it, and the parts of its time."""
        label = str(partition)
        self._answers.labels(label, str(bool(answer.fell_back)).lower()).inc()
        parts = {"wait": answer.timing.wait_s, "compute": answer.timing.compute_s, "total": total_s}
        if answer.next_timing is not None:
            parts["next"] = answer.next_timing.total_s
        for part, seconds in parts.items():
            self._seconds.labels(label, part).observe(seconds)

    def refused(self, partition: str, code: str) -> None:
        """Count it by status."""
        self._refused.labels(partition, code).inc()

    def batch(self, key: str, size: int) -> None:
        """Count its size."""
        self._sizes.labels(key).observe(size)

    def close(self) -> None:
        """Stop the thread and close its socket."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def start_metrics(host: str, port: int, waiting: Callable[[], int], under_way: Callable[[], int]) -> Prometheus:
    """Serve metrics at /metrics.

    Raises:
        ValueError: prometheus-client is missing, or the port is taken.
    """
    try:
        return Prometheus(host, port, waiting, under_way)
    except ImportError as error:
        raise ValueError(
            f"--metrics-port needs prometheus-client: pip install 'tidesplit[server]' ({error})"
        ) from error
    except (OSError, OverflowError) as error:
        raise ValueError(f"--metrics-port {port}: cannot listen there ({error})") from error
