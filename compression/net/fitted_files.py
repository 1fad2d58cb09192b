"""What was fitted to a CNN's weights, in a JSON file next to them. It says which weights it belongs to."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from tidesplit.compression.net.system import SplitNet
from tidesplit.data.files import whole

OF_TAILS = re.compile(r"\.p[0-9]+(\.|$)")  # in the names of tensors that no device uses


def save_fitted(path: Path, system: SplitNet, name: str, value: Any) -> Path:
    """Write a value under its name. Returns the path."""
    with whole(path) as part:
        part.write_text(json.dumps({"weights": _fingerprint(system), name: value}) + "\n", encoding="utf-8")
    return path


def load_fitted(path: Path, system: SplitNet, name: str) -> Any:
    """The value of a name; None where there is no file.

    Raises:
        ValueError: it was fitted to other weights.
    """
    if not path.exists():
        return None
    document = json.loads(path.read_text(encoding="utf-8"))
    if document.get("weights") != _fingerprint(system):
        raise ValueError(f"{path} was made for other weights: tidesplit fit-{name} writes it")
    return document[name]


def _fingerprint(system: SplitNet) -> str:
    """SHA-256 of all weights but those of the server's tails."""
    digest = hashlib.sha256()
    for name, tensor in sorted(system.state_dict().items()):
        if not OF_TAILS.search(name) and not name.endswith("num_batches_tracked"):
            digest.update(name.encode() + tensor.float().contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()
