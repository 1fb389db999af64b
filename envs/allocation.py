"""Widths of a layer's channels that lose least for the bits they store, at any mean width.

Rate-distortion allocation (Shoham and Gersho, 1988): every channel has a few widths, each with the
error it leaves and the bits it takes. Along the lower convex hull of its (bits, error) points a
channel buys less error with every further bit. All channels' purchases, sorted by what a bit buys,
are one ladder; its beginning is optimal for whatever it costs.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

# What is bought and what is not differ by so much of a share at least.
_APART = 1e-3


@dataclass(frozen=True, eq=False)
class KernelTable:
    """What one layer's channels lose and store at every width, before any training.

    Attributes:
        widths: ``[W]`` ascending, in bits.
        errors: ``[C, W]`` nats that rounding the channel's weights alone is taken to cost.
        stored: ``[C, W]`` bits of the channel's codes after entropy coding.
    """

    widths: np.ndarray
    errors: np.ndarray
    stored: np.ndarray

    @cached_property
    def bought(self) -> np.ndarray:
        """``[C, W]`` bool: is the width on the channel's hull, so that some price buys it?"""
        found = np.zeros(self.errors.shape, dtype=bool)
        for channel, pair in enumerate(zip(self.stored, self.errors, strict=True)):
            found[channel, _hull(*pair)] = True
        return found

    @cached_property
    def ladder(self) -> Ladder:
        """Who buys the layer's bits, the table taken at its word."""
        return _ladder(self)


@dataclass(frozen=True, eq=False)
class Ladder:
    """All purchases of a layer, the most worthwhile first.

    Attributes:
        lowest: width that every channel starts from.
        channels: ``[S]`` who buys.
        gains: ``[S]`` by how many bits its width grows.
        worth: ``[S]`` nats saved per stored bit, falling.
    """

    lowest: int
    channels: np.ndarray
    gains: np.ndarray
    worth: np.ndarray


def weighted(even: Ladder, shares: np.ndarray) -> Ladder:
    """The ladder of a layer whose channels do not matter equally.

    Args:
        shares: ``[C]`` how much more a channel's error matters than the table says: the natural
            logarithm of the factor, 0 for as much.
    """
    worth = even.worth * np.exp(shares[even.channels])
    order = np.argsort(-worth, kind="stable")
    return Ladder(even.lowest, even.channels[order], even.gains[order], worth[order])


def _ladder(table: KernelTable) -> Ladder:
    channels, gains, worth = [], [], []
    for channel in range(len(table.errors)):
        points = _hull(table.stored[channel], table.errors[channel])
        for now, after in itertools.pairwise(points):
            channels.append(channel)
            gains.append(int(table.widths[after] - table.widths[now]))
            worth.append(_slope(table, channel, now, after))
    unsorted = Ladder(
        int(table.widths[0]),
        np.array(channels, dtype=np.int64),
        np.array(gains, dtype=np.int64),
        np.array(worth, dtype=np.float64),
    )
    return weighted(unsorted, np.zeros(len(table.errors)))


def _slope(table: KernelTable, channel: int, now: int, after: int) -> float:
    errors, stored = table.errors[channel], table.stored[channel]
    return float((errors[now] - errors[after]) / max(stored[after] - stored[now], 1e-9))


def _hull(stored: np.ndarray, errors: np.ndarray) -> list[int]:
    """Indices on the lower convex hull from the first width on, each with less error."""
    kept = [0]
    for index in range(1, len(stored)):
        if errors[index] >= errors[kept[-1]]:
            continue
        while len(kept) > 1 and _steeper(stored, errors, kept[-2], kept[-1], index):
            kept.pop()
        kept.append(index)
    return kept


def _steeper(stored: np.ndarray, errors: np.ndarray, first: int, middle: int, last: int) -> bool:
    """Does the way from ``middle`` to ``last`` save more per bit than that from ``first``?"""
    early = (errors[first] - errors[middle]) * max(stored[last] - stored[middle], 1e-9)
    late = (errors[middle] - errors[last]) * max(stored[middle] - stored[first], 1e-9)
    return bool(late >= early)


def widths_with_mean(found: Ladder, live: np.ndarray, mean: float) -> np.ndarray:
    """``[C]`` widths of the live channels whose mean is as close below ``mean`` as steps allow.

    Args:
        live: ``[C]`` bool; the others get 0 bits.
    """
    own = live[found.channels]
    channels, gains = found.channels[own], found.gains[own]
    wanted = (mean - found.lowest) * int(live.sum())
    taken = int(np.searchsorted(np.cumsum(gains), wanted + 1e-9, side="right"))
    widths = np.where(live, found.lowest, 0).astype(np.int64)
    np.add.at(widths, channels[:taken], gains[:taken])
    return widths


def shares_for(
    table: KernelTable, widths: np.ndarray, near: np.ndarray, price: float
) -> np.ndarray:
    """``[C]`` shares with which the layer's channels buy just ``widths`` at one price.

    Args:
        widths: ``[C]``, each one that is :attr:`KernelTable.bought`; 0 for pruned channels, whose
            shares stay.
        near: ``[C]`` shares that they are to be nearest to.
        price: logarithm of the nats per stored bit.
    """
    found, ladder = near.astype(np.float64), table.ladder
    for channel in np.flatnonzero(widths):
        own = ladder.channels == channel
        after = ladder.lowest + np.cumsum(ladder.gains[own])
        bought = int(np.searchsorted(after, widths[channel], side="right"))
        worth = np.log(ladder.worth[own])
        least = price - worth[bought - 1] if bought else -math.inf
        most = price - worth[bought] if bought < len(worth) else math.inf
        apart = min(_APART, (most - least) / 2)
        found[channel] = min(max(near[channel], least + apart), most - apart)
    return found


def mean_width_at(found: Ladder, live: np.ndarray, worth: float) -> float:
    """Mean width of the ``live [C]`` channels, who buy all that is worth so many nats per bit."""
    bought = (found.worth >= worth) & live[found.channels]
    return found.lowest + float(found.gains[bought].sum()) / max(int(live.sum()), 1)


def error_of(table: KernelTable, widths: np.ndarray) -> float:
    """Nats that a layer's live channels are taken to cost at ``widths [C]``."""
    live = np.flatnonzero(widths)
    return float(table.errors[live, np.searchsorted(table.widths, widths[live])].sum())


def even_shares(tables: Sequence[KernelTable]) -> tuple[np.ndarray, ...]:
    """Shares that take every table at its word."""
    return tuple(np.zeros(len(table.errors)) for table in tables)
