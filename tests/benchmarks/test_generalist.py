"""The tables that the policy that ships is trained with."""

from __future__ import annotations

import numpy as np
import pytest

from tidesplit.benchmarks.generalist import thinned
from tidesplit.envs.simulation.scenario import scenario_from

TABLE = scenario_from(profile="efficientnet_lite0").table


@pytest.mark.parametrize("seed", range(20))
def test_every_thinned_table_can_send_and_stay_on_the_device(seed: int) -> None:
    table = thinned(TABLE, np.random.default_rng(seed))
    assert set(table.ids) <= set(TABLE.ids)
    assert table.local.any()
    assert (~table.local & ~table.races).any()


def test_some_have_streams_and_some_have_none() -> None:
    tables = [thinned(TABLE, np.random.default_rng(seed)) for seed in range(20)]
    assert len({table.streams.count > 0 for table in tables}) == 2
    assert all((table.streams.of < table.streams.count).all() for table in tables)
