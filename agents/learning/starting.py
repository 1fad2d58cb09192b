"""Training that starts from a bundle: its policy's actor and normaliser, read from the arrays that devices use."""

from __future__ import annotations

from pathlib import Path

import torch

from tidesplit.agents import bundle as bundles
from tidesplit.agents.device_net import arrays_of
from tidesplit.agents.learning.policy import PointPolicy


def hidden_of(folder: Path) -> int:
    """Width of the hidden layers of a bundle's policy.

    Raises:
        BundleError: as `start_from`.
    """
    start = bundles.load(folder)
    try:
        return int(arrays_of(start.policy.arrays)["score.weight"].shape[1])
    except Exception as error:
        raise _no_start(folder, error) from error


def start_from(policy: PointPolicy, folder: Path) -> None:
    """Give a policy the actor and the normaliser of a bundle's.

    Raises:
        BundleError: no bundle, or one of an earlier version, or with another number of hops or hidden units.
    """
    start = bundles.load(folder)
    try:
        net, columns = arrays_of(start.policy.arrays), start.manifest["normaliser"]
        actor = {name: torch.from_numpy(net[name]) for name in policy.actor.state_dict()}
        policy.actor.load_state_dict(actor)
        for name, group in (("state", policy.features.state), ("points", policy.features.points)):
            group.mean.copy_(torch.tensor(columns[name]["mean"]))
            group.std.copy_(torch.tensor(columns[name]["std"]))
    except Exception as error:  # torch, NumPy and zip files have no common base class
        raise _no_start(folder, error) from error


def _no_start(folder: Path, error: Exception) -> bundles.BundleError:
    return bundles.BundleError(f"{folder}: no policy to start from ({' '.join(str(error).split())})")
