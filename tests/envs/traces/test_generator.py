"""The generator: same bytes for the same seed, statistics against closed forms, the fit against its source."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tidesplit.data.files import TRACES
from tidesplit.envs.traces.comparison import autocorrelation, lengths, measure, resample, table
from tidesplit.envs.traces.fit import bandwidth_correlation, fit, hermite_powers, long_runs, model_autocorrelation
from tidesplit.envs.traces.generator import main
from tidesplit.envs.traces.model import KNOTS, LinkModel, chain, generate, normal_cdf, outages
from tidesplit.envs.traces.presets import LTE, PRESETS, UMTS
from tidesplit.envs.traces.trace import Trace, load_traces

FLAT = LinkModel(
    name="flat",
    source="test",
    step_s=0.1,
    quantiles_bps=tuple(1e6 * (1 + knot) for knot in KNOTS),  # uniform between 1 and 2 Mbit/s
    empty_share=0.2,
    memory_s=(1.0, 10.0),
    weights=(0.3, 0.5, 0.2),
    outages_per_hour=0.0,
    outage_mean_s=2.0,
)


def trace_of(*mbps: float, step_s: float = 0.1) -> Trace:
    return Trace("t", np.arange(float(len(mbps))) * step_s, len(mbps) * step_s, np.array(mbps) * 1e6)


def test_bundled_trace_is_made_again_byte_for_byte(tmp_path: Path) -> None:
    assert main(["--seed", "1", "--out", str(tmp_path / "lte.csv")]) == 0
    assert (tmp_path / "lte.csv").read_bytes() == (TRACES / "lte.csv").read_bytes()
    assert main(["--seed", "2", "--out", str(tmp_path / "two.csv")]) == 0
    assert (tmp_path / "two.csv").read_bytes() != (TRACES / "lte.csv").read_bytes()


def test_bundled_second_hop_is_made_again_byte_for_byte(tmp_path: Path) -> None:
    out = tmp_path / "metro.csv"
    assert main(["--preset", "metro", "--seed", "1", "--duration", "600", "--out", str(out)]) == 0
    assert out.read_bytes() == (TRACES / "metro.csv").read_bytes()


def test_file_header_holds_seed_and_every_parameter() -> None:
    head = [line for line in (TRACES / "lte.csv").read_text().splitlines() if line.startswith("#")]
    assert any("--preset lte --seed 1 --duration 1200" in line for line in head)
    for name in LinkModel.__dataclass_fields__:
        assert f"# {name} = {getattr(LTE, name)}" in head


def test_statistics_of_a_known_trace() -> None:
    figures = measure([trace_of(*[0.0] * 25, *[1.0] * 50, *[3.0] * 25)])
    assert figures.duration_s == pytest.approx(10)
    assert figures.mean_bps == pytest.approx(1.25e6)
    np.testing.assert_allclose(np.array(figures.percentiles_bps) / 1e6, [0, 0.75, 1, 1.5, 3])
    assert figures.empty_share == 0.25
    assert figures.long_outages_per_hour == pytest.approx(360)
    assert figures.long_outage_share == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("values", "lag", "expected"),
    [([1, -1, 1, -1], 1, -1.0), ([1, -1, 1, -1], 2, 1.0), ([1, 1, 1], 1, float("nan")), ([1, 2], 5, float("nan"))],
)
def test_autocorrelation(values: list[float], lag: int, expected: float) -> None:
    assert autocorrelation([np.array(values, dtype=float)], lag) == pytest.approx(expected, nan_ok=True)


def test_pairs_do_not_span_two_traces() -> None:
    up, down = np.array([1.0, 1.0]), np.array([-1.0, -1.0])
    assert autocorrelation([up, down], 1) == pytest.approx(1.0)
    assert autocorrelation([np.concatenate([up, down])], 1) == pytest.approx(1 / 3)


def test_resample_is_exact_in_bits() -> None:
    np.testing.assert_allclose(resample(trace_of(1, 3, 0, 2, step_s=0.05), 0.1) / 1e6, [2, 1])
    np.testing.assert_allclose(resample(trace_of(4, step_s=0.5), 0.1) / 1e6, [4] * 5)
    np.testing.assert_allclose(resample(trace_of(4, step_s=0.03), 0.1) / 1e6, [4])


def test_runs() -> None:
    flags = np.array([False, True, True, False, True])
    assert lengths(flags).tolist() == [2, 1]
    assert lengths(np.zeros(3, dtype=bool)).tolist() == []
    assert long_runs(flags, 2).tolist() == [False, True, True, False, False]


def test_chain_is_standard_normal_with_the_stated_memory() -> None:
    values = chain(400_000, 0.9, np.random.default_rng(0))
    assert values.mean() == pytest.approx(0, abs=0.03)
    assert values.std() == pytest.approx(1, abs=0.02)
    for lag in (1, 5, 20):
        assert autocorrelation([values], lag) == pytest.approx(0.9**lag, abs=0.02)


def test_normal_cdf() -> None:
    np.testing.assert_allclose(normal_cdf(np.array([-1.96, 0, 1.644854, 9])), [0.0249979, 0.5, 0.95, 1], atol=1e-6)


def test_generated_quantiles_and_gaps_are_the_models() -> None:
    bps = generate(FLAT, 100_000, np.random.default_rng(0)).bandwidth_bps
    assert (bps == 0).mean() == pytest.approx(0.2, abs=0.01)
    np.testing.assert_allclose(np.quantile(bps[bps > 0], [0.25, 0.5, 0.9]) / 1e6, [1.25, 1.5, 1.9], atol=0.02)


def test_autocorrelation_has_the_closed_form() -> None:
    lags_s = np.array([0.1, 1.0, 10.0])
    powers = hermite_powers(FLAT.quantiles_bps, FLAT.empty_share)
    expected = model_autocorrelation(lags_s, FLAT.memory_s, np.array([FLAT.weights]), powers)[0]
    bps = generate(FLAT, 200_000, np.random.default_rng(1)).bandwidth_bps
    measured = [autocorrelation([bps], round(lag / FLAT.step_s)) for lag in lags_s]
    np.testing.assert_allclose(measured, expected, atol=0.02)


def test_correlation_map_ends() -> None:
    np.testing.assert_allclose(bandwidth_correlation(np.array([0.0, 1.0]), hermite_powers((0,) * 7 + (1,), 0)), [0, 1])


def test_outages_have_the_stated_rate_and_length() -> None:
    model = replace(FLAT, outages_per_hour=30.0, outage_mean_s=10.0)
    inside = outages(model, 10_000_000, np.random.default_rng(0))
    runs_s = lengths(inside) * model.step_s
    assert runs_s.mean() == pytest.approx(10, rel=0.1)
    assert runs_s.min() >= 1.9
    assert inside.mean() == pytest.approx(10 / (10 + 120), rel=0.1)


def test_fit_recovers_its_own_model() -> None:
    again = fit([generate(LTE, 50_000, np.random.default_rng(0))], "again", "test", LTE.step_s)
    np.testing.assert_allclose(again.quantiles_bps[1:6], LTE.quantiles_bps[1:6], rtol=0.05)
    assert again.empty_share == pytest.approx(LTE.empty_share, abs=0.01)
    assert again.outage_mean_s == pytest.approx(LTE.outage_mean_s, rel=0.3)


def test_an_hour_takes_less_than_a_second() -> None:
    start = time.perf_counter()
    generate(LTE, 3600, np.random.default_rng(0))
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize("name", PRESETS)
def test_presets_generate(name: str) -> None:
    rng = np.random.default_rng(3)
    assert generate(PRESETS[name], 60, rng).duration_s == pytest.approx(60)
    assert generate(UMTS, 3600, rng).mean_bps < 1e6


def test_only_the_generator_passed_in_is_used() -> None:
    first = generate(LTE, 60, np.random.default_rng(5)).bandwidth_bps
    np.random.seed(0)  # noqa: NPY002 - the global generator must not matter
    np.testing.assert_array_equal(first, generate(LTE, 60, np.random.default_rng(5)).bandwidth_bps)


@pytest.mark.parametrize(
    "change",
    [
        {"quantiles_bps": (1.0,)},
        {"quantiles_bps": tuple(reversed(LTE.quantiles_bps))},
        {"weights": (0.5, 0.5, 0.5, 0.5)},
        {"empty_share": 1.0},
        {"outage_mean_s": 1.0},
        {"step_s": 0.0},
    ],
)
def test_impossible_models_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="got"):
        replace(LTE, **change)  # type: ignore[arg-type]


def test_command_line_errors(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--compare", "nothing.csv"]) == 2
    assert main(["--duration", "0"]) == 2
    assert capsys.readouterr().err.count("error: ") == 2


def test_bundled_trace_is_near_its_source(shared: Path) -> None:
    source = measure(load_traces(shared / "traces" / "train" / "lte_us" / "ATT-LTE-driving_up.csv"))
    ours = measure(load_traces("lte"))
    assert ours.mean_bps == pytest.approx(source.mean_bps, rel=0.05)
    np.testing.assert_allclose(np.array(ours.percentiles_bps) / 1e6, np.array(source.percentiles_bps) / 1e6, atol=0.08)
    assert ours.empty_share == pytest.approx(source.empty_share, abs=0.02)
    np.testing.assert_allclose(ours.autocorrelation[:2], source.autocorrelation[:2], atol=0.06)
    assert "| mean (Mbit/s) | 0.83 | 0.8" in table({"source": source, "ours": ours})
