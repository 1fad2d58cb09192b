"""What the benchmarks share of their results: percentiles, and a JSON file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tidesplit.data.files import whole


def percentiles(values: Sequence[float], **names: float) -> dict[str, float]:
    """Percentiles of the values by name: ``percentiles(times_s, median=50, p95=95)``."""
    return {name: float(np.percentile(values, q)) for name, q in names.items()}


def write_json(path: Path | None, document: Mapping[str, Any]) -> None:
    """Write the document. None: write nothing."""
    if path is not None:
        with whole(path) as part:
            part.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
