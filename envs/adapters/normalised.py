"""Observations for nets that are not ours: fixed scales instead of SI units, most values between -1 and 1.

Raw observations span from milliseconds to megabytes a second, and a usual MLP learns nothing from them. The scales need
no data, so they are the same in training, in a contest and on another profile:

| columns | value |
|---|---|
| times (`..._s`) | share of the deadline, finest near 0: -1 and 1 are a deadline before and after now |
| `deadline_s` | its power of ten: 0 is a second |
| `goodput...`, `...payload`, `..._bytes` | half the powers of ten above 10 kB |
| `slow_down` | its power of two |
| `joules` | above 0.05 J logarithmic, 1 is 1 J |
| `joule_price`, `byte_price` | powers of ten, of which 0 is 1 a joule, 1 for 33 kB, and -1 is free |
| `heat_c` | 0 is 50 °C, 1 is 75 °C |
| `in_flight`, `reference_age` | share of a full link, of the highest age |
| others | as they are: shares, probabilities, yes and no |
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tidesplit.envs.world.fields import NEEDS_KEY, fields_of
from tidesplit.envs.world.physics import USUAL
from tidesplit.profiling.points.table import PointTable

LIMIT = 4.0  # larger values mean "never" or "unknown"
FINE = 0.05  # share of the deadline, or joules, below which the scale is linear
SIZES = ("goodput", "goodput_last", "goodput_low", "payload", "steady_payload", "in_flight_bytes")
Rows = NDArray[np.float32]


def column_names(table: PointTable) -> tuple[str, ...]:
    """Names of the columns of a flat observation: the state's, then each field's for every point, as field:point."""
    state, points = fields_of(len(table.hops))
    return (*state, *(f"{field}:{point}" for field in points for point in table.ids))


class FixedScales:
    """The scales for flat observations of a table of operating points."""

    def __init__(self, table: PointTable) -> None:
        names = [name.partition(":")[0].removeprefix("hop2_") for name in column_names(table)]
        self._deadline = names.index("deadline_s")

        def columns(*of: str) -> NDArray[np.int64]:
            return np.array([i for i, name in enumerate(names) if name in of], dtype=np.int64)

        self._times = columns(*(name for name in set(names) if name.endswith("_s") and name != "deadline_s"))
        self._sizes, self._joules, self._heat = columns(*SIZES), columns("joules"), columns("heat_c")
        self._joule_price, self._byte_price = columns("joule_price"), columns("byte_price")
        self._slow, self._flying, self._ages = columns("slow_down"), columns("in_flight"), columns("reference_age")

    def __call__(self, flat: Rows) -> Rows:
        """The rows ``[B, S + F * A]`` scaled, within `LIMIT`."""
        out = flat.astype(np.float32)  # a copy
        deadline_s = flat[:, [self._deadline]]
        out[:, self._times] = _signed_log(flat[:, self._times] / deadline_s) / np.log1p(1.0 / FINE)
        out[:, self._deadline] = np.log10(flat[:, self._deadline])
        out[:, self._sizes] = 0.5 * np.log10(np.maximum(flat[:, self._sizes], 0.0) + 10.0) - 2.0
        out[:, self._joules] = _signed_log(flat[:, self._joules]) / np.log1p(1.0 / FINE)
        out[:, self._joule_price] = np.log10(flat[:, self._joule_price] + 0.1)
        out[:, self._byte_price] = np.log10(flat[:, self._byte_price] * 3e4 + 0.1)
        out[:, self._heat] = (flat[:, self._heat] - 50.0) / 25.0
        out[:, self._slow] = np.log2(np.maximum(flat[:, self._slow], 1e-3))
        out[:, self._flying] = flat[:, self._flying] / USUAL.window
        out[:, self._ages] = flat[:, self._ages] / NEEDS_KEY
        return np.clip(out, -LIMIT, LIMIT)


def _signed_log(values: Rows) -> Rows:
    """Linear below `FINE` and logarithmic above, with the values' signs."""
    logs: Rows = np.sign(values) * np.log1p(np.abs(values) / np.float32(FINE))
    return logs
