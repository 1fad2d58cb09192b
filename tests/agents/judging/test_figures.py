"""Figures: every bar of a group has a colour of its own."""

from __future__ import annotations

import pytest
from matplotlib import pyplot as plt

from tidesplit.agents.judging.evaluation import COLUMNS, Row
from tidesplit.agents.judging.figures import rows_figure


@pytest.mark.parametrize("count", [1, 10, 11, 14, 25])
def test_as_many_colours_as_controllers(count: int) -> None:
    """Matplotlib's own cycle begins again after ten. Both panels give a controller the same colour."""
    zeros = dict.fromkeys(COLUMNS, 0.0)
    rows = [
        Row(**{**zeros, "controller": str(i), "trace": trace, "utility": 0.5})  # type: ignore[arg-type]
        for i in range(count)
        for trace in ("a", "b")
    ]
    figure = rows_figure(rows, {"a": 0.9, "b": 0.9})
    colours = [[tuple(bars[0].get_facecolor()) for bars in axes.containers] for axes in figure.axes]
    assert len(set(colours[0])) == count
    assert colours[0] == colours[1]
    plt.close(figure)
