"""Fixtures of the runtime's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.cnn import Cnn
from tests.runtime.deployed import small_cnn


@pytest.fixture(scope="session")
def cnn(tmp_path_factory: pytest.TempPathFactory) -> Cnn:
    """Every model of the small untrained CNN."""
    folder: Path = tmp_path_factory.mktemp("cnn")
    return small_cnn(folder)
