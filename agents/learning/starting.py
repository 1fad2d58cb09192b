"""Training that starts from a bundle: its policy's actor and normaliser, read from the arrays that devices use."""

from __future__ import annotations

from pathlib import Path

import torch

from tidesplit.agents import bundle as bundles
from tidesplit.agents.device_net import arrays_of
from tidesplit.agents.learning.policy import PointPolicy


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
        raise bundles.BundleError(f"{folder}: no policy to start from ({' '.join(str(error).split())})") from error
