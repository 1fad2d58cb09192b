"""Figures of a run, and how benchmarks/emulated.py compares the simulator's order of controllers with the runtime's."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tidesplit.agents.judging.budgeted import Budgeted
from tidesplit.agents.judging.evaluation import History
from tidesplit.agents.judging.ladder import WithoutProbes
from tidesplit.agents.judging.seer import Foresight
from tidesplit.agents.rules.controllers import Static
from tidesplit.benchmarks.clip_pictures import clip_pictures
from tidesplit.benchmarks.emulated import acting, begun, order, orders_of, tell
from tidesplit.benchmarks.run_figures import emulated_row, simulated_row
from tidesplit.envs.budget.prices import USUAL_PRICES
from tidesplit.envs.world.vocabulary import DEVICE, MISS, SERVER


def line(by: str, ms: float, utility: float, given: str | None, size: int) -> dict[str, Any]:
    return {
        "answered_by": by, "actual_ms": {"total": ms}, "bytes": size,
        "utility": utility, "class": given, "label": "cat", "joules": 0.2,
    }  # fmt: skip


def test_figures_of_a_log() -> None:
    """A miss counts with the deadline, whatever came later. Only the picture's own class is right."""
    lines = [
        line("server", 40.0, 0.9, "cat", 400),
        line("device", 60.0, 0.7, "dog", 0),
        line("miss", 900.0, 0, None, 200),
    ]
    found = emulated_row(lines, limit_ms=100.0, period_s=0.05)
    assert found == {
        "mean_ms": pytest.approx(200 / 3), "p95_ms": pytest.approx(96.0), "misses": pytest.approx(1 / 3),
        "utility": pytest.approx(1.6 / 3), "right": pytest.approx(1 / 3), "bytes": 200.0,
        "by_device": pytest.approx(1 / 3), "watts": pytest.approx(4.0),
    }  # fmt: skip


def test_figures_of_a_simulated_run() -> None:
    none = np.zeros(3)
    record = History(
        none.astype(int), np.array([SERVER, DEVICE, MISS]), np.array([0.9, 0.7, 0.0]), np.array([0.04, 0.06, 0.1]),
        none, none, none > 0, none, none + 0.2, none, none,
    )  # fmt: skip
    assert simulated_row(record, period_s=0.05) == {
        "mean_ms": pytest.approx(200 / 3), "p95_ms": pytest.approx(96.0), "misses": pytest.approx(1 / 3),
        "utility": pytest.approx(1.6 / 3), "watts": pytest.approx(4.0),
    }  # fmt: skip


def test_the_same_order_has_tau_one() -> None:
    found = order({"a": (0.7, 0.8), "b": (0.9, 0.95), "c": (0.1, 0.2)}, 2000)
    assert found == (("b", "a", "c"), ("b", "a", "c"), 1.0, ())


def test_swapped_pairs_come_with_both_differences(capsys: pytest.CaptureFixture[str]) -> None:
    found = order({"a": (0.7, 0.8), "b": (0.6, 0.9), "c": (0.1, 0.2)}, 2000)
    assert found.simulated == ("b", "a", "c")
    assert found.tau == pytest.approx(1 / 3)
    assert found.swapped == (("a", "b", pytest.approx(0.1), pytest.approx(-0.1)),)
    tell("lte", found)
    assert "swapped: a over b by 0.100 emulated, -0.100 simulated" in capsys.readouterr().out


def test_a_tie_is_no_swap() -> None:
    found = order({"a": (0.7, 0.9), "b": (0.6, 0.9)}, 2000)
    assert (found.tau, found.swapped) == (0.0, ())
    assert order({"a": (0.7, 0.9)}, 2000).tau == 1.0


@pytest.mark.parametrize(("frames", "tau"), [(1000, 0.0), (10000, -1.0)])
def test_a_difference_of_one_frame_is_a_tie(frames: int, tau: float) -> None:
    found = order({"a": (0.7300, 0.7304), "b": (0.7280, 0.7309)}, frames)
    assert found.tau == tau
    assert bool(found.swapped) == (tau < 0)


def test_rows_of_a_file_are_gone_on_with_unless_they_are_of_other_runs(tmp_path: Path) -> None:
    facts = {"frames": 9, "bundle": "ab", "demand": {"fps": 30.0}, "settled_in_motion": 1.0}
    file = tmp_path / "rows.json"
    assert begun(file, facts) == []
    file.write_text(json.dumps({**facts, "machine": "another", "rows": [{"trace": "t"}]}))
    assert begun(file, facts) == [{"trace": "t"}]
    with pytest.raises(SystemExit, match="frames 9, not 8"):
        begun(file, {**facts, "frames": 8})


def test_orders_are_of_steady_servers_on_one_trace_with_one_kind_of_pictures() -> None:
    def row(pictures: str, controller: str, real: float, servers: str = "steady") -> dict[str, Any]:
        model = {"simulated": {"utility": 1.0 - real}} if servers == "steady" else {}
        place = {"trace": "t", "pictures": pictures, "servers": servers, "controller": controller}
        return {**place, "emulated": {"utility": real}, **model}

    rows = [row("fod", "a", 0.2), row("fod", "b", 0.6), row("test", "a", 0.5), row("fod", "c", 0.9, "restarted")]
    found = orders_of(rows, 100)
    assert {place: one.emulated for place, one in found.items()} == {"t, fod": ("b", "a"), "t, test": ("a",)}
    assert found["t, fod"].tau == -1.0


def uncut(classes: tuple[str, ...]) -> Any:
    """A CNN whose answer is its second class, whatever it sees."""
    tail = SimpleNamespace(run=lambda *_: [np.array([[0.0, 1.0]])])
    return SimpleNamespace(input_px=32, classes=classes, session=lambda _: tail)


def test_frames_of_clips_follow_each_other_over_and_over(tmp_path: Path) -> None:
    for clip in "ab":
        for number in range(2):
            (tmp_path / "real" / clip).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40, 30), (200 * number, 0, 0)).save(tmp_path / "real" / clip / f"{number}.png")
    found = clip_pictures([str(tmp_path / "real")], tmp_path, uncut(("cat", "dog")), 5)
    assert [p.name for p in found] == ["a/0", "a/1", "b/0", "b/1", "a/0"]
    assert {p.label for p in found} == {"dog"}, "no clip has a label: the uncut net's answer is taken"
    assert found[1].pixels.shape == (32, 32, 3)
    assert found[1].pixels[0, 0, 0] == 200


def test_clips_of_a_camera_keep_the_class_of_their_picture(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    Image.new("RGB", (40, 30), (90, 0, 0)).save(tmp_path / "cat" / "0.png")
    found = clip_pictures(["static"], tmp_path, uncut(("cat", "dog")), 3)
    assert [(p.name, p.label) for p in found] == [(f"static/cat/0/{i}", "cat") for i in range(3)]


def test_under_budgets_a_controller_begins_at_its_own_prices() -> None:
    static = Static("static", 0)
    assert acting(Budgeted(WithoutProbes(static), (2.0, 1e-5))) == (static, (2.0, 1e-5))
    assert acting(static) == (static, USUAL_PRICES)
    with pytest.raises(SystemExit, match="foresight needs the simulator"):
        acting(Foresight("foresight"))
