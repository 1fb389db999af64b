"""Does a policy keep a budget, and what may still be had for it?

Projection moves all layers together. Widths go in steps, on some devices by whole blocks of
channels, so that behind the last common step that fits some bytes are left over.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ajpq.evaluate import Costs
from ajpq.policy import CompressionPolicy
from envs.actions import channel_bits, mean_width, with_sparsity_of
from envs.task import CompressionTask

# A candidate that leaves more of a budget unused says nothing about what could be had for it.
_USED = 0.93


def uses_the_budget(task: CompressionTask, costs: Costs) -> bool:
    """Do costs keep all bounds, and one of them only just?"""
    ratios = task.budget.ratios(costs)
    used = [ratios[name] / bound for name, bound in task.budget.bounds.items()]
    return max(used, default=1.0) >= _USED and task.budget.met(costs)


def fits(task: CompressionTask, policy: CompressionPolicy) -> bool:
    """Does ``policy`` keep all bounds, margin included?"""
    return _small_enough(task, policy) and (
        not task.budget.bounds or task.budget.met(task.price(policy), task.margin)
    )


def _small_enough(task: CompressionTask, policy: CompressionPolicy) -> bool:
    """Cheaper to ask than the target."""
    budget = task.budget
    if "size" not in budget.bounds:
        return True
    most = (1 - task.margin) * budget.bounds["size"] * budget.reference["size"]
    return task.packed_bytes(policy) <= most


def spent(task: CompressionTask, settings: np.ndarray) -> np.ndarray:
    """``settings [L, K]`` that keep a budget, with layers a step wider as long as they still do.

    The step that saves most nats for a stored bit comes first; a layer whose next step does not fit
    stays as it is. Without shares nobody knows what steps are worth, and with ``max_drop`` the
    cheaper policy is the better one: then nothing is spent.
    """
    if not task.ladders or not task.budget.bounds or task.budget.max_drop is not None:
        return settings
    column, found = task.knobs.names.index("bits"), [settings]
    steps = {layer: _next_step(task, settings, layer) for layer in range(len(settings))}
    while offered := {layer: step for layer, step in steps.items() if step is not None}:
        layer, step = max(offered.items(), key=lambda item: item[1].worth)
        wider = found[-1].copy()
        wider[layer, column] = step.setting
        steps[layer] = None
        if _seems_to_fit(task, task.policy(wider)):
            found.append(wider)
            steps[layer] = _next_step(task, wider, layer)
    return _last_that_fits(task, found)


def _last_that_fits(task: CompressionTask, found: Sequence[np.ndarray]) -> np.ndarray:
    """Of settings that cost more and more, the first of which fit; guesses may be too low.

    Guesses know no bounds but those on latency and size: with others, steps may be left out that
    would have fitted behind one that did not.
    """

    def too_much(settings: np.ndarray) -> bool:
        return not fits(task, task.policy(settings))

    if task.guess is None or len(found) == 1 or not too_much(found[-1]):
        return found[-1]
    return found[bisect.bisect(found[1:-1], 0, key=too_much)]


def _seems_to_fit(task: CompressionTask, policy: CompressionPolicy) -> bool:
    """:func:`fits`, where the target is slow to ask as far as its guesses go."""
    if task.guess is None:
        return fits(task, policy)
    latency, bound = task.guess(policy), task.budget.bounds.get("latency")
    most = np.inf if bound is None else bound * (1 - task.margin) * task.budget.reference["latency"]
    return (latency is None or latency <= most) and _small_enough(task, policy)


@dataclass(frozen=True)
class _Step:
    """The least that a layer can be widened by.

    Attributes:
        setting: of its knob ``bits`` afterwards.
        worth: nats that it saves for each bit stored.
    """

    setting: float
    worth: float


def _next_step(task: CompressionTask, settings: np.ndarray, layer: int) -> _Step | None:
    """The least widening that gains anything; None where a layer is as wide as it gets."""
    knobs, column = task.knobs, task.knobs.names.index("bits")
    values = with_sparsity_of(settings[layer], settings[task.leaders[layer]])
    before = _widths(task, layer, values)
    low, high, now = knobs.weight_bits[0], knobs.weight_bits[-1], mean_width(knobs, values[column])
    live = int((before > 0).sum())
    for purchases in range(1, live * (high - low) + 1):
        values[column] = min((now + purchases / live - low) / (high - low), 1.0)
        after = _widths(task, layer, values)
        if (after != before).any():
            worth = _worth(task, layer, before, after)
            if worth > 0:
                return _Step(float(values[column]), worth)
        if values[column] == 1.0:
            break
    return None


def _widths(task: CompressionTask, layer: int, values: np.ndarray) -> np.ndarray:
    name = task.layers[layer].name
    assert task.ladders is not None
    prunable = name not in task.unprunable
    return channel_bits(task.scores[name], task.knobs, values, prunable, task.ladders[layer])


def _worth(task: CompressionTask, layer: int, before: np.ndarray, after: np.ndarray) -> float:
    """Nats saved for each stored bit between two widths ``[C]`` of a layer."""
    assert task.shares is not None
    table, rows = task.tables[layer], np.flatnonzero(before != after)
    old, new = (np.searchsorted(table.widths, widths[rows]) for widths in (before, after))
    weights = np.exp(task.shares[layer][rows])
    saved = weights @ (table.errors[rows, old] - table.errors[rows, new])
    stored = (table.stored[rows, new] - table.stored[rows, old]).sum()
    return float(saved / max(stored, 1e-9))
