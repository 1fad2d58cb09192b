"""The contest: every controller on every trace, each against the clairvoyant bound of the same course of events."""

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
from pathlib import Path
from typing import Any

from tidesplit.agents.judging.clairvoyant import LIMIT, clairvoyant
from tidesplit.agents.judging.evaluation import Entrant, History, Row, decision_time_us, play, simulation_of, summarise
from tidesplit.data.files import whole
from tidesplit.envs.simulation.simulation import Scenario

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Result:
    """Rows, the clairvoyant's mean utility by trace, and what happened by controller and trace."""

    rows: list[Row]
    bounds: dict[str, float]
    records: dict[str, dict[str, History]]

    def with_rows(self, other: Result, order: Iterable[str]) -> Result:
        """This and another contest's of the same courses, controllers in the order given."""
        rows, records = [*self.rows, *other.rows], {**self.records, **other.records}
        sorted_rows = [row for name in order for row in rows if row.controller == name]
        return Result(sorted_rows, self.bounds, {name: records[name] for name in order if name in records})


def whole_traces(scenario: Scenario) -> Scenario:
    """The scenario as it is evaluated: every trace from its start to its end, the table as it is."""
    return replace(scenario, episode_s=None, table_spread=0.0, trace_spread=0.0)


def contest(
    entrants: Mapping[str, Entrant],
    scenario: Scenario,
    bounds: Sequence[Sequence[float]],
    seeds: Sequence[int] = (0,),
    progress: Progress = lambda *_: None,
    pool: ProcessPoolExecutor | None = None,
) -> list[Result]:
    """Play every entrant on every trace from its start, once a seed, with the same courses for all; a result a seed.

    ``bounds`` by seed and trace. In a ``pool`` entrants play side by side, and have to be picklable.
    """
    whole = whole_traces(scenario)
    names = [trace.name for trace in whole.traces]
    begin: Callable[..., Future[_Played]] = _at_once if pool is None else pool.submit
    playing: dict[str, Future[_Played]] = {}
    for name, entrant in entrants.items():
        if pool is None:
            progress("contest", len(playing), len(entrants))
        playing[name] = begin(_play, entrant, whole, tuple(seeds))
    results = [Result([], dict(zip(names, of, strict=True)), {}) for of in bounds]
    for number, (name, future) in enumerate(playing.items()):
        progress("contest", number, len(entrants))
        by_seed, decision_us = future.result()
        for result, records in zip(results, by_seed, strict=True):
            result.records[name] = dict(zip(names, records, strict=True))
            result.rows.extend(
                summarise(
                    record,
                    controller=name,
                    trace=trace,
                    period_s=whole.demands[0].period_s,
                    decision_us=decision_us,
                    bound=result.bounds[trace],
                )
                for trace, record in result.records[name].items()
            )
    progress("contest", len(entrants), len(entrants))
    return results


_Played = tuple[list[list[History]], float]


def _play(entrant: Entrant, whole: Scenario, seeds: Sequence[int]) -> _Played:
    """Records by seed and trace, and the time of a decision."""
    decision_us = decision_time_us(entrant, whole)
    records = play(entrant, simulation_of(whole, seeds))
    count = len(whole.traces)
    return [records[i : i + count] for i in range(0, len(records), count)], decision_us


def _at_once(call: Callable[..., _Played], *arguments: object) -> Future[_Played]:
    future: Future[_Played] = Future()
    future.set_result(call(*arguments))
    return future


@contextmanager
def workers(count: int | None = None) -> Iterator[ProcessPoolExecutor]:
    """Processes beside this one, begun afresh: a fork would inherit torch's threads half alive.

    Where what is within fails or is stopped, they are ended at once instead of when their tasks are.
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
    """Take a service manager's SIGTERM for Ctrl-C, so that nothing is left running."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, stop)


def submit_bounds(pool: ProcessPoolExecutor, scenario: Scenario, seed: int, limit: int = LIMIT) -> list[Future[float]]:
    """Ask for the clairvoyant bound of each trace, whole."""
    whole = whole_traces(scenario)
    return [pool.submit(bound, whole, seed, lane, limit) for lane in range(len(whole.traces))]


def bound(scenario: Scenario, seed: int, lane: int, limit: int) -> float:
    """The clairvoyant bound of one trace, on the course that ``contest`` plays there."""
    return clairvoyant(simulation_of(scenario, seed), lane, limit)


def write_json(path: Path, rows: Sequence[Row], **beside: Any) -> None:
    """Write the rows, and what else is to stand beside them, as JSON."""
    document = {**beside, "rows": [asdict(row) for row in rows]}
    with whole(path) as part:
        part.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
