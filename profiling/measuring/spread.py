"""Chunks of work run by joblib, on this machine or a Ray cluster. Finished ones are kept in a file."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from joblib import Parallel, delayed, parallel_config
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Found = dict[str, dict[str, Any]]


def _finished(partial: Path, key: str) -> dict[int, Found]:
    """Chunks that an earlier run of the same work (same key) finished. A line cut short by a crash is ignored."""
    found: dict[int, Found] = {}
    if partial.exists():
        for line in partial.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue
            if entry.get("key") == key:
                found[int(entry["chunk"])] = entry["found"]
    return found


def _numbered(work: Callable[..., Found], number: int, arguments: Sequence[Any]) -> tuple[int, Found]:
    return number, work(*arguments)


def _results(
    work: Callable[..., Found], todo: Sequence[tuple[int, Sequence[Any]]], jobs: int, ray: str | None
) -> Iterator[tuple[int, Found]]:
    """Results as they come, in any order."""
    if ray is not None:
        import ray as ray_module
        from ray.util.joblib import register_ray

        ray_module.init(address=ray or None, ignore_reinit_error=True)
        register_ray()
    tasks = (delayed(_numbered)(work, number, arguments) for number, arguments in todo)
    if jobs == 1 and ray is None:  # in this process, which saves a second copy of torch
        yield from (_numbered(work, number, arguments) for number, arguments in todo)
        return
    with parallel_config(backend="loky" if ray is None else "ray", n_jobs=jobs if ray is None else -1):
        if ray is None:
            yield from Parallel(return_as="generator_unordered")(tasks)
        else:  # Ray's joblib backend returns lists only
            yield from Parallel()(tasks)


def run_chunks(
    work: Callable[..., Found], arguments: Sequence[Sequence[Any]], partial: Path, key: str, jobs: int, ray: str | None
) -> list[Found]:
    """Results of `work(*arguments[i])` in the order of i.

    Args:
        partial: file of finished chunks.
        key: names the work in that file.
        jobs: processes on this machine.
        ray: address of a Ray cluster to run on instead.
    """
    done = _finished(partial, key)
    todo = [(i, item) for i, item in enumerate(arguments) if i not in done]
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"),
        TimeRemainingColumn(),
    )  # fmt: skip
    started = time.perf_counter()
    with Progress(*columns) as bar, partial.open("a", encoding="utf-8") as kept:
        task = bar.add_task("chunks", total=len(arguments), completed=len(done))
        for number, found in _results(work, todo, jobs, ray):
            done[number] = found
            kept.write(json.dumps({"key": key, "chunk": number, "found": found}) + "\n")
            kept.flush()
            bar.advance(task)
        bar.console.print(f"{len(todo)} chunks in {time.perf_counter() - started:.1f} s")
    return [done[i] for i in range(len(arguments))]
