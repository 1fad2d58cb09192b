"""The cache of exports: the one not used for longest goes first, and the newest never."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tidesplit.runtime.cache import bound, cache_folder, used


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return cache_folder()


def export(root: Path, name: str, used_s: float, mib: int = 1) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "part.onnx").write_bytes(bytes(mib << 20))
    os.utime(folder, (used_s, used_s))
    return folder


def test_the_export_not_used_for_longest_is_deleted(root: Path) -> None:
    first, second, third = (export(root, name, at) for name, at in (("a", 100.0), ("b", 200.0), ("c", 300.0)))
    used(first)
    said = bound(third, largest=2 << 20)
    assert said == f"{root} holds 2 MiB of at most 2; older exports deleted: 1"
    assert (first.is_dir(), second.is_dir(), third.is_dir()) == (True, False, True)


def test_the_newest_export_stays_whatever_its_size(root: Path) -> None:
    small, large = export(root, "a", 300.0), export(root, "b", 100.0, mib=3)
    assert bound(large, largest=2 << 20).endswith("3 MiB of at most 2; older exports deleted: 1")
    assert (small.is_dir(), large.is_dir()) == (False, True)
    assert bound(large) == f"{root} holds 3 MiB of at most 1024"
