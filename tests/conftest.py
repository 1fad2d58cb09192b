"""Fixtures for every test."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"  # measured data beside the repository, never part of it


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder `../shared` of measured data; skips the test where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("needs the folder ../shared of measured data, which is not part of the repository")
    return SHARED
