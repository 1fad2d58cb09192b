"""A trace of your own uplink: recorded by the device while it runs, or measured with iperf3.

    tidesplit edge --bundle out/lte --server HOST:PORT --record-trace uplink.csv
    iperf3 -c HOST -J -i 0.1 -t 600 > uplink.json
    python examples/own_trace.py uplink.csv uplink.json

For each file it says what the link is like, and which operating point is best on it when used for every frame. The last
line trains a policy for it.
"""

from __future__ import annotations

import sys
from dataclasses import replace

from tidesplit.agents.judging.ladder import Tuning, static_utilities
from tidesplit.envs.simulation.scenario import scenario_from
from tidesplit.envs.traces.summary import summed_up
from tidesplit.envs.traces.trace import TraceError, load_traces


def main(*specs: str) -> None:
    """Read trace files in any format, folders, or bundled traces by their names."""
    for spec in specs or ("lte",):
        for trace in load_traces(spec):
            print(*summed_up([trace], "uplink"), sep="\n")
            scenario = replace(scenario_from(trace=trace, fps=30, deadline_ms=100), episode_s=10.0)
            worth = static_utilities(scenario, Tuning(lanes=4, episode_s=10.0))
            best = int(worth.argmax())
            print(f"best static point: {scenario.table.ids[best]}, utility {worth[best]:.3f}, simulated")
        print(f"tidesplit train --trace {spec}")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except TraceError as error:
        sys.exit(f"own_trace.py: {error}")
