"""What the benchmark of foreign nets says of a profile and of a command that fails."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.runtime.deployed import points
from tidesplit.benchmarks import foreign_nets
from tidesplit.benchmarks.foreign_nets import FailedError, main, rows_of, run


def test_the_best_point_of_each_cut_within_a_number_of_bytes() -> None:
    profile = points(3)[0]
    _, cut, net = profile.points
    uncut = replace(net, id="device-c1.00", accuracy=0.9, head_macs=100.0)
    cuts = [
        replace(
            cut,
            id=f"p{p}-c1.00-r1.00-b{bits}",
            partition=p,
            accuracy=accuracy,
            bytes_mean=size,
            head_macs=25.0,
            fallback=uncut.id,
        )
        for p, bits, accuracy, size in ((1, 1, 0.7, 300.0), (1, 2, 0.8, 450.0), (1, 4, 0.85, 900.0), (2, 8, 0.9, 700.0))
    ]
    found = list(rows_of(replace(profile, points=(uncut, *cuts), devices={})))
    assert [(row["point"], row["within_bytes"]) for row in found] == [
        ("device-c1.00", None), ("p1-c1.00-r1.00-b2", 500), ("p1-c1.00-r1.00-b4", 1000), ("p2-c1.00-r1.00-b8", 1000),
    ]  # fmt: skip
    assert (found[1]["lost"], found[1]["compute"]) == (pytest.approx(0.1), 0.25)


def test_a_command_that_fails_gives_its_last_line(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(FailedError, match=r"^two$"):
        run(program=("-c", "import sys; sys.exit('one\\ntwo')"))
    assert capfd.readouterr().err == "one\ntwo\n"


def test_a_net_that_fails_is_a_row_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second run of a net takes the place of the first one's row."""

    def fails(*words: object) -> None:
        assert words[-2:] == ("--px", "96")
        raise FailedError("no legal cut")

    monkeypatch.setattr(foreign_nets, "run", fails)
    rows = tmp_path / "rows.json"
    rows.write_text(json.dumps({"rows": [{"net": "nets:old"}, {"net": "nets:net"}]}), encoding="utf-8")
    words = ["nets:net", "--pictures", "few", "--out", str(tmp_path / "out"), "--json", str(rows), "--", "--px", "96"]
    monkeypatch.setattr(sys, "argv", ["foreign_nets.py", *words])
    main()
    old, new = json.loads(rows.read_text(encoding="utf-8"))["rows"]
    assert (old["net"], new["net"], new["failed"]) == ("nets:old", "nets:net", "no legal cut")
