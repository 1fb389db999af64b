"""Does a policy keep a budget, and what may still be had for it?

Projection moves all layers together. Widths go in steps, on some devices by whole blocks of
channels, so that behind the last common step that fits some bytes are left over.
"""

from __future__ import annotations

import bisect
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ajpq.evaluate import Costs
from ajpq.policy import CompressionPolicy
from envs.actions import channel_bits, mean_width, with_sparsity_of
from envs.task import CompressionTask

# A candidate that leaves more of a budget unused says nothing about what could be had for it.
_USED = 0.93
# A guess that exceeds a bound by less is not trusted: it may be that of a policy just on it.
_DOUBTFUL = 0.005
# So often guesses say what to ask next, each time better.
_LOOKS = 3


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


def fits_nearly_surely(task: CompressionTask, policy: CompressionPolicy) -> bool:
    """:func:`fits`, guessed where the target is slow to ask and the guess is far from the bound."""
    if not task.guesses:
        return fits(task, policy)
    if not _small_enough(task, policy):
        return False
    excess = max(task.budget.excess(task.quick_costs(policy), task.margin).values(), default=0.0)
    return fits(task, policy) if 0 < excess < _DOUBTFUL else excess == 0


def _seems_to_fit(task: CompressionTask, policy: CompressionPolicy) -> bool:
    """:func:`fits`, where the target is slow to ask as far as its guesses go, and without asking
    where they go nowhere."""
    if task.guess is None:
        return fits(task, policy)
    latency, bound = task.guess(policy), task.budget.bounds.get("latency")
    most = np.inf if bound is None else bound * (1 - task.margin) * task.budget.reference["latency"]
    return (latency is None or latency <= most) and _small_enough(task, policy)


def spent(task: CompressionTask, settings: np.ndarray) -> np.ndarray:
    """``settings [L, K]`` that keep a budget, with layers a step wider as long as they still do.

    The step that saves most nats for a stored bit comes first; a layer whose next step does not fit
    stays as it is. On a target that is slow to ask, guesses say when to stop. Without shares nobody
    knows what steps are worth, and with ``max_drop`` the cheaper policy is the better one: then
    nothing is spent.
    """
    if not task.ladders or not task.budget.bounds or task.budget.max_drop is not None:
        return settings
    found, open_layers, run = [settings], list(range(len(settings))), 1
    wider = _widened(task, settings)
    # Steps only add to costs: where the last of several fits, those before it do.
    while steps := wider(found[-1], open_layers, run):
        if _seems_to_fit(task, task.policy(steps[-1])):
            found += steps
            run *= 2
        elif len(steps) > 1:
            run = len(steps) // 2
        else:
            open_layers.remove(int((steps[0] != found[-1]).any(1).argmax()))
    return _last_that_fits(task, found)


def _widened(
    task: CompressionTask, settings: np.ndarray
) -> Callable[[np.ndarray, Sequence[int], int], list[np.ndarray]]:
    """A function of settings that differ from ``settings`` in widths, of layers and of a number:
    what the next so many steps of these layers lead to, one after the other."""
    column = task.knobs.names.index("bits")

    @functools.cache
    def step(layer: int, setting: float) -> _Step | None:
        values = with_sparsity_of(settings[layer], settings[task.leaders[layer]])
        values[column] = setting
        return _next_step(task, layer, values)

    def wider(now: np.ndarray, layers: Sequence[int], count: int) -> list[np.ndarray]:
        found: list[np.ndarray] = []
        for _ in range(count):
            offered = [(own, layer) for layer in layers if (own := step(layer, now[layer, column]))]
            if not offered:
                break
            best, layer = max(offered, key=lambda offer: offer[0].worth)
            now = now.copy()
            now[layer, column] = best.setting
            found.append(now)
        return found

    return wider


def _last_that_fits(task: CompressionTask, found: Sequence[np.ndarray]) -> np.ndarray:
    """Of settings that cost more and more, the first of which fit, one that fits.

    Guesses that were too low are corrected by every answer, and where they lead next is mostly the
    last that fits. Where they know not all that is bounded it is bisected; steps may be left out
    then that would have fitted behind one that did not.
    """

    def too_much(settings: np.ndarray) -> bool:
        return not fits(task, task.policy(settings))

    def seems_too_much(settings: np.ndarray) -> bool:
        return not _seems_to_fit(task, task.policy(settings))

    if task.guess is None:
        return found[-1]
    last = len(found) - 1
    for _ in range(_LOOKS if task.guesses else 1):
        if last == 0 or not too_much(found[last]):
            return found[last]
        last = bisect.bisect(found[1:last], 0, key=seems_too_much)
    return found[bisect.bisect(found[1 : last + 1], 0, key=too_much)]


@dataclass(frozen=True)
class _Step:
    """The least that a layer can be widened by.

    Attributes:
        setting: of its knob ``bits`` afterwards.
        worth: nats that it saves for each bit stored.
    """

    setting: float
    worth: float


def _next_step(task: CompressionTask, layer: int, values: np.ndarray) -> _Step | None:
    """The least widening that gains anything; None where a layer is as wide as it gets.

    Args:
        values: ``[K]`` settings of the layer, the one for its width is moved.
    """
    knobs, column = task.knobs, task.knobs.names.index("bits")
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
