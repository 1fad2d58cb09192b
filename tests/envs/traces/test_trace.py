"""Reading traces: every format as a small known table, every kind of bad input as one sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tidesplit.envs.traces.formats import parse
from tidesplit.envs.traces.trace import Trace, TraceError, concatenate, load_traces, read_trace

CSV = "time_s,bandwidth_mbps\n"
NAN = float("nan")

# text -> (bin starts s, Mbit/s, duration s)
GOOD: dict[str, tuple[str, list[float], list[float], float]] = {
    "csv": (CSV + "0,1\n0.5,2\n1.0,0\n", [0, 0.5, 1], [1, 2, 0], 1.5),
    "csv starts late": (CSV + "10,1\n11,2\n", [0, 1], [1, 2], 2),
    "csv irregular": (CSV + "0,1\n1,2\n2,3\n12,4\n", [0, 1, 2, 12], [1, 2, 3, 4], 13),
    "csv one sample": (CSV + "0,3\n", [0], [3], 1),
    "csv outage only": (CSV + "0,0\n1,0\n", [0, 1], [0, 0], 2),
    "csv comments, blanks, spaces": ("# seed 1\n\n time_s , bandwidth_mbps \n# x\n0, 1\r\n1, 2\n", [0, 1], [1, 2], 2),
    "pensieve": ("0.5 1.25\n1.0\t2.5\n", [0], [2.5], 0.5),
    "pensieve, regular": ("0 9\n1 1\n2 2\n3 3\n", [0, 1, 2], [1, 2, 3], 3),
    "pensieve, irregular": ("0 1\n1 10\n11 0.1\n21 8\n", [0, 1, 11], [10, 0.1, 8], 21),
    "pensieve, Unix time": ("1516097521.25 1.5\n1516097522.25 2.5\n1516097523 0\n", [0, 1], [2.5, 0], 1.75),
    "mahimahi 12 Mbit/s": ("\n".join(str(ms) for ms in range(1, 301)), [0, 0.1, 0.2], [12, 12, 12], 0.3),
    "mahimahi shorter than a bin": ("1\n", [0], [12], 0.001),
    "mahimahi gap, two at once": ("50\n50\n300\n", [0, 0.1, 0.2], [0.24, 0, 0.12], 0.3),
    "mahimahi border belongs to the bin before": ("100\n200\n", [0, 0.1], [0.12, 0.12], 0.2),
    "mahimahi last bin cut": ("100\n160\n", [0, 0.1], [0.12, 0.2], 0.16),
    "mahimahi last bin stretched": ("0\n120\n", [0], [0.2], 0.12),
}

BAD: dict[str, tuple[str, str]] = {
    "empty": ("", "f: the file holds no data, expected a header"),
    "comments only": ("# a\n\n", "f: the file holds no data"),
    "header only": (CSV, "f, line 1: got a header and no rows"),
    "wrong header": ("time,bw\n0,1\n", "f, line 1: got the header 'time,bw', expected time_s,bandwidth_mbps"),
    "no header": ("0,1\n1,2\n", "f, line 1: got the header '0,1', expected time_s,bandwidth_mbps"),
    "words": ("hello\n", "f, line 1: got the header 'hello'"),
    "negative": (CSV + "0,1\n1,-2\n", "f, line 3: got bandwidth_mbps -2, expected 0 or more"),
    "nan": (CSV + "0,nan\n", "f, line 2: got bandwidth_mbps nan, expected a finite number"),
    "infinite": (CSV + "0,inf\n", "f, line 2: got bandwidth_mbps inf, expected a finite number"),
    "time nan": (CSV + "nan,1\n", "f, line 2: got time_s nan"),
    "huge": (CSV + "0,1e300\n", "f, line 2: got bandwidth_mbps 1e300, expected at most 1e+12"),
    "not a number": (CSV + "# c\n0,x\n", "f, line 3: got bandwidth_mbps 'x', expected a number"),
    "empty cell": (CSV + "0,\n", "f, line 2: got bandwidth_mbps '', expected a number"),
    "short row": (CSV + "0\n", "f, line 2: got 1 columns, expected 2 (time_s, bandwidth_mbps)"),
    "time back": (CSV + "0,1\n2,1\n1,1\n", "f, line 4: time goes from 2 s to 1 s, expected it to increase"),
    "time equal": (CSV + "0,1\n0,1\n", "f, line 3: time goes from 0 s to 0 s, expected it to increase"),
    "negative rtt": ("time_s,bandwidth_mbps,rtt_ms\n0,1,-5\n", "f, line 2: got rtt_ms -5, expected 0 or more"),
    "three columns": ("0 1 2\n", "f, line 1: got 3 columns"),
    "pensieve, one row": ("0 1\n", "f, line 1: got a single row, expected at least two"),
    "pensieve negative": ("0 1\n1 -1\n", "f, line 2: got bandwidth_mbps -1"),
    "pensieve time back": ("1 1\n0 1\n", "f, line 2: time goes from 1 s to 0 s"),
    "mahimahi fraction": ("1\n1.5\n", "f, line 2: got '1.5', expected one integer in ms"),
    "mahimahi negative": ("-1\n", "f, line 1: got '-1', expected one integer in ms"),
    "mahimahi back": ("5\n4\n", "f, line 2: time runs back to 4 ms, expected at least 5 ms"),
    "mahimahi zero period": ("0\n", "f, line 1: the last packet is at 0 ms"),
    "mahimahi huge": ("1\n99999999999999999999\n", "f, line 2: got 99999999999999999999 ms, expected at most"),
}


@pytest.mark.parametrize("case", GOOD)
def test_good_files(case: str, tmp_path: Path) -> None:
    text, time_s, mbps, duration_s = GOOD[case]
    (tmp_path / "f.txt").write_text(text, newline="")
    trace = read_trace(tmp_path / "f.txt")
    np.testing.assert_allclose(trace.time_s, time_s)
    np.testing.assert_allclose(trace.bandwidth_bps / 1e6, mbps)
    assert trace.duration_s == pytest.approx(duration_s)
    assert trace.name == "f"
    assert trace.rtt_s is None


@pytest.mark.parametrize("case", BAD)
def test_bad_files_give_one_sentence(case: str) -> None:
    text, begin = BAD[case]
    with pytest.raises(TraceError) as caught:
        parse(text, "f")
    assert str(caught.value).startswith(begin)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


def test_the_mean_is_that_of_pensieves_simulator() -> None:
    """1 s at 10, 10 s at 0.1 and 10 s at 8 Mbit/s."""
    samples = parse("0 1\n1 10\n11 0.1\n21 8\n", "f")
    assert Trace("f", samples.time_s, samples.duration_s or 0, samples.bandwidth_bps).mean_bps == pytest.approx(
        91e6 / 21
    )


def test_rtt_column() -> None:
    rtt_s = parse("time_s,bandwidth_mbps,rtt_ms\n0,1,40\n1,1,55.5\n", "f").rtt_s
    assert rtt_s is not None
    np.testing.assert_allclose(rtt_s, [0.040, 0.0555])


@pytest.mark.parametrize(
    ("raw", "line"), [(b"\x00\x01\x02", 1), (b"time_s,bandwidth_mbps\n0,1\n\xff\xfe", 3), (b"1\n2\n\x003\n", 3)]
)
def test_binary(raw: bytes, line: int, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(raw)
    with pytest.raises(TraceError, match=f"f, line {line}: got"):
        read_trace(tmp_path / "f")


def test_mahimahi_keeps_every_bit() -> None:
    stamps = np.sort(np.random.default_rng(0).integers(0, 12_345, size=4_000))
    samples = parse("\n".join(map(str, stamps)), "f")
    trace = Trace("f", samples.time_s, samples.duration_s or 0, samples.bandwidth_bps)
    assert trace.mean_bps * trace.duration_s == pytest.approx(4_000 * 12_000)


def test_folder_is_read_in_order_and_skips_what_is_no_trace(tmp_path: Path) -> None:
    for name in ("b.csv", "sub/a.csv", "a.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(CSV + "0,1\n")
    (tmp_path / "c.mahi").write_text("1\n2\n")
    for name in ("README.md", ".hidden", "notes.json"):
        (tmp_path / name).write_text("not a trace")
    assert [trace.name for trace in load_traces(tmp_path)] == ["a", "b", "c", "a"]


def test_empty_folder_and_missing_file(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="holds no trace"):
        load_traces(tmp_path)
    with pytest.raises(TraceError, match=r"no such file or folder, nor a bundled trace \(there is: .*lte"):
        load_traces("nothing")
    with pytest.raises(TraceError, match="no such file"):
        load_traces("../traces/lte")


def test_bundled_by_bare_name_unless_the_working_directory_has_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_traces("lte")[0].duration_s == load_traces("lte.csv")[0].duration_s == 1200
    (tmp_path / "lte.csv").write_text(CSV + "0,7\n")
    assert load_traces("lte.csv")[0].bandwidth_bps.tolist() == [7e6]


def steps(*mbps: float, duration_s: float | None = None) -> Trace:
    """One-second bins."""
    return Trace("t", np.arange(float(len(mbps))), duration_s or len(mbps), np.array(mbps) * 1e6, np.array(mbps) / 1e3)


@pytest.mark.parametrize(
    ("start_s", "end_s", "time_s", "mbps"),
    [
        (0, 4, [0, 1, 2, 3], [1, 2, 3, 4]),
        (1, 3, [0, 1], [2, 3]),
        (0.5, 2.5, [0, 0.5, 1.5], [1, 2, 3]),
        (1.2, 1.4, [0], [2]),
        (1 - 1e-12, 3 + 1e-12, [0, 1], [2, 3]),
        (3.5, 4, [0], [4]),
    ],
)
def test_slice(start_s: float, end_s: float, time_s: list[float], mbps: list[float]) -> None:
    part = steps(1, 2, 3, 4).slice(start_s, end_s)
    np.testing.assert_allclose(part.time_s, time_s)
    np.testing.assert_allclose(part.bandwidth_bps / 1e6, mbps)
    assert part.rtt_s is not None
    assert part.rtt_s.shape == part.time_s.shape
    assert part.duration_s == pytest.approx(end_s - start_s)


def test_split_with_offset_and_concatenate_keep_the_bits() -> None:
    trace = steps(1, 2, 3, 4)
    first, second = trace.split(0.625)
    whole = concatenate("t", [first, second])
    assert (first.duration_s, second.duration_s) == (2.5, 1.5)
    assert whole.mean_bps == pytest.approx(trace.mean_bps)
    turned = trace.with_offset(1.5)
    np.testing.assert_allclose(turned.time_s, [0, 0.5, 1.5, 2.5, 3.5])
    np.testing.assert_allclose(turned.bandwidth_bps / 1e6, [2, 3, 4, 1, 2])
    np.testing.assert_allclose(trace.with_offset(-2.5).bandwidth_bps, turned.bandwidth_bps)
    assert trace.with_offset(8.0) is trace


@pytest.mark.parametrize(("start_s", "end_s"), [(-1, 2), (2, 2), (3, 5), (NAN, 1)])
def test_slice_outside_is_refused(start_s: float, end_s: float) -> None:
    with pytest.raises(ValueError, match="expected it within 0 to 4"):
        steps(1, 2, 3, 4).slice(start_s, end_s)


@pytest.mark.parametrize(
    ("time_s", "duration_s", "bps"),
    [
        ([0, 1], 2, [1]),
        ([], 1, []),
        ([1, 2], 3, [1, 1]),
        ([0, 2], 2, [1, 1]),
        ([0], NAN, [1]),
        ([0], 1, [NAN]),
        ([0], 1, [-1]),
    ],
)
def test_trace_refuses_what_is_no_trace(time_s: list[float], duration_s: float, bps: list[float]) -> None:
    with pytest.raises(TraceError, match="trace t:"):
        Trace("t", np.array(time_s), duration_s, np.array(bps))


def test_arrays_are_read_only_copies() -> None:
    given = np.array([1e6])
    trace = Trace("t", np.array([0.0]), 1.0, given)
    given[0] = 5
    assert trace.bandwidth_bps[0] == 1e6
    with pytest.raises(ValueError, match="read-only"):
        trace.bandwidth_bps[0] = 2


def test_measured_traces(shared: Path) -> None:
    traces = load_traces(shared / "traces" / "train" / "lte_us")
    assert [trace.name for trace in traces] == ["ATT-LTE-driving-2016_up", "ATT-LTE-driving_up", "TMobile-LTE-short_up"]
    assert traces[1].duration_s == pytest.approx(1012.5)
    drive = load_traces(shared / "traces" / "test" / "5g_drive")
    assert len(drive) == 50
    assert all(trace.rtt_s is not None for trace in drive)
