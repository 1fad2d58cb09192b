"""What the server says of its models: metadata, and the configuration, statistics and index that Triton's tools ask."""

from __future__ import annotations

from typing import Any

from tidesplit.runtime.cnn import Cnn
from tidesplit.runtime.models import tail_name
from tidesplit.runtime.server.metrics import Metrics
from tidesplit.runtime.wire.messages import INPUT, PROBE, model_name
from tidesplit.runtime.wire.protocol import MESSAGES

EXTENSIONS = ("classification", "model_configuration", "statistics")
PLATFORM = "onnxruntime_onnx"
ANY_LENGTH = -1
STATISTICS_VERSION = "1"  # perf_analyzer ends with an exception where it is no whole number, such as a hash


class Description:
    """Answers about the models of one CNN and the probe. Names are checked by the caller."""

    def __init__(self, cnn: Cnn, partitions: tuple[int, ...]) -> None:
        self._cnn = cnn
        self._partitions = {model_name(cnn.name, partition): partition for partition in partitions}

    def metadata(self, name: str) -> Any:
        """ModelMetadataResponse."""
        known = name in self._partitions
        answer = MESSAGES["ModelMetadataResponse"](name=name, platform=PLATFORM if known else "tidesplit_probe")
        answer.inputs.add(name=INPUT, datatype="UINT8", shape=[ANY_LENGTH])
        if known:
            answer.versions.append(self._cnn.version)
            for output, shape in self._cnn.form.shapes.items():
                answer.outputs.add(name=output, datatype="FP32", shape=shape)
        return answer

    def config(self, name: str) -> Any:
        """ModelConfigResponse. Shapes have no dimension for a batch."""
        answer = MESSAGES["ModelConfigResponse"]()
        config = answer.config
        config.name, config.platform, config.backend = name, PLATFORM, "onnxruntime"
        config.input.add(name=INPUT, data_type="TYPE_UINT8", dims=[ANY_LENGTH])
        if name in self._partitions:
            for output, shape in self._cnn.form.shapes.items():
                config.output.add(name=output, data_type="TYPE_FP32", dims=shape)
        return answer

    def index(self, ready: bool, only_ready: bool) -> Any:
        """RepositoryIndexResponse. `ready` is False while the server shuts down."""
        answer = MESSAGES["RepositoryIndexResponse"]()
        state, reason = ("READY", "") if ready else ("UNAVAILABLE", "the server is shutting down")
        for name in (*self._partitions, PROBE) if ready or not only_ready else ():
            version = self._cnn.version if name in self._partitions else ""
            answer.models.add(name=name, version=version, state=state, reason=reason)
        return answer

    def statistics(self, name: str, metrics: Metrics) -> Any:
        """ModelStatisticsResponse of one model, or of all where `name` is empty."""
        answer = MESSAGES["ModelStatisticsResponse"]()
        for each in (name,) if name else (*self._partitions, PROBE):
            partition = self._partitions.get(each)
            counts = metrics.counts[PROBE if partition is None else str(partition)]
            runs = counts.answered if partition is None else metrics.batches[tail_name(partition)]
            stats = answer.model_stats.add(
                name=each, version=STATISTICS_VERSION, last_inference=int(1e3 * counts.last_s),
                inference_count=counts.answered, execution_count=runs,
            )  # fmt: skip
            for part, count, seconds in (
                ("success", counts.answered, counts.total_s),
                ("fail", counts.refused, 0.0),
                ("queue", counts.answered, counts.wait_s),
                ("compute_infer", counts.answered, counts.compute_s),
                ("compute_input", counts.answered, 0.0),  # decoding is part of compute_infer
                ("compute_output", counts.answered, 0.0),
            ):
                duration = getattr(stats.inference_stats, part)
                duration.count, duration.ns = count, int(1e9 * seconds)
        return answer
