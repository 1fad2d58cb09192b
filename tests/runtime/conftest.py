"""Fixtures of the runtime's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.runtime.deployed import small_cnn
from tidesplit.runtime.cnn import Cnn


@pytest.fixture(scope="session")
def cnn(tmp_path_factory: pytest.TempPathFactory) -> Cnn:
    """All models of the small untrained CNN."""
    folder: Path = tmp_path_factory.mktemp("cnn")
    return small_cnn(folder)
