"""A small attack on a server in this process."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from tests.runtime.deployed import small_cnn, with_memory
from tests.runtime.servers import ServerThread
from tidesplit.benchmarks.hostile import MOST_MIB, TYPED, Attacker, Honest, attack, faults, honest_streams
from tidesplit.benchmarks.hostile_payloads import SHARES, Hostile
from tidesplit.runtime.server.serving import ServerOptions


def test_hostile_messages_get_typed_refusals_and_an_honest_stream_loses_nothing(tmp_path: Path) -> None:
    cnn, rng = with_memory(small_cnn(tmp_path)), np.random.default_rng(0)
    attacker = Attacker(cnn, honest_streams(cnn, rng), rng)
    with ServerThread(cnn, ServerOptions()) as server:
        with Honest(server.address, cnn, "p1", attacker.streams["p1"]) as honest:
            statuses = attack(server.address, attacker.messages(600), rng)
        held = server.streams.held
        assert held.size < 100 << 20
        assert len(held) < 300
    assert set(statuses) <= TYPED
    assert min(statuses[name] for name in ("OK", "INVALID_ARGUMENT", "ABORTED reference unknown")) >= 30
    assert set(honest.statuses) == {"OK"}
    assert len(attacker.streams) == 3


def test_hostile_payloads_are_decoded_or_refused_with_a_type_and_take_little_memory(tmp_path: Path) -> None:
    cnn = with_memory(small_cnn(tmp_path))
    hostile = Hostile(cnn, honest_streams(cnn, np.random.default_rng(0)), random.Random(0))
    hostile.run(1000)
    assert hostile.untyped == []
    assert hostile.ends.total() == 1000
    assert hostile.most_mib < MOST_MIB
    kinds = {end.split()[0] for end in hostile.ends}
    assert kinds == set(SHARES)
    assert all(hostile.ends[f"{kind} decoded"] for kind in SHARES)


def test_an_error_without_a_type_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cnn = with_memory(small_cnn(tmp_path))
    hostile = Hostile(cnn, honest_streams(cnn, np.random.default_rng(0)), random.Random(0))
    monkeypatch.setattr(hostile, "_message", lambda: [][0])
    hostile.run(20)
    assert hostile.ends["messages UNTYPED IndexError"] == len(hostile.untyped) > 0


def test_what_is_wrong_is_said() -> None:
    sound = {
        "statuses": dict.fromkeys(TYPED, 5), "honest": {"OK": 3}, "server_mib_before": 200.0, "server_mib_most": 263.0,
        "untyped": [], "payloads_mib_most": 10.0,
    }  # fmt: skip
    wrong = {
        "statuses": {"OK": 1, "INTERNAL": 2}, "honest": {"OK": 3, "UNAVAILABLE": 1}, "server_mib_before": 200.0,
        "server_mib_most": 300.0, "untyped": ["_cut: KeyError: 3"], "payloads_mib_most": 65.0,
    }  # fmt: skip
    assert faults(sound) == []
    assert faults({}) == []
    assert [sentence.split()[0] for sentence in faults(wrong)] == ["no", "2", "1", "the", "this"]
