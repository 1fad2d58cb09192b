"""Worlds and utilities of a user's own, by name or file: the options --world and --utility of every command."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from tidesplit.data.named import failure, named
from tidesplit.envs.world.physics import USUAL, World, WorldError, changed
from tidesplit.envs.world.vocabulary import Utility

WORLDS = {"as-traced": USUAL, "granted": World(grant_s=0.009)}
"""Worlds by name. In "granted" a message that finds the link idle waits for a grant of the uplink."""
STEPS = 21  # values of accuracy and of latency that an own utility is tried with
ROUNDING = 1e-9


def world_of(spec: str) -> World:
    """The world of a name in `WORLDS`, or of a JSON file with some of `World`'s numbers: ``{"rtt_s": 0.03}``.

    Raises:
        WorldError: there is no such file, or it holds something else.
    """
    if spec in WORLDS:
        return WORLDS[spec]
    path = Path(spec)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        known = ", ".join(WORLDS)
        raise WorldError(f"world {spec!r}: {error.strerror}; a JSON file, or one of {known}, expected") from error
    except (ValueError, RecursionError) as error:
        raise WorldError(f"{path}: no JSON that can be read ({' '.join(str(error).split())})") from error
    if not isinstance(found, Mapping):
        raise WorldError(f'{path}: an object of numbers expected, such as {{"rtt_s": 0.03}}')
    return changed(USUAL, found, f"{path}: ")


def with_utility(world: World, spec: str | None) -> World:
    """The world in which answers are worth what the function ``spec``, module:function, says. None: the usual worth.

    Raises:
        NamedError: there is no such function.
        WorldError: it does not give a utility.
    """
    if spec is None:
        return world
    own: Utility = named(spec)
    _try(own, spec)
    return replace(world, utility=own)


def _try(own: Utility, spec: str) -> None:
    """Call a utility on a grid. The clairvoyant bound holds only where better and sooner answers are worth no less."""
    shares = np.linspace(0.0, 1.0, STEPS)
    for deadline_s in (0.05, 0.1, 1.0):
        accuracy, latency_s = np.repeat(shares, STEPS), np.tile(shares, STEPS) * deadline_s
        try:
            worth = np.asarray(own(accuracy, latency_s, np.full(STEPS**2, deadline_s)), dtype=np.float64)
        except Exception as error:  # whatever the user's function raises
            raise WorldError(f"{spec}(accuracy, latency_s, deadline_s) failed: {failure(error)}") from error
        if worth.shape != accuracy.shape:
            raise WorldError(f"{spec} gave shape {worth.shape} for columns of {accuracy.shape}, the same expected")
        if not ((worth >= 0.0) & (worth <= 1.0)).all():
            raise WorldError(f"{spec} gave {worth.min():g} to {worth.max():g}, values from 0 to 1 expected")
        grid = worth.reshape(STEPS, STEPS)
        if (np.diff(grid, axis=0) < -ROUNDING).any():
            raise WorldError(f"{spec} falls where the accuracy rises: a better answer must not be worth less")
        if (np.diff(grid, axis=1) > ROUNDING).any():
            raise WorldError(f"{spec} rises with the latency: a later answer must not be worth more")
