"""Controllers under budgets: the prices at which each of them begins, and rules that are made for prices.

A controller that spends too much meets higher prices, see `envs.budget.prices`. Each begins with the prices to which it
settled on the training traces, so none is ahead of another by a lucky guess.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from tidesplit.agents.bundle import Bundle
from tidesplit.agents.judging.evaluation import Entrant, controller_of
from tidesplit.agents.rules.family import Setting, Spent, played
from tidesplit.envs.budget.prices import CALM_S, WITHIN, Budgets, PriceDraw, Prices
from tidesplit.envs.simulation.simulation import Scenario, Simulation
from tidesplit.envs.world.observation import Controller, Observation
from tidesplit.envs.world.vocabulary import Bools, Demand, Floats, Ints
from tidesplit.profiling.points.table import PointTable

MIXTURE, THRESHOLD = "best mixture of points", "threshold rule"
"""Rules for budgets: of fixed rules that were measured on the training traces, the prices choose one at each frame."""
FORESIGHT = "five frames of foresight"
GRID = 48  # prices tried for each budget
SHORT_S = (0.0, 0.005, 0.010, 0.020, 0.030)
HOPELESS_S = (-np.inf, -0.05, 0.0)
SPARE_S = (0.010, 0.020, 0.030, 0.040)
SETTLING_S, SETTLED_S = 60.0, 20.0  # length of the episodes in which prices settle, and its part that counts


def usual_prices(spent: Spent, demand: Demand) -> Prices:
    """Prices at which the best mixture of the settings meets the demand's budgets: the optimum of the dual programme.

    The least sum of the best setting's utility less cost and the budgets' own worth, found on a grid.
    """
    budgets = Budgets.of(demand)
    joules = 0.0 if np.isinf(budgets.watts[0]) else budgets.watts[0] * demand.period_s
    sent = 0.0 if np.isinf(budgets.byte_rate[0]) else budgets.byte_rate[0] * demand.period_s
    of_joule = np.geomspace(0.05, 200.0, GRID) if joules else np.zeros(1)
    of_byte = np.geomspace(1e-7, 1e-2, GRID) if sent else np.zeros(1)
    left = spent.utility - of_joule[:, None, None] * (spent.joules - joules)
    left = (left - of_byte[None, :, None] * (spent.sent_bytes - sent)).max(axis=2)
    row, column = np.unravel_index(int(left.argmin()), left.shape)
    return Prices.of(float(of_joule[row]), float(of_byte[column]))


def mixture_utility(spent: Spent, demand: Demand) -> float:
    """Utility of the best mixture that meets the budgets: the optimum of the linear programme, by its dual."""
    prices, budgets = usual_prices(spent, demand), Budgets.of(demand)
    worth = spent.utility - prices.joule * spent.joules - prices.byte * spent.sent_bytes
    own = (p[0] * b[0] * demand.period_s for p, b in zip(prices, budgets, strict=True) if np.isfinite(b[0]))
    return float(worth.max() + sum(own))


def affordable(spent: Spent, demand: Demand) -> Bools:
    """True for the settings that meet the budgets by themselves, ``[K]``."""
    budgets = Budgets.of(demand)
    watts, rate = spent.joules / demand.period_s, spent.sent_bytes / demand.period_s
    return np.asarray((watts <= budgets.watts * WITHIN) & (rate <= budgets.byte_rate * WITHIN))


def share_spent(watts: float, gb_month: float, demand: Demand) -> float:
    """Share of the demand's budgets that so many watts and GB a month are; of two the larger. 0 without a budget."""
    spent = ((watts, demand.max_watts), (gb_month, demand.max_gb_month))
    return max((of / most for of, most in spent if most is not None), default=0.0)


def within(watts: float, gb_month: float, demand: Demand) -> bool:
    """True where so many watts and GB a month meet the demand's budgets."""
    return share_spent(watts, gb_month, demand) <= WITHIN


def at_prices(arena: Scenario, prices: Prices) -> Scenario:
    """The scenario at fixed prices."""
    return replace(arena, price_draw=PriceDraw(prices, spread=1.0, free=0.0))


def statics(table: PointTable) -> list[Setting]:
    """Every point as a setting."""
    return [Setting(row, row, row) for row in range(table.size)]


def thresholds(table: PointTable, spent: Spent, prices: Prices) -> list[Setting]:
    """Threshold rules worth trying at about these prices, after every static point.

    ``spent``: of the static points. Offload points and local nets are the best ones at a third, one and three times the
    prices, and the next narrower nets, for a device that is hot. A race is that of the offload point with each local
    net. Each rule is tried by itself, and with the next wider net where there is time. Local nets that take turns are
    tried without the link too. So is every net while the device has time for it, and sending where it has none.
    """
    single = ~table.local & ~table.races
    offloads = _best(single, spent, prices)
    locals_ = _and_narrower(_best(table.local, spent, prices), table.local, table)
    found = statics(table)
    for local, spare_s in product(locals_, SPARE_S):
        if (wide := _wider(local, table.local, table)) != local:
            found.append(Setting(local, local, local, 0.0, np.inf, wide, wide, spare_s))
    sending = [*offloads, *_best(table.races, spent, prices)]
    for net, instead, spare_s in product(np.flatnonzero(table.local).tolist(), sending, SPARE_S):
        found.append(Setting(instead, instead, instead, 0.0, np.inf, net, net, spare_s))
    for offload, local in product(offloads, locals_):
        same = table.races & (table.streams.of == table.streams.of[offload])
        same &= table.hops[0].bytes_mean == table.hops[0].bytes_mean[offload]
        wide_local = _wider(local, table.local, table)
        races = _and_narrower(_best(same, spent, prices), same, table)
        for race, short_s, hopeless_s in product(races, SHORT_S, HOPELESS_S):
            wide_race = _wider(race, same, table)
            has_wider = (wide_race, wide_local) != (race, local)
            for spare_s in (np.inf, *SPARE_S) if has_wider else (np.inf,):
                found.append(Setting(offload, race, local, short_s, hopeless_s, wide_race, wide_local, spare_s))
    return found


def _and_narrower(rows: Sequence[int], among: Bools, table: PointTable) -> list[int]:
    """These rows, and those among ``among`` of the next less accurate nets on the device."""
    accuracy = _on_device(table)
    worse = [among & (accuracy < accuracy[row]) for row in rows]
    return list(dict.fromkeys([*rows, *(int(np.where(w, accuracy, -np.inf).argmax()) for w in worse if w.any())]))


def _on_device(table: PointTable) -> Floats:
    """Accuracy of each point's net on the device, ``[A]``."""
    return np.where(table.local, table.accuracy, table.finish_accuracy)


def _wider(row: int, among: Bools, table: PointTable) -> int:
    """Row among these of the next more accurate net on the device; ``row`` where there is none."""
    accuracy = _on_device(table)
    better = among & (accuracy > accuracy[row])
    return int(np.where(better, accuracy, np.inf).argmin()) if better.any() else row


def _best(among: Bools, spent: Spent, prices: Prices) -> list[int]:
    """Rows among these that are best at a third, one and three times the prices."""
    rows = []
    for factor in (1 / 3, 1.0, 3.0):
        worth = spent.utility - factor * (prices.joule * spent.joules + prices.byte * spent.sent_bytes)
        rows.append(int(np.where(among, worth, -np.inf).argmax()))
    return list(dict.fromkeys(row for row in rows if among[row]))


@dataclass(frozen=True)
class EverySetting:
    """One setting a lane, for measuring them all at the same time."""

    name: str
    settings: Sequence[Setting]
    chosen: Ints

    def predict(self, observation: Observation) -> Ints:
        """Rows of each lane's setting, ``[B]``."""
        return played(self.settings, self.chosen, observation)


@dataclass(frozen=True)
class Budgeted:
    """An entrant that begins an episode at its own prices."""

    entrant: Entrant
    prices: tuple[float, float]  # of a joule and of a byte
    rests: bool = False  # the radio may rest, see `envs.budget.rest`

    def __call__(self, simulation: Simulation) -> Controller:
        """The controller, in a simulation whose prices begin there."""
        simulation.begin_with(Prices.of(*self.prices, simulation.lanes), self.rests)
        return controller_of(self.entrant, simulation)


def policy_of(bundle: Bundle, demand: Demand) -> Entrant:
    """The policy of a bundle, as a device begins with it: under budgets at the prices in the bundle."""
    return Budgeted(bundle.policy, bundle.first_prices, may_rest(demand)) if demand.budgeted else bundle.policy


def may_rest(demand: Demand) -> bool:
    """True where a device lets its radio rest: under a budget of energy, whoever decides."""
    return demand.max_watts is not None


def settled(entrant: Entrant, arena: Scenario, first: Prices, lanes: int, seed: int, quantile: float = 0.5) -> Budgeted:
    """The entrant with the prices to which it settles on the arena's traces, when it begins with ``first``.

    A quantile of some episodes' mean logarithms over their last part. On a link that carries next to nothing a price of
    data falls without end, and that lane would decide the mean. No radio rests meanwhile; under a budget of energy the
    entrant's may afterwards.
    """
    demand = arena.demands[0]
    moving = replace(arena, episode_s=SETTLING_S, price_draw=None)
    simulation = Simulation(moving, [np.random.default_rng([seed, lane]) for lane in range(lanes)])
    controller = controller_of(Budgeted(entrant, (float(first.joule[0]), float(first.byte[0]))), simulation)
    fps = demand.fps
    counted = round((SETTLING_S - SETTLED_S) * fps)
    debts: list[Floats] = []
    for frame in range(round(SETTLING_S * fps)):
        simulation.step(controller.predict(simulation.observation()))
        if frame >= counted:
            debts.append(np.stack([simulation.ledger.joules_s, simulation.ledger.bytes_s]))
    rise = np.exp(np.quantile(np.mean(debts, axis=0), quantile, axis=1) / CALM_S)
    prices = float(first.joule[0] * rise[0]), float(first.byte[0] * rise[1])
    return Budgeted(entrant, prices, may_rest(demand))
