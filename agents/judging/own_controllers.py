"""Controllers of a user's own in a contest, named as module:factory.

The factory is called with the scenario that rules are tuned in: operating points, demand, world and training traces. It
returns an object with a method ``predict`` from an `Observation` to rows of the table, ``[B]``, and perhaps a ``name``.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tidesplit.agents.judging.budgeted import may_rest
from tidesplit.data.named import failure, named
from tidesplit.envs.adapters.actions import rows_of
from tidesplit.envs.simulation.simulation import Scenario, Simulation
from tidesplit.envs.world.observation import Observation
from tidesplit.envs.world.vocabulary import Ints


class ControllerError(ValueError):
    """A user's controller cannot be played. The message is one sentence."""


@dataclass(frozen=True)
class OwnController:
    """An entrant that a factory makes. Every process that plays it makes its own, so it need not be picklable.

    Attributes:
        spec: module:factory.
        tune_on: scenario that the factory is called with.
    """

    spec: str
    tune_on: Scenario

    def __call__(self, simulation: Simulation) -> CheckedController:
        """The controller, its answers checked. The radio may rest, as with everybody under a budget of energy."""
        simulation.begin_with(simulation.first_prices, may_rest(simulation.scenario.demands[0]))
        return CheckedController(self.spec, self.made(), simulation.scenario.table.size)

    def made(self) -> Any:
        """The object that the factory returns.

        Raises:
            NamedError: there is no such factory.
            ControllerError: it fails, or what it returns cannot decide.
        """
        factory = named(self.spec)
        try:
            made = factory(self.tune_on)
        except Exception as error:  # whatever the user's factory raises
            why = f"{self.spec}, called with the scenario of the training, failed: {failure(error)}"
            raise ControllerError(why) from error
        if not callable(getattr(made, "predict", None)):
            kind = type(made).__name__
            raise ControllerError(f"{self.spec} returned an object of type {kind}, one with a method predict expected")
        return made


class CheckedController:
    """A user's controller. What it returns is checked, and its failure becomes one sentence."""

    def __init__(self, spec: str, controller: Any, points: int) -> None:
        self._spec, self._controller, self._points = spec, controller, points
        self.name = name_of(spec, controller)

    def predict(self, observation: Observation) -> Ints:
        """Rows of the chosen points, ``[B]``.

        Raises:
            ControllerError: the controller fails, or does not give one row for each lane.
        """
        try:
            found = self._controller.predict(observation)
        except Exception as error:  # whatever the user's controller raises
            raise ControllerError(f"{self._spec}: predict failed: {failure(error)}") from error
        try:
            return rows_of(found, len(observation.mask), self._points)
        except ValueError as error:
            why = str(error).removeprefix("action ")
            raise ControllerError(f"{self._spec}: predict returned {why}") from error


def name_of(spec: str, controller: Any) -> str:
    """The controller's own name, or its factory's."""
    return str(getattr(controller, "name", "") or spec.partition(":")[2])


def own_controllers(specs: Sequence[str], tune_on: Scenario, taken: Collection[str]) -> dict[str, OwnController]:
    """The users' controllers by their names, each tried on one frame. ``taken``: names of the others in the table.

    Raises:
        NamedError: there is no such module or factory.
        ControllerError: it cannot be played, or another controller has its name.
    """
    found: dict[str, OwnController] = {}
    short = replace(tune_on, episode_s=1.0)
    for spec in specs:
        entrant = OwnController(spec, tune_on)
        simulation = Simulation(short, [np.random.default_rng(lane) for lane in range(2)])
        tried = entrant(simulation)
        tried.predict(simulation.observation())
        if tried.name in found or tried.name in taken:
            raise ControllerError(f"{spec}: another controller is called {tried.name!r}, a name of its own expected")
        found[tried.name] = entrant
    return found
