"""From a candidate to one with other widths, where its slopes say that these are better.

Of each channel the present width and its two neighbours are looked at. What a step brings is its
slope, as far as that is sure; what it risks is the error of both widths by the tables, for to
second order the difference of two roundings costs what both do. Channels whose widths a target
takes in blocks move together. Steps are taken as at one price of a stored bit, which is bisected
until everything fits the budget.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from agents.experience import Tried
from ajpq.policy import CompressionPolicy, LayerPolicy
from envs.actions import width_blocks
from envs.allocation import shares_for
from envs.episodes import settled
from envs.fitting import fits
from envs.slopes import Slopes, neighbours
from envs.task import CompressionTask

# Nats for a stored bit, as logarithms.
_CHEAPEST, _DEAREST, _BISECTIONS = -30.0, 5.0, 24


def downhill(
    task: CompressionTask, best: Tried, slopes: Slopes, caution: float
) -> tuple[CompressionTask, np.ndarray]:
    """``task`` with shares, and settings ``[L, K]`` on the budget, one step away from ``best``.

    Args:
        task: with tables.
        slopes: of the candidate's policy.
        caution: how many standard errors of a slope are taken for chance.
    """
    policy = task.with_shares(best.shares).policy(best.settings)
    steps = [
        _steps(task, index, layer.bits, slopes, caution)
        for index, layer in enumerate(policy.layers.values())
    ]
    small_enough = _fits(task, policy)
    cheap, dear = _CHEAPEST, _DEAREST
    for _ in range(_BISECTIONS):
        middle = (cheap + dear) / 2
        found = [own.widths(np.exp(middle)) for own in steps]
        cheap, dear = (
            (cheap, middle) if small_enough(_with_widths(policy, found)) else (middle, dear)
        )
    widths = [own.widths(np.exp(dear)) for own in steps]
    moved = task.with_shares(
        [
            shares_for(table, own, old, dear)
            for table, own, old in zip(task.tables, widths, best.shares, strict=True)
        ]
    )
    settings, column = best.settings.copy(), task.knobs.names.index("bits")
    low, high = task.knobs.weight_bits[0], task.knobs.weight_bits[-1]
    settings[:, column] = [(own[own > 0].mean() - low) / (high - low) for own in widths]
    return moved, settled(moved, settings)


def shrunk(nats: np.ndarray, errors: np.ndarray, caution: float) -> np.ndarray:
    """``nats`` less what chance may have done, 0 if that is everything (James and Stein, 1961)."""
    chance = np.square(caution * errors) / np.maximum(np.square(nats), 1e-300)
    return nats * np.maximum(1 - chance, 0.0)


@dataclass(frozen=True, eq=False)
class _Steps:
    """What blocks of a layer's channels may do: a step narrower, nothing, or a step wider.

    Attributes:
        bits: ``[C, 3]`` widths after each.
        blocks: ``[C]`` number of each channel's block.
        nats, stored: ``[blocks, 3]`` divergence and bits that each adds.
    """

    bits: np.ndarray
    blocks: np.ndarray
    nats: np.ndarray
    stored: np.ndarray

    def widths(self, price: float) -> np.ndarray:
        """``[C]`` at so many nats for a stored bit."""
        chosen = np.argmin(self.nats + price * self.stored, axis=1)
        return np.take_along_axis(self.bits, chosen[self.blocks][:, None], 1)[:, 0]


def _steps(
    task: CompressionTask, index: int, bits: np.ndarray, slopes: Slopes, caution: float
) -> _Steps:
    """Of one layer, whose channels have ``bits [C]``."""
    table, scores = task.tables[index], task.scores[task.layers[index].name]
    narrower, wider = neighbours(bits, table.widths)
    after = np.stack([narrower, bits, wider], axis=1)
    errors, stored = (_at_widths(own, table.widths, after) for own in (table.errors, table.stored))
    risk = np.where(after == bits[:, None], 0.0, errors + errors[:, 1:2])
    risk[~_at_widths(table.bought, table.widths, after).astype(bool) & (after > 0)] = np.inf
    risk[:, 1] = 0.0
    blocks = width_blocks(bits, scores, task.knobs)
    nats, variance, dared, added = np.zeros((4, blocks.max() + 1, 3))
    np.add.at(nats[:, ::2], blocks, slopes.nats[index])
    np.add.at(variance[:, ::2], blocks, np.square(slopes.errors[index]))
    np.add.at(dared, blocks, risk)
    np.add.at(added, blocks, stored - stored[:, 1:2])
    return _Steps(after, blocks, shrunk(nats, np.sqrt(variance), caution) + dared, added)


def _at_widths(table: np.ndarray, widths: np.ndarray, after: np.ndarray) -> np.ndarray:
    """``[C, 3]`` of a table ``[C, W]``; 0 for pruned channels."""
    place = np.clip(np.searchsorted(widths, after), 0, len(widths) - 1)
    return np.where(after > 0, np.take_along_axis(table, place, 1), 0.0)


def _with_widths(policy: CompressionPolicy, widths: Sequence[np.ndarray]) -> CompressionPolicy:
    layers = {
        name: LayerPolicy(weight_bits=tuple(own.tolist()), activation_bits=layer.activation_bits)
        for (name, layer), own in zip(policy.layers.items(), widths, strict=True)
    }
    return policy.model_copy(update={"layers": layers})


def _fits(task: CompressionTask, now: CompressionPolicy) -> Callable[[CompressionPolicy], bool]:
    """Does a policy keep all bounds, and where a lower cost is the aim the bytes it has ``now``?"""
    if task.budget.bounds and task.budget.max_drop is None:
        return functools.partial(fits, task)
    most = task.packed_bytes(now)
    return lambda policy: task.packed_bytes(policy) <= most and fits(task, policy)
