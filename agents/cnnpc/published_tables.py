"""CNNPC's tables: the time of each stretch of a CNN on each tier, and of each feature on each hop."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tidesplit.envs.world.vocabulary import Floats, Ints

TIERS = ("end", "edge", "cloud")
# The published folders have no partitions.npy. For each net: the block before each cut, and the channels there.
# MobileNetV2: Sandler et al., CVPR 2018, table 2. ResNet-18: He et al., CVPR 2016, table 1. CNNPC numbers the blocks.
PUBLISHED: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "mobilenet": ((0, 1, 3, 6, 10, 13, 16), (32, 16, 24, 32, 64, 96, 160)),
    "resnet": ((1, 6, 11, 16), (64, 64, 128, 256)),
}


class TableError(ValueError):
    """Tables that cannot be used. The message says what was received and what was expected."""


@dataclass(frozen=True, kw_only=True)
class Tables:
    """A CNN with C cuts on three tiers.

    Attributes:
        blocks: block before each cut, ``[C]``.
        channels: channels of the feature at each cut, ``[C]``.
        run_ms: milliseconds of each stretch between cuts on end, edge and cloud, ``[C + 1, 3]``.
        cross_ms: milliseconds on the hops end-edge and edge-cloud, ``[C + 1, 2]``. Row 0 is the raw image, and then
            comes the whole feature of each cut.
    """

    blocks: Ints
    channels: Ints
    run_ms: Floats
    cross_ms: Floats

    def __post_init__(self) -> None:
        cuts = len(self.blocks)
        for name, values, shape in (
            ("partitions: channels", self.channels, (cuts,)),
            ("T_R", self.run_ms, (cuts + 1, 3)),
            ("T_C", self.cross_ms, (cuts + 1, 2)),
        ):
            if values.shape != shape:
                raise TableError(f"{name}: shape {values.shape} received, {shape} expected for {cuts} cuts")
        for name, values in (("T_R", self.run_ms), ("T_C", self.cross_ms)):
            if not (np.isfinite(values) & (values >= 0.0)).all():
                raise TableError(f"{name}: times that are negative or not finite received, milliseconds expected")
        if cuts == 0 or (np.diff(self.blocks) <= 0).any() or (self.channels < 1).any():
            raise TableError("partitions: at least one cut, rising blocks and at least one channel a cut expected")


def load(folder: Path, device: str | None, bandwidth: str | None) -> Tables:
    """Read the tables in a folder.

    Args:
        folder: has T_R.npy and T_C.npy, or the published sub-folders for devices and bandwidths.
        device: name in a sub-folder TR-NAME. None: not needed.
        bandwidth: Mbit/s in a sub-folder TC-20M-MBPSM, from edge to cloud. None: not needed.

    Raises:
        TableError: a file is missing or has the wrong shape, or there is no table for the device or the bandwidth.
    """
    if not folder.is_dir():
        raise TableError(f"--tables {folder}: no such folder")
    run_ms = _numbers(_one_of(folder, "T_R.npy", "TR-", device, "--device"))
    cross_ms = _numbers(_one_of(folder, "T_C.npy", "TC-20M-", bandwidth and f"{bandwidth}M", "--bandwidth"))
    blocks, channels = _partitions(folder)
    return Tables(blocks=blocks, channels=channels, run_ms=run_ms, cross_ms=cross_ms)


def _one_of(folder: Path, file: str, prefix: str, chosen: str | None, option: str) -> Path:
    if (folder / file).is_file():
        return folder / file
    there = sorted(path.parent.name.removeprefix(prefix) for path in folder.glob(f"{prefix}*/{file}"))
    if chosen is None or chosen not in there:
        has = f"those for {', '.join(there)}" if there else f"neither {file} nor {prefix}*/{file}"
        raise TableError(f"{option} {chosen or 'not given'}: {folder} holds {has}")
    return folder / f"{prefix}{chosen}" / file


def _partitions(folder: Path) -> tuple[Ints, Ints]:
    path = folder / "partitions.npy"
    if path.is_file():
        rows = _numbers(path)
        if rows.ndim != 2 or len(rows) < 2 or not (rows == np.rint(rows)).all():
            raise TableError(f"{path}: shape {rows.shape} received, whole numbers [2, cuts] or [3, cuts] expected")
        return rows[0].astype(np.int64), rows[1].astype(np.int64)
    name = folder.resolve().name
    if name not in PUBLISHED:
        raise TableError(f"{path}: no such file, and {name!r} is none of the published nets {', '.join(PUBLISHED)}")
    blocks, channels = PUBLISHED[name]
    return np.array(blocks), np.array(channels)


def _numbers(path: Path) -> Floats:
    try:
        return np.load(path, allow_pickle=False).astype(np.float64)  # type: ignore[no-any-return]
    except (OSError, ValueError, TypeError, EOFError, AttributeError) as error:
        raise TableError(f"{path}: a NumPy array of numbers expected ({error})") from error
