"""The contest: every entrant on every trace, compared with the clairvoyant bound of the same course of events."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import Any

from tidesplit.agents.judging.clairvoyant import LIMIT, clairvoyant
from tidesplit.agents.judging.evaluation import Entrant, History, Row, decision_time_us, play, simulation_of, summarise
from tidesplit.data.files import whole
from tidesplit.envs.simulation.simulation import Scenario

Progress = Callable[[str, int, int], None]
"""Called with the name of a phase, the steps done, and the steps in all."""


@dataclass(frozen=True)
class Result:
    """Results of one seed: ``bounds`` are the clairvoyant's utilities by trace, ``records`` by controller and trace."""

    rows: list[Row]
    bounds: dict[str, float]
    records: dict[str, dict[str, History]]

    def with_rows(self, other: Result, order: Iterable[str]) -> Result:
        """These results and another contest's on the same courses of events, controllers in the given order."""
        rows, records = [*self.rows, *other.rows], {**self.records, **other.records}
        sorted_rows = [row for name in order for row in rows if row.controller == name]
        return Result(sorted_rows, self.bounds, {name: records[name] for name in order if name in records})


def without_spreads(scenario: Scenario) -> Scenario:
    """The scenario with devices, links and prices as they are."""
    return replace(scenario.unvaried, price_draw=None)


def whole_traces(scenario: Scenario) -> Scenario:
    """The scenario for evaluation: every trace from its start to its end, without spreads."""
    return replace(without_spreads(scenario), episode_s=None)


def contest(
    entrants: Mapping[str, Entrant],
    scenario: Scenario,
    bounds: Sequence[Sequence[float]],
    seeds: Sequence[int] = (0,),
    progress: Progress = lambda *_: None,
    pool: ProcessPoolExecutor | None = None,
) -> list[Result]:
    """Play every entrant on every whole trace, once for each seed. All meet the same courses of events.

    Args:
        entrants: by the name that they have in the rows.
        scenario: its traces are played from start to end.
        bounds: the clairvoyant's mean utility by seed and trace.
        seeds: seeds of the courses of events.
        progress: called before each entrant's results, and at the end.
        pool: processes in which the entrants play at the same time. They have to be picklable. None: in this process.

    Returns:
        One result for each seed.
    """
    return results_of(all_played(entrants, scenario, seeds, progress, pool), scenario, bounds)


Played = tuple[list[list[History]], float]
"""Histories by seed and trace, and the median time of a decision in microseconds."""


def all_played(
    entrants: Mapping[str, Entrant],
    scenario: Scenario,
    seeds: Sequence[int],
    progress: Progress = lambda *_: None,
    pool: ProcessPoolExecutor | None = None,
) -> dict[str, Played]:
    """Let every entrant play, see `contest` for the arguments. By name."""
    play_all: Callable[..., Iterator[Played]] = map if pool is None else pool.map
    playing = play_all(played, entrants.values(), repeat(scenario), repeat(tuple(seeds)))
    found = {}
    for number, name in enumerate(entrants):
        progress("contest", number, len(entrants))
        found[name] = next(playing)
    progress("contest", len(entrants), len(entrants))
    return found


def played(entrant: Entrant, scenario: Scenario, seeds: Sequence[int]) -> Played:
    """Let one entrant play every whole trace, once for each seed."""
    judged = whole_traces(scenario)
    decision_us = decision_time_us(entrant, judged)
    records = play(entrant, simulation_of(judged, seeds))
    count = len(judged.traces)
    return [records[i : i + count] for i in range(0, len(records), count)], decision_us


def results_of(found: Mapping[str, Played], scenario: Scenario, bounds: Sequence[Sequence[float]]) -> list[Result]:
    """One result for each seed, of controllers that have played. ``bounds``: see `contest`."""
    names, period_s = [trace.name for trace in scenario.traces], scenario.demands[0].period_s
    results = [Result([], dict(zip(names, of, strict=True)), {}) for of in bounds]
    for name, (by_seed, decision_us) in found.items():
        for result, records in zip(results, by_seed, strict=True):
            result.records[name] = dict(zip(names, records, strict=True))
            result.rows.extend(
                summarise(
                    record,
                    controller=name,
                    trace=trace,
                    period_s=period_s,
                    decision_us=decision_us,
                    bound=result.bounds[trace],
                )
                for trace, record in result.records[name].items()
            )
    return results


@contextmanager
def workers(count: int | None = None) -> Iterator[ProcessPoolExecutor]:
    """A pool of ``count`` worker processes, one for each core by default.

    They are spawned, because a forked process would inherit the locks of torch's threads without the threads. Where
    the block ends with an exception, the workers are terminated at once.
    """
    pool = ProcessPoolExecutor(count or os.cpu_count() or 1, mp_context=multiprocessing.get_context("spawn"))
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    pool.shutdown()


def stop_on_sigterm() -> None:
    """Handle SIGTERM, which a service manager sends, like Ctrl-C. So no worker process is left behind."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)


def submit_bounds(pool: ProcessPoolExecutor, scenario: Scenario, seed: int, limit: int = LIMIT) -> list[Future[float]]:
    """Submit the clairvoyant bound of each whole trace to the pool. ``seed``: of the courses of events."""
    judged = whole_traces(scenario)
    return [pool.submit(bound, judged, seed, lane, limit) for lane in range(len(judged.traces))]


def bound(scenario: Scenario, seed: int, lane: int, limit: int) -> float:
    """The clairvoyant bound of trace number ``lane``, for the course of events that ``contest`` plays there."""
    return clairvoyant(simulation_of(scenario, seed), lane, limit)


def write_json(path: Path, rows: Sequence[Row], **more: Any) -> None:
    """Write the rows as JSON, after the values in ``more``."""
    document = {**more, "rows": [asdict(row) for row in rows]}
    with whole(path) as part:
        part.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
