"""The JSON of iperf3 as a trace: reports cut down to what is read, their shape as iperf3 3.12 and 3.17 write it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tidesplit.envs.traces.iperf3 import is_iperf3, parse_iperf3
from tidesplit.envs.traces.trace import TraceError, load_traces


def interval(start: float, end: float, mbps: float, **more: Any) -> dict[str, Any]:
    return {"streams": [], "sum": {"start": start, "end": end, "bits_per_second": 1e6 * mbps, "omitted": False, **more}}


def report(*intervals: dict[str, Any], reverse: int = 0, protocol: str = "TCP", **more: Any) -> str:
    start = {"version": "iperf 3.12", "test_start": {"protocol": protocol, "reverse": reverse}}
    return json.dumps({"start": start, "intervals": intervals, "end": {}, **more})


TWO = (interval(0, 1.0001, 4), interval(1.0001, 2, 2.5))
RECEIVED = {"intervals": [interval(0, 1, 3), interval(1, 2, 0)]}
STREAMED = "\n".join(
    json.dumps({"event": event, "data": data})
    for event, data in (("start", json.loads(report())["start"]), *(("interval", one) for one in TWO), ("end", {}))
)


@pytest.mark.parametrize(
    ("text", "mbps", "duration_s"),
    [
        (report(*TWO), [4, 2.5], 2),
        (report(*TWO, server_output_json=RECEIVED), [3, 0], 2),
        (report(*TWO, protocol="UDP", server_output_json=RECEIVED), [3, 0], 2),
        (report(interval(0, 1, 9, omitted=True), *TWO), [4, 2.5], 2),
        (report(interval(5, 6, 1)), [1], 1),
        (report(*TWO, error="interrupted"), [4, 2.5], 2),  # stopped by Ctrl-C
        (STREAMED, [4, 2.5], 2),
        (STREAMED[:-9], [4, 2.5], 2),
        ("\n " + json.dumps(json.loads(report(*TWO)), indent=1), [4, 2.5], 2),
    ],
)
def test_known_answers(text: str, mbps: list[float], duration_s: float) -> None:
    found = parse_iperf3(text, "f")
    assert is_iperf3(text)
    assert (found.bandwidth_bps / 1e6).tolist() == mbps
    assert found.duration_s == pytest.approx(duration_s)
    assert found.time_s[0] == 0.0
    assert found.rtt_s is None


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "f: no JSON that can be read"),
        ('{"a": ' * 100_000, "f: no JSON that can be read"),
        ("{}", "f: JSON without intervals received, expected the report of iperf3 -J."),
        (report(error="unable to connect to server: Connection refused"), "f: the iperf3 test failed: unable to conn"),
        (report(), "f: the iperf3 test holds no intervals"),
        (report(*TWO, reverse=1), "f: iperf3 measured the downlink (-R)"),
        (report(*TWO, protocol="UDP"), "f: iperf3 sent UDP at a rate that it was given"),
        (report(interval(0, 1, 9, omitted=True)), "f: every interval of the iperf3 test is omitted"),
        (report({"streams": []}), "f, interval 1: it has no sum over the streams"),
        (report(TWO[0], interval(2, 1, 1)), "f, interval 2: got start 2, end 1, rate 1000000.0, expected an end after"),
        (report(interval(0, 1, -1)), "f, interval 1: got start 0, end 1, rate -1000000.0"),
        (report(interval(0, 1, float("nan"))), "f, interval 1: got start 0, end 1, rate nan"),
        (report(interval(0, 1, 1e300)), "f, interval 1: got start 0"),
        (report(TWO[1], TWO[0]), "f: intervals of the iperf3 test overlap"),
        (report(interval(0, 1e9, 1)), "f: got 1e+09 s, expected at most 604800 s"),
    ],
)
def test_bad_input_is_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(TraceError) as caught:
        parse_iperf3(text, "f")
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)


def test_files_are_recognised_by_their_content(tmp_path: Path) -> None:
    """Whatever a file is called. In a folder, other JSON is no trace."""
    (tmp_path / "a.txt").write_text(report(*TWO))
    (tmp_path / "b.json").write_text(report(*TWO))
    (tmp_path / "c.json").write_text('{"notes": "about these files"}')
    (tmp_path / "d.json").write_bytes(b"\xff\xfe")
    assert [trace.name for trace in load_traces(tmp_path)] == ["a", "b"]
    with pytest.raises(TraceError, match=r"c\.json: JSON without intervals received"):
        load_traces(tmp_path / "c.json")
