"""Loss of accuracy by removing channels at a cut: measured at some rates, and linear between them."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tidesplit.agents.cnnpc.published_tables import TableError, Tables
from tidesplit.envs.world.vocabulary import Floats

FIELDS = ("block1", "rate1", "block2", "rate2")  # the fifth column's name ends in "accuracy"
ROUNDING = 1e-5  # printed rates have six digits: 0.958333 means 23 of 24 channels


@dataclass(frozen=True)
class Drops:
    """Losses of accuracy.

    Attributes:
        base: accuracy of the uncut CNN.
        of_cut: for each cut, the loss by removing k channels, ``[channels]``. NaN above the largest measured rate,
            which is 0 for a cut that was not measured.
    """

    base: float
    of_cut: tuple[Floats, ...]


def load(path: Path, tables: Tables) -> Drops:
    """Read a CSV file with the columns block1,rate1,block2,rate2,accuracy.

    Rows with block1 = block2 and rate1 = rate2 describe one cut. Rows of two cuts are ignored, because the accuracy of
    two cuts is taken as the base less both losses. For the 13 such rows that CNNPC published, this is off by 0.005 in
    the mean and 0.018 at most, mostly too low. A row of rate 0, of any block, gives the base.

    Raises:
        TableError: the file is unreadable, a block is no cut, a number is out of range, a rate has two accuracies, or
            the base is missing.
    """
    measured: list[dict[float, float]] = [{0.0: 0.0} for _ in tables.blocks]
    single = [row for row in _rows(path) if row[1][0] == row[1][2] and row[1][1] == row[1][3]]
    bases = {row[4] for _, row in single if row[1] == 0.0}
    if len(bases) != 1:
        raise TableError(f"{path}: one accuracy at rate 0 (nothing removed) expected, {len(bases)} received")
    base = bases.pop()
    for line, (block, rate, _, _, accuracy) in single:
        if rate == 0.0:
            continue
        cut = _cut_of(block, tables, f"{path}, line {line}")
        removed = _removed(rate, int(tables.channels[cut]))
        if measured[cut].setdefault(removed, base - accuracy) != base - accuracy:
            raise TableError(f"{path}, line {line}: another accuracy was given for block {block:g} at rate {rate:g}")
    return Drops(base, tuple(_between(m, int(n)) for m, n in zip(measured, tables.channels, strict=True)))


def _rows(path: Path) -> list[tuple[int, tuple[float, ...]]]:
    """Line number and the five numbers of each row."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            header = [name.strip() for name in next(reader, [])]
            if tuple(header[:4]) != FIELDS or len(header) != 5 or not header[4].endswith("accuracy"):
                raise TableError(f"{path}: columns {','.join(header)} received, {','.join(FIELDS)},accuracy expected")
            return [(reader.line_num, _numbers(row, f"{path}, line {reader.line_num}")) for row in reader if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TableError(f"{path}: cannot be read ({error})") from error


def _numbers(row: list[str], where: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(value) for value in row)
    except ValueError as error:
        raise TableError(f"{where}: five numbers expected, {','.join(row)} received") from error
    if len(numbers) != 5:
        raise TableError(f"{where}: five numbers expected, {len(numbers)} received")
    if not all(0.0 <= value < 1.0 for value in (numbers[1], numbers[3])) or not 0.0 <= numbers[4] <= 1.0:
        raise TableError(
            f"{where}: rates from 0 to below 1 and an accuracy from 0 to 1 expected, {','.join(row)} received"
        )
    return numbers


def _cut_of(block: float, tables: Tables, where: str) -> int:
    found = np.flatnonzero(tables.blocks == block)
    if not found.size:
        raise TableError(f"{where}: block {block:g} is no cut; there are {', '.join(map(str, tables.blocks))}")
    return int(found[0])


def _removed(rate: float, channels: int) -> float:
    """Channels that a rate removes. Numbers that are whole, except for the rate's rounding, are made whole."""
    whole = round(rate * channels)
    return float(whole) if abs(rate - whole / channels) <= ROUNDING else rate * channels


def _between(measured: dict[float, float], channels: int) -> Floats:
    """Loss by removed channels, ``[channels]``: linear between measured ones, NaN above the largest."""
    known = sorted(measured)
    removed = np.arange(channels)
    drops = np.interp(removed, known, [measured[k] for k in known])
    return np.where(removed <= known[-1], drops, np.nan)
