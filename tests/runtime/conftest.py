"""Fixtures of the runtime's tests."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runtime.certificates import all_kinds
from tests.runtime.deployed import server_process, small_cnn
from tidesplit.runtime.cnn import Cnn


@pytest.fixture(scope="session")
def cnn(tmp_path_factory: pytest.TempPathFactory) -> Cnn:
    """All models of the small untrained CNN."""
    folder: Path = tmp_path_factory.mktemp("cnn")
    return small_cnn(folder)


@pytest.fixture(scope="session")
def port(cnn: Cnn) -> Iterator[int]:
    """The port of a server in a process of its own, which no test stops."""
    with server_process(cnn.folder) as (_, number):
        yield number


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates and keys of `all_kinds`; skips the test without the openssl command."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command")
    folder: Path = tmp_path_factory.mktemp("keys")
    all_kinds(folder)
    return folder
